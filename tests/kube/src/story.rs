//! The cases, in the order of a user's life with Millrace.

mod change;
mod chart;
mod declare;
mod fault;
mod install;
mod plugin;
mod remove;
mod replicas;
mod scale;
mod stream;

use crate::case::Case;

/// From Helm install to namespaces that are gone.
pub(crate) const MAIN: &[&[Case]] = &[
    chart::CASES,
    install::CASES,
    declare::CASES,
    plugin::CASES,
    stream::CASES,
    change::CASES,
    fault::CASES,
    replicas::GROWTH,
    remove::CASES,
];

/// What happens to one broker of three.
pub(crate) const REPLICAS: &[&[Case]] = &[replicas::CASES, scale::CASES];

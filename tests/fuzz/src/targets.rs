//! The targets, by what they feed.

pub(crate) mod catalogue;
pub(crate) mod commands;
pub(crate) mod directory;
pub(crate) mod journal;
pub(crate) mod peers;
pub(crate) mod records;
pub(crate) mod routing;
pub(crate) mod tag;
pub(crate) mod texts;
pub(crate) mod wire;
pub(crate) mod yaml;

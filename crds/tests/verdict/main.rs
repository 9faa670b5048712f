//! One verdict: `check` and a real API server accept the same documents, name the same fields and
//! fill in the same defaults.

mod api_server;
mod columns;
mod corpus;
mod local;
mod mutants;
mod updates;

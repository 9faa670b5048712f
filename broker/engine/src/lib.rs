//! The meaning of committed commands. Pure and deterministic: no clock, file, socket, thread or
//! random number can be reached from here, time and chance arrive inside the command.
#![no_std]

extern crate alloc;

pub mod command;
pub mod outcome;
pub mod spec;

//! The work of a thread, one step at a time: the same code runs on a thread of its own in a broker
//! and in turns, on virtual time, in a simulation.

use std::io;
use std::time::Instant;

/// When a routine wants its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more to do.
    Now,
    /// When something has arrived, or at this time at the latest.
    Wait(Option<Instant>),
    /// Never: it has ended.
    Ended,
}

/// The work of a thread. Whoever runs it calls `step` from one thread at a time; a step that finds
/// nothing to do changes nothing, so it may be called at any time.
pub trait Routine: Send {
    /// Does what waits, without waiting for more.
    fn step(&mut self, now: Instant) -> Next;

    /// Blocks until a step may find something to do, or until the deadline. May return early.
    fn wait(&mut self, deadline: Option<Instant>);
}

impl<R: Routine + ?Sized> Routine for Box<R> {
    fn step(&mut self, now: Instant) -> Next {
        (**self).step(now)
    }

    fn wait(&mut self, deadline: Option<Instant>) {
        (**self).wait(deadline);
    }
}

/// Takes a named routine and sees to it that it runs to its end, here or elsewhere.
pub type Starter<'a> = dyn FnMut(&str, Box<dyn Routine>) -> io::Result<()> + 'a;

/// Runs a routine on the calling thread until it ends.
pub fn drive(mut routine: impl Routine) {
    loop {
        match routine.step(Instant::now()) {
            Next::Now => {}
            Next::Wait(deadline) => routine.wait(deadline),
            Next::Ended => return,
        }
    }
}

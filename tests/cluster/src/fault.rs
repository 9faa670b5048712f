//! What happens to one node of a cluster, and for how long.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use crate::chance::Chance;

/// A way to disturb a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Fault {
    /// Killed, and started again on its disk.
    Kill,
    /// Stopped where it is for longer than an election takes.
    Pause,
    /// Its wires are cut: all of them, or some, or one way only.
    Cut,
    /// Killed, and started again on an empty disk.
    Wipe,
    /// Its disk takes its time to sync.
    Slow,
    /// Its disk has no room for more.
    Full,
    /// Nothing is wrong: it is asked to hand over what it leads. Always the leader.
    Transfer,
}

/// Which wires of a node are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All, both ways.
    Both,
    /// Nobody hears it.
    Out,
    /// It hears nobody.
    In,
    /// Both ways, to one other node.
    One(usize),
}

/// What happens in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blow {
    /// Which way.
    pub fault: Fault,
    /// For [`Fault::Cut`].
    pub cut: Cut,
    /// Until it ends.
    pub lasts: Duration,
    /// Whether the node that leads is hit, or another.
    pub hits_leader: bool,
}

/// Some blows end before anybody notices; others last longer than an election, which takes 0.8 to
/// 1.6 s.
const LASTS_MS_MAX: u64 = 4_000;
/// A pause is to be noticed.
const PAUSE_MS_MIN: u64 = 2_000;

impl Blow {
    /// Chooses one; leaders and followers are hit in turn.
    pub fn choose(chance: &mut Chance, round: u32, faults: &[Fault], nodes: usize) -> Self {
        let pick = chance.below(faults.len() as u64);
        let fault = usize::try_from(pick).ok().and_then(|n| faults.get(n));
        let fault = fault.copied().unwrap_or(Fault::Kill);
        let cut = match chance.below(4) {
            0 => Cut::Out,
            1 => Cut::In,
            2 => Cut::One(usize::try_from(chance.below(nodes as u64 - 1)).unwrap_or(0)),
            _ => Cut::Both,
        };
        let least = if fault == Fault::Pause {
            PAUSE_MS_MIN
        } else {
            0
        };
        Self {
            fault,
            cut,
            lasts: Duration::from_millis(least + chance.below(LASTS_MS_MAX - least)),
            hits_leader: round % 2 == 1 || fault == Fault::Transfer,
        }
    }

    /// The same, on the leader whoever's turn it is.
    #[must_use]
    pub const fn on_leader(self) -> Self {
        Self {
            hits_leader: true,
            ..self
        }
    }

    /// From whom to whom nothing goes through, when this node is hit.
    #[must_use]
    pub fn ways(&self, node: usize, nodes: usize) -> Vec<(usize, usize)> {
        let others: Vec<usize> = (0..nodes).filter(|other| *other != node).collect();
        let out = |others: &[usize]| others.iter().map(|other| (node, *other)).collect();
        let into = |others: &[usize]| others.iter().map(|other| (*other, node)).collect();
        match self.cut {
            Cut::Out => out(&others),
            Cut::In => into(&others),
            Cut::Both => [out(&others), into(&others)].concat(),
            Cut::One(n) => {
                let one = &others[n % others.len()..][..1];
                [out(one), into(one)].concat()
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Cut => "cut",
            Self::Wipe => "wipe",
            Self::Slow => "slow",
            Self::Full => "full",
            Self::Transfer => "transfer",
        })
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Fault::Kill => write!(f, "killed")?,
            Fault::Pause => write!(f, "paused")?,
            Fault::Cut => write!(f, "cut off ({:?})", self.cut)?,
            Fault::Wipe => write!(f, "wiped")?,
            Fault::Slow => write!(f, "slowed down")?,
            Fault::Full => write!(f, "full")?,
            Fault::Transfer => return write!(f, "hands over"),
        }
        write!(f, " for {:?}", self.lasts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blow(cut: Cut) -> Blow {
        Blow {
            fault: Fault::Cut,
            cut,
            lasts: Duration::ZERO,
            hits_leader: true,
        }
    }

    #[test]
    fn a_cut_names_the_ways_that_it_closes() {
        assert_eq!(blow(Cut::Out).ways(1, 3), [(1, 0), (1, 2)]);
        assert_eq!(blow(Cut::In).ways(1, 3), [(0, 1), (2, 1)]);
        assert_eq!(blow(Cut::Both).ways(0, 3).len(), 4);
        assert_eq!(blow(Cut::One(1)).ways(1, 3), [(1, 2), (2, 1)]);
    }

    #[test]
    fn leaders_and_followers_are_hit_in_turn_and_a_pause_outlasts_an_election() {
        let mut chance = Chance::new(3);
        for round in 1..100 {
            let blow = Blow::choose(&mut chance, round, &[Fault::Pause], 3);
            assert_eq!(blow.hits_leader, round % 2 == 1);
            assert!(blow.lasts >= Duration::from_millis(PAUSE_MS_MIN));
        }
    }
}

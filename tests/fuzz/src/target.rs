//! The table of targets.

use crate::allocation;
use crate::targets::{
    catalogue, commands, directory, journal, peers, records, routing, tag, texts, wire, yaml,
};

/// What is fuzzed, and what must hold.
#[derive(Debug)]
pub struct Target {
    /// Its name on the command line, and of its directory below `corpus`.
    pub name: &'static str,
    /// What must hold, besides: no panic, and memory in proportion to the input.
    pub promises: &'static str,
    /// Checks one input.
    check: fn(&[u8]),
    /// Inputs that mean something, made from what is in the tree now: they follow every change of
    /// a format.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Longer inputs find nothing that shorter ones do not, and take longer.
    pub bytes_max: usize,
}

/// Memory that any input may take, beyond what its length explains: schemas, tables, buffers.
const ALLOCATED_BASE: usize = 64 << 20;
/// Bytes of memory for each byte of an input: decoded forms are larger than what is decoded.
const ALLOCATED_PER_BYTE: usize = 4096;

/// All of them.
pub const TARGETS: [Target; 15] = [
    Target {
        name: "journal_files",
        promises: "any journal opens or says why not, again and again",
        check: journal::files,
        seeds: journal::file_seeds,
        bytes_max: 4096,
    },
    Target {
        name: "journal_damage",
        promises: "one damaged place loses nothing of a shard that is not named as damaged, but \
                   for the torn last batch; nothing is invented; a second start finds the same",
        check: journal::damage,
        seeds: journal::damage_seeds,
        bytes_max: 256,
    },
    Target {
        name: "directory",
        promises: "any data directory opens or says why not; what is read is in order",
        check: directory::check,
        seeds: directory::seeds,
        bytes_max: 4096,
    },
    Target {
        name: "records",
        promises: "split and check agree, and what was pushed is what is split off",
        check: records::check,
        seeds: records::seeds,
        bytes_max: 2048,
    },
    Target {
        name: "commands",
        promises: "a decoded command is what it is encoded as; a restored shard is the same, and \
                   stays so under the same commands",
        check: commands::entries,
        seeds: commands::entry_seeds,
        bytes_max: 4096,
    },
    Target {
        name: "shard_snapshot",
        promises: "a restored shard encodes to itself, and goes on without a panic",
        check: commands::snapshot,
        seeds: commands::snapshot_seeds,
        bytes_max: 4096,
    },
    Target {
        name: "catalogue_commands",
        promises: "as `commands`, of the metadata shard",
        check: catalogue::entries,
        seeds: catalogue::entry_seeds,
        bytes_max: 4096,
    },
    Target {
        name: "catalogue_snapshot",
        promises: "as `shard_snapshot`, of the metadata shard",
        check: catalogue::snapshot,
        seeds: catalogue::snapshot_seeds,
        bytes_max: 4096,
    },
    Target {
        name: "wire",
        promises: "a request is taken or refused with a short refusal; a batch that is taken can \
                   be split and delivered",
        check: wire::requests,
        seeds: wire::request_seeds,
        bytes_max: 4096,
    },
    Target {
        name: "wire_topology",
        promises: "a topology that is taken can be applied, and comes back as it was",
        check: wire::topology,
        seeds: wire::topology_seeds,
        bytes_max: 4096,
    },
    Target {
        name: "peers",
        promises: "whatever a peer sends, a replica takes it or refuses it; it never goes back \
                   behind what it has committed",
        check: peers::frames,
        seeds: peers::seeds,
        bytes_max: 4096,
    },
    Target {
        name: "tag",
        promises: "only what was made from a tag is a tag",
        check: tag::check,
        seeds: tag::seeds,
        bytes_max: 128,
    },
    Target {
        name: "routing",
        promises: "pattern and header filter decide as naive ones do",
        check: routing::check,
        seeds: routing::seeds,
        bytes_max: 512,
    },
    Target {
        name: "yaml",
        promises: "what the check accepts compiles, and a broker takes it",
        check: yaml::check,
        seeds: yaml::seeds,
        bytes_max: 2048,
    },
    Target {
        name: "texts",
        promises: "addresses, spans and sizes: what is parsed prints as something that parses \
                   to the same",
        check: texts::check,
        seeds: texts::seeds,
        bytes_max: 300,
    },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// Checks one input.
    ///
    /// # Panics
    /// When the target's promise is broken: that is what is looked for.
    pub fn check(&self, bytes: &[u8]) {
        let peak = allocation::peak_of(|| (self.check)(bytes));
        let allowed = ALLOCATED_BASE + ALLOCATED_PER_BYTE * bytes.len();
        assert!(
            peak <= allowed,
            "{} bytes of input took {peak} bytes of memory, more than {allowed}",
            bytes.len()
        );
    }
}

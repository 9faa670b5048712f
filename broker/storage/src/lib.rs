//! Disk, journal, segments, checkpoints and recovery.

//! Writes what belongs in `src/generated/` from `millrace/v1/*.proto`, into the directory given, by
//! default `src/generated/` itself; `cargo xtask generate` runs it.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message as _;

const FILES: [&str; 8] = [
    "millrace/v1/admin.proto",
    "millrace/v1/cluster.proto",
    "millrace/v1/consumer.proto",
    "millrace/v1/error.proto",
    "millrace/v1/message.proto",
    "millrace/v1/publisher.proto",
    "millrace/v1/stream.proto",
    "millrace/v1/topology.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = env::args_os()
        .nth(1)
        .map_or_else(|| root.join("src/generated"), PathBuf::from);
    fs::create_dir_all(&out)?;
    let descriptors = protox::compile(FILES, [root])?;
    fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(&out)
        .compile_fds(descriptors)
        .map_err(|error| io::Error::other(format!("cannot generate code: {error}")))?;
    Ok(())
}

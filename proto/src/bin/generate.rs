//! Writes what belongs in `src/generated/` from `millrace/**/*.proto`, into the directory given, by
//! default `src/generated/` itself; `cargo xtask generate` runs it.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message as _;

/// For clients and the operator.
const PUBLIC: [&str; 10] = [
    "millrace/v1/admin.proto",
    "millrace/v1/cluster.proto",
    "millrace/v1/consumer.proto",
    "millrace/v1/error.proto",
    "millrace/v1/message.proto",
    "millrace/v1/nodes.proto",
    "millrace/v1/publisher.proto",
    "millrace/v1/routing.proto",
    "millrace/v1/stream.proto",
    "millrace/v1/topology.proto",
];

/// Between the nodes of a cluster: a set of its own, so that reflection does not show it.
const PEER: [&str; 1] = ["millrace/peer/v1/peer.proto"];

/// How nodes become a cluster.
const MEMBERSHIP: [&str; 1] = ["millrace/membership/v1/membership.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = env::args_os()
        .nth(1)
        .map_or_else(|| root.join("src/generated"), PathBuf::from);
    fs::create_dir_all(&out)?;
    let public = tonic_prost_build::configure();
    generate(public, &PUBLIC, root, &out, "descriptor.bin")?;
    let peer = tonic_prost_build::configure().codec_path("crate::peer::FrameCodec");
    generate(peer, &PEER, root, &out, "peer-descriptor.bin")?;
    let membership = tonic_prost_build::configure();
    let descriptor = "membership-descriptor.bin";
    generate(membership, &MEMBERSHIP, root, &out, descriptor)
}

fn generate(
    builder: tonic_prost_build::Builder,
    files: &[&str],
    root: &Path,
    out: &Path,
    descriptor: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(files, [root])?;
    fs::write(out.join(descriptor), descriptors.encode_to_vec())?;
    builder
        .bytes(".")
        .out_dir(out)
        .compile_fds(descriptors)
        .map_err(|error| io::Error::other(format!("cannot generate code: {error}")))?;
    Ok(())
}

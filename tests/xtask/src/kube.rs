//! The Kubernetes suites (`tests/kube`): builds the binaries, packs the image they run in, and
//! hands both to the suite with the cluster to use: the one named, or the project's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::house::{House, succeed, test_program};
use crate::needs;
use crate::tally::Tally;

/// The image under test, as containerd spells what a chart calls `millrace`; its tag is the chart's
/// `appVersion`.
const IMAGE: &str = concat!("docker.io/library/millrace:", env!("CARGO_PKG_VERSION"));

/// The same under another tag: what an upgrade installs.
const NEXT_IMAGE: &str = concat!(
    "docker.io/library/millrace:",
    env!("CARGO_PKG_VERSION"),
    "-next"
);

/// User of the image; the same in `Dockerfile`.
const IMAGE_USER: &str = "65532:65532";

/// Which suite, on which cluster.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The suite to run.
    #[arg(long, default_value = "main")]
    suite: String,
    /// Use this cluster; without it the project's own is started.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// How images get to the nodes and nodes can be stopped: testbed, kind, minikube or plain.
    #[arg(long)]
    driver: Option<Driver>,
    /// With `plain`: an image the cluster can pull, instead of loading one.
    #[arg(long)]
    image: Option<String>,
    /// Leave everything as it is at the end, the cluster too.
    #[arg(long)]
    keep: bool,
    /// Run only the cases whose names contain this.
    #[arg(long)]
    only: Option<String>,
}

/// The suite's drivers.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Driver {
    Testbed,
    Kind,
    Minikube,
    Plain,
}

impl Driver {
    fn name(self) -> &'static str {
        match self {
            Self::Testbed => "testbed",
            Self::Kind => "kind",
            Self::Minikube => "minikube",
            Self::Plain => "plain",
        }
    }
}

/// Builds and runs a suite.
///
/// # Errors
/// When something is missing or does not build; failed cases are counted, not an error.
pub(crate) fn run(house: &House, options: &Options) -> Result<Tally> {
    let own = options.kubeconfig.is_none();
    let driver = options
        .driver
        .unwrap_or(if own { Driver::Testbed } else { Driver::Plain });
    let testbed = house.root().join("tests/kube/testbed");
    if driver == Driver::Testbed {
        needs::test_cluster()?;
        succeed(&mut house.command(testbed.join("build")))?;
    }
    house.build(&[
        "millrace",
        "kubectl-millrace",
        "millrace-operator",
        "millrace-kube-tests",
    ])?;
    let mut suite = house.command(house.binary("millrace-kube-tests"));
    suite.args(["--suite", &options.suite, "--driver", driver.name()]);
    suite
        .arg("--chart")
        .arg(house.root().join("charts/millrace"));
    suite.arg("--testbed").arg(&testbed);
    suite.arg("--cli").arg(house.binary("millrace"));
    suite.arg("--plugin").arg(house.binary("kubectl-millrace"));
    suite
        .arg("--operator")
        .arg(house.binary("millrace-operator"));
    suite.arg("--verdict").arg(test_program(house, "verdict")?);
    if let Some(kubeconfig) = &options.kubeconfig {
        suite.arg("--kubeconfig").arg(kubeconfig);
    }
    match &options.image {
        Some(image) => suite.args(["--image", image]),
        None => {
            let (image, next) = pack(house)?;
            suite
                .args(["--image", IMAGE])
                .arg("--image-archive")
                .arg(image);
            suite
                .args(["--next-image", NEXT_IMAGE])
                .arg("--next-image-archive")
                .arg(next)
        }
    };
    if options.keep {
        suite.arg("--keep");
    }
    if let Some(only) = &options.only {
        suite.args(["--only", only]);
    }
    Tally::count(&mut suite)
}

/// Packs both binaries as the last stage of the Dockerfile does, without Docker; twice, under the
/// two names.
fn pack(house: &House) -> Result<(PathBuf, PathBuf)> {
    let place = house.cache().join("image");
    fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let mut files = Vec::new();
    for name in ["millrace", "millrace-operator"] {
        let stripped = strip(&house.binary(name), &place.join(name))?;
        files.push(format!("{}=/{name}", stripped.display()));
    }
    let archive = |name: &str, image: &str| -> Result<PathBuf> {
        let archive = place.join(name);
        let mut command = house.command(house.root().join("tests/kube/testbed/mkimage"));
        command.args(["--user", IMAGE_USER]).arg(&archive);
        command.args([image, "/millrace"]).args(&files);
        succeed(&mut command)?;
        Ok(archive)
    };
    Ok((
        archive("millrace.tar", IMAGE)?,
        archive("millrace-next.tar", NEXT_IMAGE)?,
    ))
}

/// Leaves debug information out of the image when `strip` is here: a tenth of the bytes to load.
fn strip(from: &Path, to: &Path) -> Result<PathBuf> {
    let mut strip = Command::new("strip");
    strip
        .args(["--strip-debug", "-o"])
        .arg(to)
        .arg(from)
        .stderr(Stdio::null());
    if strip.status().is_ok_and(|status| status.success()) {
        return Ok(to.to_path_buf());
    }
    fs::metadata(from).with_context(|| format!("{} is not built", from.display()))?;
    Ok(from.to_path_buf())
}

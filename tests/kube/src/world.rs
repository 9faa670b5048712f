//! The cluster under test and what the cases know of each other.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::case::{Case, Need};
use crate::driver::{self, Driver};
use crate::ledger::Ledger;
use crate::options::Options;
use crate::shell::Shell;
use crate::wait;

/// Where the operator is installed.
pub(crate) const SYSTEM: &str = "millrace-test-system";
/// Where the broker cluster, its topic and its queues are.
pub(crate) const SHOP: &str = "millrace-test-shop";
/// Where clients run.
pub(crate) const CLIENTS: &str = "millrace-test-clients";
/// Where everything is made once more to be removed at once.
pub(crate) const DOOMED: &str = "millrace-test-doomed";
/// Where a second release looks.
pub(crate) const SECOND: &str = "millrace-test-second";
/// All of them.
const NAMESPACES: [&str; 5] = [SYSTEM, SHOP, CLIENTS, DOOMED, SECOND];
/// The Helm release of most cases.
pub(crate) const RELEASE: &str = "millrace";
/// The broker cluster's name.
pub(crate) const CLUSTER: &str = "main";

/// Everything a case may use.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) shell: Shell,
    pub(crate) driver: Box<dyn Driver>,
    /// The node that clients run on, where it matters.
    pub(crate) home: Option<String>,
    /// Filled by the streaming cases, read at the end.
    pub(crate) ledger: Ledger,
    /// Bytes of the audit log that are older than this run.
    audit_from: usize,
}

impl World {
    /// Has a cluster, with the image on it and nothing of an earlier run.
    ///
    /// # Errors
    /// When there is no cluster, or the image cannot be loaded.
    pub(crate) fn start(options: Options) -> Result<Self> {
        let mut driver = driver::of(&options);
        let kubeconfig = driver.start()?;
        let shell = Shell::new(&driver.bin(), kubeconfig);
        let world = Self {
            options,
            shell,
            driver,
            home: None,
            ledger: Ledger::default(),
            audit_from: 0,
        };
        world.or_give_back(Self::set_up)
    }

    /// A cluster that was started here is stopped when it cannot be used.
    fn or_give_back(mut self, set_up: fn(&mut Self) -> Result<()>) -> Result<Self> {
        let Err(error) = set_up(&mut self) else {
            return Ok(self);
        };
        if !self.options.keep
            && let Err(stays) = self.driver.finish()
        {
            eprintln!("the cluster is left as it is: {stays:#}");
        }
        Err(error)
    }

    fn set_up(&mut self) -> Result<()> {
        let world = self;
        let version = world.shell.json(&["version"])?;
        let server = version["serverVersion"]["gitVersion"]
            .as_str()
            .unwrap_or("unknown");
        println!("Kubernetes {server}, driver {}", world.driver.name());
        world.refuse_foreign_install()?;
        world.sweep()?;
        world.audit_from = world.audit_log()?.map_or(0, |text| text.len());
        let archives = [
            &world.options.image_archive,
            &world.options.next_image_archive,
        ];
        for archive in archives.into_iter().flatten() {
            world.driver.load(archive)?;
        }
        for namespace in NAMESPACES {
            world.shell.kubectl(&["create", "namespace", namespace])?;
            let restricted = "pod-security.kubernetes.io/enforce=restricted";
            world
                .shell
                .kubectl(&["label", "namespace", namespace, restricted])?;
        }
        Ok(())
    }

    /// Removes what was made; stops the cluster if it was started here.
    ///
    /// # Errors
    /// When something stays.
    pub(crate) fn finish(&self, keep: bool) -> Result<()> {
        if keep {
            return Ok(());
        }
        self.sweep()?;
        self.driver.finish()
    }

    /// Whether a case was asked for, or one that was cannot do without it.
    pub(crate) fn wants(&self, case: &Case) -> bool {
        let only = self.options.only.as_deref();
        case.need == Need::All || only.is_none_or(|text| case.name.contains(text))
    }

    /// What the API server was asked during this run, one JSON object a line; `None` when the
    /// driver has no audit log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) fn audit_lines(&self) -> Result<Option<Vec<String>>> {
        let log = self.audit_log()?;
        let since = |text: String| {
            let new = text.get(self.audit_from..).unwrap_or_default();
            new.lines().map(str::to_owned).collect()
        };
        Ok(log.map(since))
    }

    fn audit_log(&self) -> Result<Option<String>> {
        let Some(path) = self.driver.audit_log() else {
            return Ok(None);
        };
        let text = fs::read_to_string(&path);
        Ok(Some(text.with_context(|| {
            format!("cannot read {}", path.display())
        })?))
    }

    /// Waits for a condition of an object.
    ///
    /// # Errors
    /// When it does not come; the object's status is told.
    pub(crate) fn wait_for(
        &self,
        namespace: &str,
        object: &str,
        condition: &str,
        limit: Duration,
    ) -> Result<()> {
        let condition = format!("--for=condition={condition}");
        let timeout = format!("--timeout={}s", limit.as_secs());
        let waited = self
            .shell
            .kubectl(&["wait", "-n", namespace, object, &condition, &timeout]);
        waited.map(drop).with_context(|| {
            let status = self
                .get(namespace, object)
                .map(|value| value["status"].to_string());
            format!(
                "{object}: {}",
                status.unwrap_or_else(|error| error.to_string())
            )
        })
    }

    /// An object.
    ///
    /// # Errors
    /// When it does not exist.
    pub(crate) fn get(&self, namespace: &str, object: &str) -> Result<Value> {
        self.shell.json(&["get", "-n", namespace, object])
    }

    /// Tells people what the cluster looks like, after a case failed.
    pub(crate) fn tell_state(&self) {
        let looks: [&[&str]; 4] = [
            &["get", "pods", "-A", "-o", "wide"],
            &[
                "get",
                "brokerclusters,queues.millrace.dev,topics.millrace.dev",
                "-A",
            ],
            &[
                "logs",
                "-n",
                SYSTEM,
                "-l",
                "app.kubernetes.io/name=millrace",
                "--tail=25",
            ],
            &[
                "logs",
                "-n",
                SHOP,
                "-l",
                "app.kubernetes.io/name=millrace",
                "--tail=25",
            ],
        ];
        for look in looks {
            match self.shell.kubectl(look) {
                Ok(text) => eprintln!("--- kubectl {}\n{}", look.join(" "), text.trim_end()),
                Err(error) => eprintln!("--- {error:#}"),
            }
        }
    }

    /// A cluster where somebody uses Millrace is not for tests: removing the definitions at the end
    /// would remove everything that is declared there.
    fn refuse_foreign_install(&self) -> Result<()> {
        for definition in self.definitions()? {
            let metadata = self.shell.json(&["get", &definition])?["metadata"].clone();
            let owner = &metadata["annotations"]["meta.helm.sh/release-namespace"];
            let ours = owner
                .as_str()
                .is_some_and(|owner| NAMESPACES.contains(&owner));
            ensure!(
                ours,
                "{definition} is there already: this cluster is in use, take another"
            );
        }
        Ok(())
    }

    /// Our definitions that are there, as `crd/NAME`.
    pub(crate) fn definitions(&self) -> Result<Vec<String>> {
        let names = self.shell.kubectl(&["get", "crd", "-o", "name"])?;
        let ours = names.lines().filter(|name| name.ends_with(".millrace.dev"));
        Ok(ours.map(str::to_owned).collect())
    }

    /// Removes what a run leaves, whoever left it.
    fn sweep(&self) -> Result<()> {
        self.uninstall_all()?;
        let mut delete = vec!["delete", "namespace", "--ignore-not-found", "--wait=false"];
        delete.extend(NAMESPACES);
        self.shell.kubectl(&delete)?;
        wait::until_true(
            "the namespaces of the test are gone",
            Duration::from_secs(120),
            || {
                let mut get = vec!["get", "namespace", "--ignore-not-found", "-o", "name"];
                get.extend(NAMESPACES);
                Ok(self.shell.kubectl(&get)?.trim().is_empty())
            },
        )?;
        for definition in self.definitions()? {
            self.shell
                .kubectl(&["delete", &definition, "--timeout=60s"])?;
        }
        Ok(())
    }

    fn uninstall_all(&self) -> Result<()> {
        for namespace in [SYSTEM, SECOND] {
            let releases = self.shell.helm(["list", "-n", namespace, "--all", "-q"]);
            for release in releases.unwrap_or_default().lines() {
                self.shell
                    .helm(["uninstall", release, "-n", namespace, "--wait"])?;
            }
        }
        Ok(())
    }
}

//! The broker pod. Satisfies the `restricted` Pod Security Standard.
//!
//! Whatever changes the template of an unchanged cluster restarts every broker once when the
//! operator is upgraded: the golden files show it, the changelog must say it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapEnvSource, Container, ContainerPort, EmptyDirVolumeSource,
    EnvFromSource, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath, ObjectFieldSelector,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile, SecretVolumeSource,
    SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::spread;
use crate::cluster::desired::Desired;
use crate::{hash, labels, names};

/// User and group of the broker: what `nonroot` images agree on.
const USER: i64 = 65_532;
/// The broker in the image.
const BROKER_PATH: &str = "/millrace";
const DATA_PATH: &str = "/data";
const CONTROL_PATH: &str = "/etc/millrace/control";
const CONTROL_VOLUME: &str = "control";
const TMP_VOLUME: &str = "tmp";
/// Readable for the pod's group, which is the broker's.
const TOKEN_MODE: i32 = 0o440;
/// After draining a broker writes a checkpoint and stops its threads; only then may it be killed.
const STOP_MARGIN: Duration = Duration::from_secs(15);
/// Until the process answers at all. What it does then before it serves, reading its journal or
/// waiting to be told of its cluster, takes as long as it takes: no probe may end it.
const START_LIMIT: Duration = Duration::from_secs(120);
const START_PROBE_PERIOD_S: i32 = 2;
/// The pod's own name, for the address that its peers know it by.
const POD_NAME_VARIABLE: &str = "POD_NAME";
/// Where the pod runs, as Kubernetes 1.35 and later copy it from the node to the pod. On others the
/// variable is empty: reading the node itself would take a right on the whole cluster.
const ZONE_VARIABLE: &str = "MILLRACE_ZONE";

/// The pod template with its own hash as an annotation.
pub(super) fn template(desired: &Desired) -> PodTemplateSpec {
    let mut template = unhashed(desired);
    let hash = template_hash(desired);
    template
        .metadata
        .get_or_insert_default()
        .annotations
        .get_or_insert_default()
        .insert(labels::TEMPLATE_HASH.to_owned(), hash);
    template
}

/// Hash of all that a running broker does not take over by itself: the template and its settings.
#[must_use]
pub fn template_hash(desired: &Desired) -> String {
    hash::of_json(&(unhashed(desired), &desired.settings))
}

fn unhashed(desired: &Desired) -> PodTemplateSpec {
    let mut pod_labels = desired.pod_labels.clone();
    pod_labels.extend(labels::common(&desired.key));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations: some_map(&desired.pod_annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(desired.key.service_account()),
            automount_service_account_token: Some(false),
            // Variables of every Service of the namespace would only be noise, and a start delay.
            enable_service_links: Some(false),
            termination_grace_period_seconds: i64::try_from(
                (desired.drain_timeout + STOP_MARGIN).as_secs(),
            )
            .ok(),
            security_context: Some(pod_security()),
            image_pull_secrets: some_list(&desired.image.pull_secrets),
            affinity: spread::affinity(desired),
            topology_spread_constraints: spread::constraints(desired),
            node_selector: some_map(&desired.node_selector),
            tolerations: some_list(&desired.tolerations),
            priority_class_name: desired.priority_class.clone(),
            containers: vec![broker(desired)],
            volumes: Some(volumes(desired)),
            ..PodSpec::default()
        }),
    }
}

fn broker(desired: &Desired) -> Container {
    Container {
        name: names::BROKER_CONTAINER.to_owned(),
        image: Some(desired.image.name.clone()),
        image_pull_policy: Some(desired.image.pull_policy.to_owned()),
        command: Some(vec![BROKER_PATH.to_owned()]),
        args: Some(arguments(desired)),
        env: Some(vec![
            field_variable(POD_NAME_VARIABLE, "metadata.name"),
            field_variable(
                ZONE_VARIABLE,
                &format!("metadata.labels['{}']", labels::ZONE),
            ),
        ]),
        env_from: Some(vec![EnvFromSource {
            config_map_ref: Some(ConfigMapEnvSource {
                name: desired.key.config_map(),
                optional: None,
            }),
            ..EnvFromSource::default()
        }]),
        ports: Some(vec![
            port(names::CLIENT_PORT_NAME, names::CLIENT_PORT),
            port(names::CONTROL_PORT_NAME, names::CONTROL_PORT),
            port(names::PEER_PORT_NAME, names::PEER_PORT),
            port(names::METRICS_PORT_NAME, names::METRICS_PORT),
        ]),
        resources: desired.resources.clone(),
        // Why a broker gave up, in the pod's status, without a look at its log.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(container_security()),
        startup_probe: Some(Probe {
            period_seconds: Some(START_PROBE_PERIOD_S),
            failure_threshold: i32::try_from(START_LIMIT.as_secs())
                .ok()
                .map(|limit_s| limit_s / START_PROBE_PERIOD_S),
            ..probe("/livez")
        }),
        readiness_probe: Some(Probe {
            period_seconds: Some(2),
            failure_threshold: Some(5),
            ..probe("/readyz")
        }),
        // A minute without any answer: slower than the slowest disk, a broker that hangs all the
        // same.
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            failure_threshold: Some(6),
            ..probe("/livez")
        }),
        volume_mounts: Some(vec![
            mount(names::DATA_VOLUME, DATA_PATH, None),
            mount(TMP_VOLUME, "/tmp", None),
            mount(CONTROL_VOLUME, CONTROL_PATH, Some(true)),
        ]),
        ..Container::default()
    }
}

fn arguments(desired: &Desired) -> Vec<String> {
    let key = &desired.key;
    let own_name = format!("$({POD_NAME_VARIABLE})");
    vec![
        "serve".to_owned(),
        format!("--data-dir={DATA_PATH}"),
        format!("--listen=0.0.0.0:{}", names::CLIENT_PORT),
        format!("--control-listen=0.0.0.0:{}", names::CONTROL_PORT),
        format!("--metrics-listen=0.0.0.0:{}", names::METRICS_PORT),
        format!("--control-token-file={CONTROL_PATH}/{}", names::TOKEN_KEY),
        format!("--cluster-id={}", desired.cluster_id.as_str()),
        format!("--peer-listen=0.0.0.0:{}", names::PEER_PORT),
        format!("--peer-advertise={}", key.peer_address(&own_name)),
        format!("--join={}:{}", key.nodes_host(), names::PEER_PORT),
    ]
}

fn volumes(desired: &Desired) -> Vec<Volume> {
    vec![
        Volume {
            name: TMP_VOLUME.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        },
        Volume {
            name: CONTROL_VOLUME.to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(desired.key.control_secret()),
                default_mode: Some(TOKEN_MODE),
                items: Some(vec![KeyToPath {
                    key: names::TOKEN_KEY.to_owned(),
                    path: names::TOKEN_KEY.to_owned(),
                    mode: None,
                }]),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
    ]
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        // Walking a large data directory at every start would take minutes.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(runtime_default()),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        run_as_non_root: Some(true),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        seccomp_profile: Some(runtime_default()),
        ..SecurityContext::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        ..SeccompProfile::default()
    }
}

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(names::METRICS_PORT_NAME.to_owned()),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn field_variable(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                // The API server would fill it in, and we would see a difference.
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn mount(name: &str, path: &str, read_only: Option<bool>) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..VolumeMount::default()
    }
}

/// Empty maps and lists are left out: the API server would drop them and we would see a difference.
fn some_map(map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then(|| map.clone())
}

fn some_list<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

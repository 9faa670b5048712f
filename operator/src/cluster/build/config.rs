//! The broker's settings. They are environment variables read at start; the pod template's hash
//! covers them, so that a change restarts the broker.

use k8s_openapi::api::core::v1::ConfigMap;

use super::meta;
use crate::cluster::desired::Desired;

pub(super) fn config_map(desired: &Desired) -> ConfigMap {
    ConfigMap {
        metadata: meta(desired, desired.key.config_map()),
        data: Some(desired.settings.clone()),
        ..ConfigMap::default()
    }
}

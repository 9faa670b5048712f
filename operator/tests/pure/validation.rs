//! What a BrokerCluster asks for, and which are refused.

use millrace_operator::cluster::facts::References;
use millrace_operator::reasons;
use serde_json::json;

use crate::support::{
    DEFAULT_IMAGE, FRESH_ID, claim, claimless, cluster, try_validated, validated, with_spec,
};

#[test]
fn a_new_cluster_gets_the_fresh_id_and_the_operators_image() {
    let desired = validated(&cluster(), claimless());

    assert_eq!(desired.cluster_id.as_str(), FRESH_ID);
    assert_eq!(desired.image.name, DEFAULT_IMAGE);
}

#[test]
fn a_cluster_created_again_adopts_the_id_of_its_claims() {
    let references = References {
        claims: vec![claim(Some("theirs"))],
        ..claimless()
    };

    assert_eq!(
        validated(&cluster(), references).cluster_id.as_str(),
        "theirs"
    );
}

#[test]
fn ids_that_do_not_agree_are_refused_with_every_place_named() {
    let mut cluster = cluster();
    cluster.status.get_or_insert_default().cluster_id = Some("mine".to_owned());
    let references = References {
        claims: vec![claim(Some("theirs"))],
        stateful_set_id: Some("mine".to_owned()),
        ..claimless()
    };

    let invalid = try_validated(&cluster, references).unwrap_err();

    assert_eq!(invalid.reason(), reasons::IDENTITY_CONFLICT);
    let text = invalid.to_string();
    assert!(
        text.contains("claim data-orders-0 says \"theirs\""),
        "{text}"
    );
    assert!(text.contains("status says \"mine\""), "{text}");
}

#[test]
fn the_pinned_image_outlives_an_upgrade_of_the_operator() {
    let mut pinned = cluster();
    pinned.status.get_or_insert_default().image = Some("millrace:old".to_owned());
    let mut chosen = with_spec(json!({ "image": "millrace:chosen" }));
    chosen.status.get_or_insert_default().image = Some("millrace:old".to_owned());

    assert_eq!(validated(&pinned, claimless()).image.name, "millrace:old");
    assert_eq!(
        validated(&chosen, claimless()).image.name,
        "millrace:chosen"
    );
}

#[test]
fn a_field_that_an_older_schema_let_through_is_named() {
    for (spec, path) in [
        (json!({ "replicas": 10 }), "spec.replicas"),
        (json!({ "replicas": 0 }), "spec.replicas"),
        (
            json!({ "storage": { "size": "much" } }),
            "spec.storage.size",
        ),
        (
            json!({ "shutdown": { "drainTimeout": "1d" } }),
            "spec.shutdown.drainTimeout",
        ),
        (
            json!({ "resources": { "limits": { "memory": "1e9" } } }),
            "spec.resources.limits.memory",
        ),
    ] {
        let invalid = try_validated(&with_spec(spec), claimless()).unwrap_err();

        assert_eq!(invalid.reason(), reasons::INVALID);
        assert!(invalid.to_string().starts_with(path), "{invalid}");
    }
}

#[test]
fn a_name_that_an_object_of_the_cluster_cannot_have_is_refused() {
    for name in ["c".repeat(53), "7up".to_owned()] {
        let mut cluster = cluster();
        cluster.metadata.name = Some(name);

        let invalid = try_validated(&cluster, claimless()).unwrap_err();

        assert!(
            invalid.to_string().starts_with("metadata.name"),
            "{invalid}"
        );
    }
}

//! What a real API server says of the corpus, by server-side dry run with strict field validation:
//! what `kubectl apply --dry-run=server --validate=strict` sends. Needs MILLRACE_TEST_KUBECONFIG, a
//! cluster whose definitions may be replaced; without it, says so and passes.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{Request, Status};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Config, ResourceExt};
use millrace_crds::{DEFAULT_NAMESPACE, check, crds};
use serde_json::Value;

use crate::corpus::{Case, UNREADABLE, cases};
use crate::local::fields;

/// A definition is served within a second or two.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(30);
/// What the API server adds when it left rules unevaluated.
const RULES_SKIPPED: &str = "<nil>";
/// What it adds when the scale subresource cannot be read; the field itself is named, too.
const SCALE_UNREADABLE: &str = ".spec.replicas";

/// A client of the cluster for tests with the present definitions, or `None`, said loudly.
pub(crate) async fn client() -> Option<Client> {
    let Some(path) = std::env::var_os("MILLRACE_TEST_KUBECONFIG") else {
        eprintln!("SKIPPED: MILLRACE_TEST_KUBECONFIG is not set; no API server was asked");
        return None;
    };
    let kubeconfig = Kubeconfig::read_from(path).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let client = Client::try_from(config.expect("a configuration")).expect("a client");
    install(&client).await;
    Some(client)
}

async fn install(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in crds() {
        let name = crd.name_any();
        let params = PatchParams::apply("millrace-tests").force();
        let applied = api.patch(&name, &params, &Patch::Apply(&crd)).await;
        applied.unwrap_or_else(|error| panic!("{name} is refused: {error}"));
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        let waited = tokio::time::timeout(ESTABLISHED_WITHIN, established).await;
        waited.expect("established in time").expect("a watch");
    }
}

#[tokio::test]
async fn the_api_server_gives_the_same_verdict() {
    let Some(client) = client().await else { return };
    let mut wrong = Vec::new();
    let cases = cases();
    for case in &cases {
        wrong.extend(disagreement(&client, case).await);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    eprintln!("{} documents, one verdict", cases.len());
}

/// How server and `check` differ about a document.
pub(crate) async fn disagreement(client: &Client, case: &Case) -> Option<String> {
    let report = check(&case.yaml, DEFAULT_NAMESPACE);
    match dry_run(client, &case.yaml).await {
        Ok(object) if report.is_accepted() => {
            let (theirs, ours) = (&object["spec"], &report.objects[0]["spec"]);
            (theirs != ours).then(|| {
                format!(
                    "{}: other defaults\n  server {theirs}\n  check  {ours}",
                    case.name
                )
            })
        }
        Ok(_) => Some(format!("{}: only the server takes it\n{report}", case.name)),
        Err(refused) => {
            let (theirs, ours) = (wrong_fields(&refused), fields(&report));
            (theirs != ours).then(|| {
                format!(
                    "{}: other fields\n  server {theirs:?}\n  check  {ours:?}\n  {}",
                    case.name, refused.message
                )
            })
        }
    }
}

/// Creates it for show. The YAML goes as it is: the server's reading of it is compared, too.
async fn dry_run(client: &Client, yaml: &str) -> Result<Value, Box<Status>> {
    let kinds = ["BrokerCluster", "Queue", "Topic"];
    let as_yaml = |kind: &str| yaml.contains(&format!("kind: {kind}\n"));
    let as_json = |kind: &str| yaml.contains(&format!("\"kind\":\"{kind}\""));
    let is = |kind: &&str| as_yaml(kind) || as_json(kind);
    let kind = kinds.into_iter().find(is).expect("a kind of ours");
    let plural = format!("{}s", kind.to_lowercase());
    let path = format!("/apis/millrace.dev/v1alpha1/namespaces/{DEFAULT_NAMESPACE}/{plural}");
    let params = PostParams {
        dry_run: true,
        field_manager: None,
    };
    let created = Request::new(path).create(&params, yaml.as_bytes().to_vec());
    let mut request = created.expect("a request");
    let strict = format!("{}&fieldValidation=Strict", request.uri());
    *request.uri_mut() = strict.parse().expect("a URI");
    let type_ = "application/yaml".parse().expect("a header");
    request.headers_mut().insert("content-type", type_);
    match client.request::<Value>(request).await {
        Ok(object) => Ok(object),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("the API server cannot be asked: {error}"),
    }
}

/// The fields that the API server finds wrong: in the causes of a refusal, or in the text when it
/// could not read the resource.
fn wrong_fields(refused: &Status) -> BTreeSet<String> {
    let causes = refused.details.iter().flat_map(|details| &details.causes);
    let named: BTreeSet<String> = causes
        .map(|cause| cause.field.clone())
        .filter(|field| ![RULES_SKIPPED, SCALE_UNREADABLE].contains(&field.as_str()))
        .collect();
    if !named.is_empty() {
        return named;
    }
    let message = &refused.message;
    if let Some(field) = between(message, "Go struct field ObjectMeta.", " of type") {
        return [format!("metadata.{field}")].into();
    }
    let mut unknown = message.split("unknown field \"").skip(1).peekable();
    if unknown.peek().is_some() {
        let field = |rest: &str| rest.split('"').next().unwrap_or_default().to_owned();
        return unknown.map(field).collect();
    }
    [UNREADABLE.to_owned()].into()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?
        .1
        .split_once(after)
        .map(|(found, _)| found)
}

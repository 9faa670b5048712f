//! The controllers of a scope: which object is reconciled when, and what happens when it fails.

use std::convert::Infallible;
use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use futures::{Stream, StreamExt};
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Config, applier};
use kube::{Client, Resource, ResourceExt};
use millrace_crds::{Queue, Topic};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::bells::{Listeners, Rung, bells};
use crate::brokers::Wire;
use crate::context::{Context, Guarded, Reports};
use crate::events::Events;
use crate::metrics::Metrics;
use crate::watches::{Watches, stores};
use crate::{cluster, resource, topology};

/// Reconciliations of one controller at a time: the API server is not ours alone.
const CONCURRENCY: u16 = 16;
/// Rings this close together are one: applying a manifest makes several.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// What all scopes share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) default_image: String,
}

/// Runs the controllers of a scope until `stop`; then what is being reconciled is finished.
pub(crate) async fn run(
    shared: Shared,
    namespace: Option<String>,
    started: impl FnOnce(),
    stop: CancellationToken,
) {
    let (stores, writers) = stores();
    let (bells, listeners) = bells();
    let reports = Arc::new(Reports::default());
    let watches = Watches {
        client: shared.client.clone(),
        namespace,
        stores: stores.clone(),
        bells: bells.clone(),
        reports: Arc::clone(&reports),
        metrics: Arc::clone(&shared.metrics),
    };
    let ctx = Arc::new(Context {
        client: shared.client,
        events: shared.events,
        metrics: shared.metrics,
        default_image: shared.default_image,
        brokers: Arc::new(Wire {
            control_port: crate::names::CONTROL_PORT,
        }),
        control_port: crate::names::CONTROL_PORT,
        stores,
        bells,
        reports,
        absences: Default::default(),
        backoffs: Default::default(),
    });
    let controllers = async {
        let stores = &ctx.stores;
        let ready = futures::future::join3(
            stores.clusters.wait_until_ready(),
            stores.queues.wait_until_ready(),
            stores.topics.wait_until_ready(),
        );
        // Nothing is decided before everything has been seen once.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ready => {}
        }
        started();
        futures::future::join_all(start(&ctx, listeners, &stop)).await;
    };
    tokio::select! {
        biased;
        () = controllers => {}
        () = watches.run(writers) => {}
    }
}

fn start(
    ctx: &Arc<Context>,
    listeners: Listeners,
    stop: &CancellationToken,
) -> Vec<BoxFuture<'static, ()>> {
    let stores = &ctx.stores;
    vec![
        Controller {
            name: "cluster",
            store: stores.clusters.clone(),
            rung: listeners.clusters,
        }
        .run(ctx, stop, cluster::reconcile),
        Controller {
            name: "topology",
            store: stores.clusters.clone(),
            rung: listeners.topologies,
        }
        .run(ctx, stop, topology::reconcile),
        Controller {
            name: "queue",
            store: stores.queues.clone(),
            rung: listeners.queues,
        }
        .run(ctx, stop, resource::reconcile::<Queue>),
        Controller {
            name: "topic",
            store: stores.topics.clone(),
            rung: listeners.topics,
        }
        .run(ctx, stop, resource::reconcile::<Topic>),
    ]
}

/// One controller.
struct Controller<K: Resource<DynamicType = ()> + 'static> {
    name: &'static str,
    store: Store<Guarded<K>>,
    rung: Rung<K>,
}

impl<K> Controller<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    fn run<F, E>(
        self,
        ctx: &Arc<Context>,
        stop: &CancellationToken,
        reconcile: impl Fn(Arc<Guarded<K>>, Arc<Context>) -> F + Send + 'static,
    ) -> BoxFuture<'static, ()>
    where
        F: Future<Output = Result<Action, E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        let name = self.name;
        let queue = UnboundedReceiverStream::new(self.rung)
            .map(Ok::<ObjectRef<Guarded<K>>, Infallible>)
            .take_until(stop.clone().cancelled_owned());
        let timed = move |object: Arc<Guarded<K>>, ctx: Arc<Context>| {
            let work = reconcile(Arc::clone(&object), Arc::clone(&ctx));
            async move {
                let start = Instant::now();
                let result = work.await;
                let word = if result.is_ok() { "ok" } else { "error" };
                ctx.metrics.reconciled(name, word, start.elapsed());
                if result.is_ok() && name != "topology" {
                    ctx.backoffs.reset(&(name, full_name(&*object)));
                }
                result
            }
            .boxed()
        };
        let retry = move |object: Arc<Guarded<K>>, error: &E, ctx: Arc<Context>| {
            let object = full_name(&*object);
            let error = crate::report(error);
            let wait = ctx.backoffs.fail((name, object.clone()));
            tracing::warn!(
                controller = name,
                object,
                error,
                ?wait,
                "reconciliation failed"
            );
            Action::requeue(wait)
        };
        let config = Config::default()
            .concurrency(CONCURRENCY)
            .debounce(DEBOUNCE);
        let results = applier(timed, retry, Arc::clone(ctx), self.store, queue, config);
        drained(name, Arc::clone(ctx), results).boxed()
    }
}

/// Results were dealt with by then: failures are logged where they are retried. Of an object that
/// is gone only its failures are left to forget.
async fn drained<T, E: Error + 'static>(
    name: &'static str,
    ctx: Arc<Context>,
    results: impl Stream<Item = Result<T, controller::Error<E, Infallible>>>,
) {
    results
        .for_each(|result| {
            if let Err(controller::Error::ObjectNotFound(gone)) = result {
                let namespace = gone.namespace.as_deref().unwrap_or_default();
                let object = format!("{namespace}/{}", gone.name);
                ctx.backoffs.reset(&(name, object));
            }
            std::future::ready(())
        })
        .await;
}

fn full_name<K: Resource>(object: &K) -> String {
    format!(
        "{}/{}",
        object.namespace().unwrap_or_default(),
        object.name_any()
    )
}

#[cfg(test)]
mod tests {
    use kube::api::DynamicObject;
    use millrace_crds::BrokerCluster;

    use super::*;
    use crate::fakes::{Api, context};

    #[tokio::test]
    async fn an_object_made_again_does_not_wait_for_what_the_one_before_it_failed_at() {
        let (context, _listeners) = context(&Api::default(), 1, &[]);
        let context = Arc::new(context);
        let key = ("queue", "shop/orders".to_owned());
        for _ in 0..10 {
            context.backoffs.fail(key.clone());
        }
        let gone: ObjectRef<BrokerCluster> = ObjectRef::new("orders").within("shop");
        let gone: ObjectRef<DynamicObject> = gone.erase();
        let result: Result<(), controller::Error<std::io::Error, Infallible>> =
            Err(controller::Error::ObjectNotFound(Box::new(gone)));

        drained(
            "queue",
            Arc::clone(&context),
            futures::stream::iter([result]),
        )
        .await;

        assert!(context.backoffs.fail(key) < Duration::from_secs(1));
    }
}

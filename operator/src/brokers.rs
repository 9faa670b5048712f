//! What the operator asks brokers one by one, and what it tells them. The pods that are asked, and
//! in which order, is decided here; what follows from the answers is not.

use std::net::IpAddr;
use std::time::Duration;

mod wire;

use futures::future::{BoxFuture, join_all};
use millrace_crds::FoundingStatus;

use crate::cluster::build::Token;
use crate::cluster::desired::ClusterId;
use crate::cluster::facts::{Act, Answer, Pod, Question, Said, View};

pub(crate) use wire::Wire;

/// A broker that does not accept a connection within this long is not there.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Whatever is asked here is answered from memory, or by one round among the brokers.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A broker that did not do what it was asked, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unanswered(pub(crate) String);

/// How brokers are reached. Each call is one question to one of them.
#[tonic::async_trait]
pub(crate) trait Brokers: Send + Sync {
    /// Who a broker is.
    async fn identify(&self, at: IpAddr, token: &Token) -> Result<Said, Unanswered>;

    /// Tells a broker who founds the cluster; telling the same again changes nothing.
    async fn bootstrap(
        &self,
        at: IpAddr,
        token: &Token,
        cluster: &ClusterId,
        founding: &FoundingStatus,
    ) -> Result<(), Unanswered>;

    /// What a broker knows of all of them.
    async fn view(&self, at: IpAddr, token: &Token) -> Result<View, Unanswered>;

    /// Asks about a node.
    async fn ask(&self, at: IpAddr, token: &Token, what: &Question) -> Result<Answer, Unanswered>;

    /// Does something to a node.
    async fn act(&self, at: IpAddr, token: &Token, act: Act, node: &str) -> Result<(), Unanswered>;
}

/// What each broker that has an address says of itself, by pod.
pub(crate) async fn identities(
    brokers: &dyn Brokers,
    token: &Token,
    pods: &[Pod],
) -> Vec<(String, Said)> {
    let staying = pods.iter().filter(|pod| !pod.leaving);
    let (names, asked): (Vec<String>, Vec<_>) = staying
        .filter_map(|pod| Some((pod.name.clone(), brokers.identify(pod.address?, token))))
        .unzip();
    let said = join_all(asked).await.into_iter();
    let said = said.map(|said| said.unwrap_or_else(|error| Said::Nothing(error.to_string())));
    names.into_iter().zip(said).collect()
}

/// Addresses at which something about the cluster can be asked: of those that are not on their way
/// out, the ready ones first.
pub(crate) fn addresses(pods: &[Pod]) -> Vec<IpAddr> {
    let staying = pods.iter().filter(|pod| !pod.leaving);
    let (ready, others): (Vec<&Pod>, Vec<&Pod>) = staying.partition(|pod| pod.ready);
    let all = ready.into_iter().chain(others);
    all.filter_map(|pod| pod.address).collect()
}

/// The first answer that one of these brokers gives.
///
/// # Errors
/// The last one's refusal, when none does.
pub(crate) async fn first<'a, T>(
    addresses: &[IpAddr],
    ask: impl Fn(IpAddr) -> BoxFuture<'a, Result<T, Unanswered>> + Send,
) -> Result<T, Unanswered> {
    let mut last = Unanswered("no broker has an address".to_owned());
    for address in addresses {
        match ask(*address).await {
            Ok(answer) => return Ok(answer),
            Err(unanswered) => last = unanswered,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::future::ready;

    use super::*;

    fn pod(name: &str, last: u8, ready: bool) -> Pod {
        Pod {
            name: name.to_owned(),
            uid: String::new(),
            template_hash: None,
            image: String::new(),
            leaving: false,
            ready,
            address: Some(IpAddr::from([10, 0, 0, last])),
            trouble: None,
        }
    }

    #[tokio::test]
    async fn brokers_that_serve_are_asked_first_and_the_next_one_when_one_is_silent() {
        let leaving = Pod {
            leaving: true,
            ..pod("c", 3, true)
        };
        let pods = [pod("a", 1, false), pod("b", 2, true), leaving];
        let addresses = addresses(&pods);

        let silent = addresses[0];
        let answered = first(&addresses, |at| {
            let answer = (at != silent).then_some(at);
            ready(answer.ok_or_else(|| Unanswered("busy".to_owned()))).boxed()
        });

        assert_eq!(answered.await, Ok(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(addresses[0], IpAddr::from([10, 0, 0, 2]));
    }
}

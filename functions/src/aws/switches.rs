//! The parameters of Systems Manager that an operator turns while the stack runs. They are
//! looked at when a record comes, again after some seconds, and never for long: a function
//! that gets no answer goes on with the last one, or as if nothing were switched off.

use std::time::Duration;

use tokio::sync::Mutex;

use super::{Cloud, failed};
use crate::clock::SystemClock;
use crate::ports::{Clock, PortError};
use crate::switches::Switches;

/// How long an answer holds. Shorter asks the service more often than its 40 requests a second
/// for an account allow, with all copies of all functions at work.
const LOOK_AGAIN_MS: u64 = 10_000;
/// Longest wait for an answer: the edge waits 800 ms for a decision, and there are two more
/// queues on the way.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(250);

/// The last answer, and when it was asked for.
#[derive(Debug, Default)]
struct Known {
    switches: Switches,
    looked_at_ms: Option<u64>,
}

/// What is switched, as far as this function knows.
#[derive(Debug)]
pub struct Switchboard {
    cloud: Cloud,
    clock: SystemClock,
    known: Mutex<Known>,
}

impl Switchboard {
    /// Asks nothing yet.
    pub fn new(cloud: Cloud, clock: SystemClock) -> Self {
        Self { cloud, clock, known: Mutex::default() }
    }

    /// What holds now.
    pub async fn now(&self) -> Switches {
        self.at(self.clock.now().millis()).await
    }

    async fn at(&self, now_ms: u64) -> Switches {
        let mut known = self.known.lock().await;
        if known.looked_at_ms.is_some_and(|before| now_ms.saturating_sub(before) < LOOK_AGAIN_MS) {
            return known.switches.clone();
        }
        known.looked_at_ms = Some(now_ms);
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, self.cloud.switches()).await;
        match answer.unwrap_or_else(|_| Err(PortError::Transient("the parameters: too late".to_owned()))) {
            Ok(switches) => {
                if switches != known.switches {
                    tracing::warn!(%switches, "switched");
                }
                known.switches = switches;
            }
            Err(error) => tracing::warn!(%error, "the switches cannot be read; those before hold"),
        }
        known.switches.clone()
    }
}

impl Cloud {
    /// What the parameters say. A parameter that is not there says nothing.
    async fn switches(&self) -> Result<Switches, PortError> {
        let (policy, switches) = (&self.names.policy_parameter, &self.names.switches_parameter);
        let wanted: Vec<String> =
            [policy, switches].into_iter().filter(|name| !name.is_empty()).cloned().collect();
        if wanted.is_empty() {
            return Ok(Switches::default());
        }
        let request = self.parameters().get_parameters().set_names(Some(wanted));
        let answer = request.send().await.map_err(|error| failed("the parameters", error))?;
        let said = |name: &str| {
            let named = answer.parameters().iter().find(|parameter| parameter.name() == Some(name));
            named.and_then(|parameter| parameter.value())
        };
        Switches::parse(said(policy), said(switches)).map_err(|error| PortError::Permanent(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aws_sdk_ssm::config::{Credentials, Region, SharedCredentialsProvider};
    use axum::http::{HeaderMap, StatusCode};
    use axum::{Json, Router};
    use serde_json::{Value, json};

    use super::super::{Clients, environment};
    use super::*;
    use crate::aws::names::Names;

    /// What Systems Manager says at a moment, and how often it was asked.
    #[derive(Default)]
    struct Service {
        says: Option<Value>,
        hangs: bool,
        asked: usize,
    }

    type Shared = Arc<Mutex<Service>>;

    async fn answer(service: Shared, headers: HeaderMap, request: Value) -> (StatusCode, Json<Value>) {
        assert_eq!(headers["x-amz-target"], "AmazonSSM.GetParameters");
        assert_eq!(request, json!({"Names": ["/wb/policy", "/wb/switches"]}));
        let mut service = service.lock().await;
        service.asked += 1;
        if service.hangs {
            std::future::pending::<()>().await;
        }
        match service.says.clone() {
            Some(parameters) => (StatusCode::OK, Json(json!({"Parameters": parameters}))),
            None => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"__type": "InternalServerError"}))),
        }
    }

    async fn switchboard(service: &Shared) -> Switchboard {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = Arc::clone(service);
        let router = Router::new().fallback(move |headers: HeaderMap, body: axum::body::Bytes| {
            answer(Arc::clone(&service), headers, serde_json::from_slice(&body).unwrap())
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        let keys = Credentials::new("id", "secret", None, None, "test");
        let shared = environment().await.into_builder();
        let shared = shared
            .endpoint_url(endpoint)
            .region(Region::from_static("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(keys))
            .build();
        let names = Names {
            policy_parameter: "/wb/policy".to_owned(),
            switches_parameter: "/wb/switches".to_owned(),
            ..Names::default()
        };
        let cloud = Cloud { names, clients: Arc::new(Clients::new(shared)) };
        Switchboard::new(cloud, SystemClock::start())
    }

    fn said(policy: &str, switches: &str) -> Value {
        json!([{"Name": "/wb/policy", "Value": policy}, {"Name": "/wb/switches", "Value": switches}])
    }

    #[tokio::test]
    async fn parameters_are_looked_at_every_ten_seconds_and_no_failure_turns_anything() {
        let service = Shared::default();
        let board = switchboard(&service).await;
        let off = Switches { policy: Some("a-1".to_owned()), no_decisions: false, no_webhooks: true };
        service.lock().await.says = Some(json!([]));
        assert_eq!(board.at(1).await, Switches::default(), "nobody has written them");
        service.lock().await.says = Some(said("a-1", "no-webhooks"));
        assert_eq!(board.at(10_000).await, Switches::default(), "ten seconds are not over");
        assert_eq!(board.at(10_001).await, off);
        service.lock().await.says = None;
        assert_eq!(board.at(21_000).await, off, "an error says nothing");
        service.lock().await.says = Some(said("a-1", "no-webhook"));
        assert_eq!(board.at(32_000).await, off, "nor does a word that is no switch");
        service.lock().await.says = Some(said("as-published", "none"));
        assert_eq!(board.at(43_000).await, Switches::default());
        assert_eq!(service.lock().await.asked, 5);
    }

    #[tokio::test]
    async fn a_service_that_hangs_holds_up_one_record_in_ten_seconds_for_a_moment() {
        let service = Shared::default();
        service.lock().await.hangs = true;
        let board = switchboard(&service).await;
        for _ in 0..3 {
            assert_eq!(board.at(7).await, Switches::default());
        }
    }

    #[tokio::test]
    async fn a_function_without_parameters_asks_nobody() {
        let service = Shared::default();
        let mut board = switchboard(&service).await;
        (board.cloud.names.policy_parameter, board.cloud.names.switches_parameter) = Default::default();
        assert_eq!(board.at(0).await, Switches::default());
        assert_eq!(service.lock().await.asked, 0);
    }
}

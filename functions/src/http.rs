//! Webhooks over HTTPS: resolves a name once, lets the guard judge every address, and
//! connects to exactly those. Redirects and proxies are off; at most 64 KiB of a response
//! are read. Log lines name the destination's id, never its URL or what it answered.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use handoff::audit::Hash;
use handoff::delivery::AttemptResult;
use handoff::id::DestinationId;
use handoff::webhook::CONTENT_TYPE;
use reqwest::{Client, redirect};
use serde::Deserialize;

use crate::config::{Current, Destination};
use crate::guard::{ADDRESSES_MAX, Forbidden, Target, check_addresses, check_url};
use crate::ports::{Clock, SendWebhook, WebhookAnswer, WebhookRequest};

/// Most bytes of a response that are read: an acknowledgement has twenty.
const RESPONSE_LEN_MAX: usize = 64 * 1024;

/// Most idle connections that are kept per destination.
const IDLE_MAX: usize = 4;

/// Sends webhooks over the network.
pub struct HttpSender<C> {
    config: Current,
    clock: C,
    /// One client per destination and connection timeout, rebuilt when its name or the
    /// addresses change: a client looks up for itself what it was not pinned to.
    clients: Mutex<BTreeMap<(DestinationId, Duration), Pinned>>,
}

#[derive(Clone)]
struct Pinned {
    host: String,
    addresses: Vec<SocketAddr>,
    client: Client,
}

#[derive(Deserialize)]
struct PopAnswer {
    #[serde(default)]
    popped: bool,
}

enum Failed {
    Guard(Forbidden),
    Network,
}

impl<C: Clock + Sync> HttpSender<C> {
    /// A sender for the destinations that `config` holds at the time. The process must have installed a TLS
    /// provider; without one, every try to an HTTPS destination fails.
    pub const fn new(config: Current, clock: C) -> Self {
        Self { config, clock, clients: Mutex::new(BTreeMap::new()) }
    }

    async fn try_once(&self, request: &WebhookRequest) -> Result<WebhookAnswer, Failed> {
        let config = self.config.get();
        let destination = config.destination(&request.destination).ok_or(Failed::Guard(Forbidden::BadUrl))?;
        let target = check_url(&destination.url).map_err(Failed::Guard)?;
        let addresses = resolve(&target, request.connect_timeout).await?;
        let plain: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
        check_addresses(&target, &plain, &destination.allow_private).map_err(Failed::Guard)?;
        let client = self.client(&target, request, addresses)?;
        let now = self.clock.wall().unix_secs();
        let mut response = client
            .post(target.url)
            .header("content-type", CONTENT_TYPE)
            .header("webhook-id", &request.id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signatures(destination, &request.id, now, &request.body))
            .body(request.body.clone())
            .send()
            .await
            .map_err(|_| Failed::Network)?;
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| Failed::Network)? {
            let room = RESPONSE_LEN_MAX - body.len();
            body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            if body.len() >= RESPONSE_LEN_MAX {
                break;
            }
        }
        let popped = serde_json::from_slice::<PopAnswer>(&body).is_ok_and(|answer| answer.popped);
        Ok(WebhookAnswer {
            result: AttemptResult::Answered { status, retry_after },
            popped,
            response_sha256: Some(Hash::of(&[&body]).to_string()),
        })
    }

    fn client(
        &self,
        target: &Target,
        request: &WebhookRequest,
        addresses: Vec<SocketAddr>,
    ) -> Result<Client, Failed> {
        let key = (request.destination.clone(), request.connect_timeout);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pinned) =
            clients.get(&key).filter(|pinned| pinned.host == target.host && pinned.addresses == addresses)
        {
            return Ok(pinned.client.clone());
        }
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(request.connect_timeout)
            .pool_max_idle_per_host(IDLE_MAX)
            .resolve_to_addrs(&target.host, &addresses)
            .build()
            .map_err(|error| {
                tracing::error!(destination = %request.destination, %error, "no HTTP client");
                Failed::Network
            })?;
        clients.insert(key, Pinned { host: target.host.clone(), addresses, client: client.clone() });
        Ok(client)
    }
}

impl<C: Clock + Sync> SendWebhook for HttpSender<C> {
    async fn send(&self, request: WebhookRequest) -> WebhookAnswer {
        let attempt = tokio::time::timeout(request.timeout, self.try_once(&request)).await;
        let result = match attempt {
            Ok(Ok(answer)) => return answer,
            Ok(Err(Failed::Guard(Forbidden::NoAddress))) | Ok(Err(Failed::Network)) | Err(_) => {
                AttemptResult::NoAnswer
            }
            Ok(Err(Failed::Guard(why))) => {
                tracing::error!(destination = %request.destination, %why, "webhook refused by the guard");
                AttemptResult::Forbidden
            }
        };
        WebhookAnswer { result, popped: false, response_sha256: None }
    }
}

/// Both keys sign while one replaces the other.
fn signatures(destination: &Destination, id: &str, unix_secs: i64, body: &[u8]) -> String {
    let mut header = destination.secret.sign(id, unix_secs, body);
    if let Some(old) = &destination.old_secret {
        header.push(' ');
        header.push_str(&old.sign(id, unix_secs, body));
    }
    header
}

/// The addresses of the target, sorted, looked up once.
async fn resolve(target: &Target, timeout: Duration) -> Result<Vec<SocketAddr>, Failed> {
    if let Ok(address) = target.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, target.port)]);
    }
    let lookup = tokio::net::lookup_host((target.host.as_str(), target.port));
    let found = tokio::time::timeout(timeout, lookup).await;
    let Ok(Ok(found)) = found else { return Err(Failed::Network) };
    // One more than is allowed, so that the guard sees that there are too many.
    let mut addresses: Vec<SocketAddr> = found.take(ADDRESSES_MAX + 1).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::clock::SystemClock;
    use crate::testing::{config, destination};

    /// A receiver that reads the request and then does as it is told, once.
    async fn receiver(answer: &'static [u8], then_hang: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 4_096];
                    let _read = stream.read(&mut request).await;
                    let _written = stream.write_all(answer).await;
                    if then_hang {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        address
    }

    async fn send(url: &str, allow: &[&str]) -> WebhookAnswer {
        // HTTP clients need a TLS provider even for plain HTTP; a second installation is refused.
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let mut crm = destination("crm");
        crm.url = url.to_owned();
        crm.allow_private = allow.iter().map(|net| net.parse().unwrap()).collect();
        let sender = HttpSender::new(Current::new(config(vec![crm.clone()])), SystemClock::start());
        let request = WebhookRequest {
            destination: crm.id,
            id: "msg_1".to_owned(),
            body: b"{}".to_vec(),
            connect_timeout: Duration::from_millis(500),
            timeout: Duration::from_millis(700),
        };
        sender.send(request).await
    }

    const LOOPBACK: &[&str] = &["127.0.0.1/32"];

    #[tokio::test]
    async fn an_answer_is_kept_as_status_and_digest() {
        let address =
            receiver(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"popped\":true}", false).await;
        let answer = send(&format!("http://{address}/"), LOOPBACK).await;
        assert_eq!(answer.result, AttemptResult::Answered { status: 200, retry_after: None });
        assert!(answer.popped);
        assert_eq!(answer.response_sha256, Some(Hash::of(&[br#"{"popped":true}"#]).to_string()));
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let trap = receiver(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false).await;
        let text = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{trap}/\r\ncontent-length: 0\r\n\r\n"
        );
        let address = receiver(text.leak().as_bytes(), false).await;
        let answer = send(&format!("http://{address}/"), LOOPBACK).await;
        assert_eq!(answer.result, AttemptResult::Answered { status: 307, retry_after: None });
    }

    #[tokio::test]
    async fn a_receiver_that_is_busy_says_for_how_long() {
        let address =
            receiver(b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n", false).await;
        let answer = send(&format!("http://{address}/"), LOOPBACK).await;
        let retry_after = Some(Duration::from_secs(7));
        assert_eq!(answer.result, AttemptResult::Answered { status: 503, retry_after });
    }

    #[tokio::test]
    async fn a_huge_or_endless_answer_is_cut_off() {
        let mut text = b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n".to_vec();
        text.resize(text.len() + 200_000, b'x');
        let address = receiver(text.leak(), true).await;
        let answer = send(&format!("http://{address}/"), LOOPBACK).await;
        assert_eq!(answer.result, AttemptResult::Answered { status: 200, retry_after: None });
        let slow = receiver(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nx", true).await;
        let answer = send(&format!("http://{slow}/"), LOOPBACK).await;
        assert_eq!(answer.result, AttemptResult::NoAnswer, "within its time, not later");
    }

    #[tokio::test]
    async fn nothing_is_sent_where_the_guard_says_no() {
        let address = receiver(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false).await;
        for (url, allow) in [
            (format!("http://{address}/"), &[][..]),
            (format!("https://{address}/"), &[][..]),
            (format!("http://localhost:{}/", address.port()), &["10.0.0.0/8"][..]),
        ] {
            assert_eq!(send(&url, allow).await.result, AttemptResult::Forbidden, "{url}");
        }
        let nobody = send("http://127.0.0.1:9/", LOOPBACK).await;
        assert_eq!(nobody.result, AttemptResult::NoAnswer);
    }
}

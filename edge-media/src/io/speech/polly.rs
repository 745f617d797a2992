//! Speech by Amazon Polly: the text as it is, one request, 16-bit samples at 16 kHz back. It
//! keeps nothing and repeats little: who waits for a telephone has another provider behind it.
//! The client's own log is shut off around each request, because it tells requests whole.

use std::time::Duration;

use aws_sdk_polly::Client;
use aws_sdk_polly::config::Builder;
use aws_sdk_polly::config::retry::RetryConfig;
use aws_sdk_polly::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_polly::primitives::ByteStream;
use aws_sdk_polly::types::{Engine, OutputFormat, VoiceId};
use handoff::pii::Pii;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::{PollyVoices, SAMPLES_MAX, Unspoken};

/// The higher of the two rates at which Polly gives bare samples; our own filter makes 8 kHz
/// of it, as of any other.
const RATE: u32 = 16_000;
/// Longest answer that is read: two bytes a sample, two samples for each that is played.
const ANSWER_LEN_MAX: usize = SAMPLES_MAX * 4;
/// One more for a connection that was closed meanwhile; an outage is the next provider's.
const ATTEMPTS_MAX: u32 = 2;
/// At most this long between the two, of the second and a half that there is.
const BACKOFF: Duration = Duration::from_millis(50);

/// A client, and who speaks which language.
#[derive(Debug)]
pub(super) struct Polly {
    client: Client,
    voices: PollyVoices,
}

impl Polly {
    /// With region, endpoint and credentials of the environment. No request is made yet.
    pub(super) async fn connect(voices: &PollyVoices) -> Self {
        Self::with(Builder::from(&functions::aws::environment().await), voices)
    }

    fn with(config: Builder, voices: &PollyVoices) -> Self {
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX).with_initial_backoff(BACKOFF);
        let client = Client::from_conf(config.retry_config(retries).build());
        Self { client, voices: voices.clone() }
    }

    /// `text` as samples, with their rate.
    pub(super) async fn say(&self, text: &Pii<String>, lang: &str) -> Result<(u32, Vec<f64>), Unspoken> {
        let voice = self.voices.voice(lang).ok_or(Unspoken::NoVoice)?;
        self.request(text, voice).with_subscriber(NoSubscriber::new()).await
    }

    async fn request(&self, text: &Pii<String>, voice: &str) -> Result<(u32, Vec<f64>), Unspoken> {
        let request = self
            .client
            .synthesize_speech()
            .engine(Engine::from(self.voices.engine))
            .output_format(OutputFormat::Pcm)
            .sample_rate(RATE.to_string())
            .text(text.expose())
            .voice_id(VoiceId::from(voice));
        let answer = request.send().await.map_err(|error| failed(&error))?;
        Ok((RATE, samples(answer.audio_stream).await?))
    }
}

/// What the service calls it, or how far the request came; its message may quote the text.
fn failed<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Unspoken {
    let why = match error {
        SdkError::ServiceError(answer) => answer.err().code().unwrap_or("an error without a name"),
        SdkError::ConstructionFailure(_) => "no request could be made",
        SdkError::TimeoutError(_) => return Unspoken::Late,
        SdkError::DispatchFailure(_) => "no connection",
        SdkError::ResponseError(_) => "half an answer",
        _ => "no answer",
    };
    Unspoken::Failed(why.to_owned())
}

async fn samples(mut stream: ByteStream) -> Result<Vec<f64>, Unspoken> {
    let mut bytes = Vec::new();
    let broken = |_| Unspoken::Failed("half an answer".to_owned());
    while let Some(piece) = stream.try_next().await.map_err(broken)? {
        if bytes.len() + piece.len() > ANSWER_LEN_MAX {
            return Err(Unspoken::NotSpeech);
        }
        bytes.extend_from_slice(&piece);
    }
    let pairs = bytes.chunks_exact(2).filter_map(|pair| pair.first_chunk());
    Ok(pairs.map(|pair| f64::from(i16::from_le_bytes(*pair))).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use aws_sdk_polly::config::{Credentials, Region};
    use axum::Router;
    use axum::extract::Json;
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};
    use axum::routing::post;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::super::{Provider, Request, Speech, in_time, serve, synthesise};
    use super::*;
    use crate::media::prompt::{Audio, SpeechKey};
    use crate::media::tone;

    const TEXT: &str = "Ana Canary asks about a refill.";

    /// What the endpoint of a test does with a request.
    #[derive(Clone, Copy)]
    enum Manner {
        /// Answers with a tone of so many Hz.
        Tone(u32),
        /// Refuses.
        Refuse,
        /// Never answers.
        Hang,
        /// Begins to answer, and stops.
        Stall,
        /// Sends more than anybody would listen to.
        Flood,
    }

    type Requests = Arc<Mutex<Vec<Value>>>;

    /// A tone at 16 kHz: that of half its pitch at 8 kHz.
    fn pcm(hz: u32, count: usize) -> Vec<u8> {
        tone::sine(hz / 2, 8_000, count).iter().flat_map(|sample| sample.to_le_bytes()).collect()
    }

    async fn answer(manner: Manner) -> Response {
        let audio = [("content-type", "audio/pcm")];
        match manner {
            Manner::Tone(hz) => (audio, pcm(hz, 16_000)).into_response(),
            Manner::Refuse => {
                let body = json!({"message": format!("no: {TEXT}")});
                let named = [("x-amzn-errortype", "TextLengthExceededException")];
                (StatusCode::BAD_REQUEST, named, Json(body)).into_response()
            }
            Manner::Hang => std::future::pending().await,
            Manner::Stall => {
                let first = futures_util::stream::iter([Ok::<_, std::io::Error>(pcm(1_000, 800))]);
                let rest = futures_util::stream::pending();
                let body = futures_util::StreamExt::chain(first, rest);
                (audio, axum::body::Body::from_stream(body)).into_response()
            }
            Manner::Flood => (audio, pcm(1_000, SAMPLES_MAX * 3)).into_response(),
        }
    }

    /// Polly's door with `manner` behind it: its URL, and what was asked there.
    async fn door(manner: Manner) -> (String, Requests) {
        let requests = Requests::default();
        let seen = Arc::clone(&requests);
        let speech = move |Json(request): Json<Value>| {
            seen.lock().unwrap().push(request);
            answer(manner)
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/speech", post(speech));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, requests)
    }

    async fn client(url: &str) -> Polly {
        let config = Builder::new()
            .behavior_version_latest()
            .http_client(functions::aws::environment().await.http_client().unwrap())
            .region(Region::from_static("eu-central-1"))
            .endpoint_url(url)
            .credentials_provider(Credentials::new("id", "secret", None, None, "test"));
        let voices = BTreeMap::from([("en".to_owned(), "Brian".to_owned())]);
        Polly::with(config, &PollyVoices { engine: "neural", voices })
    }

    async fn endpoint(manner: Manner) -> (Polly, Requests) {
        let (url, requests) = door(manner).await;
        (client(&url).await, requests)
    }

    async fn providers(manners: &[Manner]) -> Vec<Provider> {
        let mut providers = Vec::new();
        for manner in manners {
            providers.push(Provider::Polly(Box::new(endpoint(*manner).await.0)));
        }
        providers
    }

    fn text() -> Pii<String> {
        Pii::new(TEXT.to_owned())
    }

    /// Whether `samples` at 8 kHz are a tone of so many Hz for a second.
    fn is_tone(samples: &[i16], hz: u32) -> bool {
        let inner = samples.get(400..7_200).unwrap_or_default();
        tone::level(inner, hz) > -10.0 && samples.len().abs_diff(8_000) < 80
    }

    #[tokio::test]
    async fn a_tone_at_16_khz_is_the_same_tone_in_mu_law_at_8_khz() {
        let (polly, requests) = endpoint(Manner::Tone(1_000)).await;
        let audio = synthesise(&[Provider::Polly(Box::new(polly))], &text(), "en-US").await.unwrap();
        assert!(is_tone(&audio.samples(), 1_000), "{} bytes", audio.bytes().len());
        let asked = json!({
            "Engine": "neural", "OutputFormat": "pcm", "SampleRate": "16000", "Text": TEXT, "VoiceId": "Brian",
        });
        assert_eq!(*requests.lock().unwrap(), [asked]);
    }

    #[tokio::test]
    async fn whoever_refuses_stalls_or_hangs_is_followed_by_the_next_provider() {
        for first in [Manner::Refuse, Manner::Hang, Manner::Stall, Manner::Flood] {
            let audio =
                synthesise(&providers(&[first, Manner::Tone(650)]).await, &text(), "en").await.unwrap();
            assert!(is_tone(&audio.samples(), 650));
        }
    }

    #[tokio::test]
    async fn each_failure_has_its_name_and_none_quotes_the_text() {
        let failures = [
            (Manner::Refuse, "en", Unspoken::Failed("TextLengthExceededException".to_owned())),
            (Manner::Hang, "en", Unspoken::Late),
            (Manner::Flood, "en", Unspoken::NotSpeech),
            (Manner::Tone(650), "es", Unspoken::NoVoice),
        ];
        for (manner, lang, why) in failures {
            let (polly, requests) = endpoint(manner).await;
            assert_eq!(in_time(polly.say(&text(), lang)).await.map(|_| ()), Err(why));
            assert_eq!(requests.lock().unwrap().len(), usize::from(lang == "en"), "{lang}");
        }
    }

    #[tokio::test]
    async fn nobody_listens_leaves_the_next_provider_its_time() {
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            format!("http://{}", listener.local_addr().unwrap())
        };
        let polly = client(&closed).await;
        assert_eq!(
            in_time(polly.say(&text(), "en")).await.map(|_| ()),
            Err(Unspoken::Failed("no connection".to_owned()))
        );
    }

    /// A thread's loop with Polly's door behind it, what it asked, and what it made.
    async fn served(manner: Manner) -> (mpsc::Sender<Request>, Requests, mpsc::UnboundedReceiver<SpeechKey>) {
        let (polly, requests) = endpoint(manner).await;
        let (ask, queue) = mpsc::channel(64);
        let (made, ready) = mpsc::unbounded_channel();
        let tell = Arc::new(move |key, _| made.send(key).unwrap());
        tokio::spawn(serve(queue, vec![Provider::Polly(Box::new(polly))], tell));
        (ask, requests, ready)
    }

    #[tokio::test]
    async fn a_text_is_made_once() {
        let (ask, requests, mut ready) = served(Manner::Tone(650)).await;
        for said in [TEXT, TEXT, "another", TEXT, "the last"] {
            ask.send((Pii::new(said.to_owned()), "en".to_owned())).await.unwrap();
        }
        let mut made = Vec::new();
        while made.len() < 3 {
            made.push(ready.recv().await.unwrap());
        }
        made.sort();
        let mut keys = [TEXT, "another", "the last"].map(|said| SpeechKey::of(said, "en"));
        keys.sort();
        assert_eq!(made, keys);
        assert_eq!(requests.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn a_text_that_failed_is_tried_again_when_it_is_asked_for_again() {
        let (ask, requests, mut ready) = served(Manner::Refuse).await;
        let asked = || requests.lock().unwrap().len();
        for _ in 0..10_000 {
            if asked() < 3 {
                ask.send((text(), "en".to_owned())).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        assert!(asked() >= 3 && ready.try_recv().is_err());
    }

    /// Plays both sides: called with the variables that every AWS program knows, it speaks by
    /// what they say.
    #[tokio::test]
    async fn region_credentials_and_endpoint_come_from_the_environment() {
        const NAME: &str =
            "io::speech::polly::tests::region_credentials_and_endpoint_come_from_the_environment";
        if std::env::var_os("AWS_ENDPOINT_URL_POLLY").is_some() {
            let voices = BTreeMap::from([("en".to_owned(), "Brian".to_owned())]);
            let (made, mut ready) = mpsc::unbounded_channel();
            let tell = move |_, audio: Audio| made.send(audio.samples()).unwrap();
            let speech = Speech::start(Some(PollyVoices { engine: "standard", voices }), tell).unwrap();
            speech.prepare(text(), "en");
            assert!(is_tone(&ready.recv().await.unwrap(), 1_000));
            return;
        }
        let (endpoint, requests) = door(Manner::Tone(1_000)).await;
        let child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env("AWS_ENDPOINT_URL_POLLY", endpoint)
            .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .kill_on_drop(true)
            .output();
        let child = child.await.unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        assert_eq!(requests.lock().unwrap()[0]["Engine"], "standard");
    }

    /// Everything that is logged.
    struct Log(std::sync::mpsc::Sender<Vec<u8>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_log_has_the_text_at_any_level() {
        let (told, log) = std::sync::mpsc::channel();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || Log(told.clone()))
            .finish();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tracing::subscriber::with_default(subscriber, || {
            runtime.block_on(async {
                let providers = providers(&[Manner::Refuse, Manner::Hang, Manner::Tone(650)]).await;
                synthesise(&providers, &text(), "en").await.unwrap();
            });
        });
        let log = String::from_utf8_lossy(&log.try_iter().flatten().collect::<Vec<u8>>()).into_owned();
        assert!(log.contains("TextLengthExceededException") && log.contains("it took too long"), "{log}");
        assert!(!log.contains("Canary"), "{log}");
    }
}

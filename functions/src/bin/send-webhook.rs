//! The function `send-webhook`, once for each lane: signed messages out, every try recorded.

use functions::aws::lambda::{begin, serve, trace_of};
use functions::aws::settings::Library;
use functions::aws::switches::Switchboard;
use functions::breakers::Breakers;
use functions::clock::SystemClock;
use functions::http::HttpSender;
use functions::invocation::{answer, batch_in};
use functions::local::jitter;
use functions::outbox::WebhookJob;
use functions::ports::{WEBHOOKS_DURABLE, WEBHOOKS_LIVE};
use functions::send_webhook;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let durable = std::env::var("WB_TASK").is_ok_and(|task| task == "durable");
    let queue = if durable { WEBHOOKS_DURABLE } else { WEBHOOKS_LIVE };
    let function = begin("send-webhook", queue).await;
    let clock = SystemClock::start();
    let breakers = Breakers::default();
    let switchboard = Switchboard::new(function.cloud.clone(), clock);
    let library = Library::<HttpSender<SystemClock>>::new(function.cloud.clone(), clock);
    serve(async |event| {
        let batch = function.batch(batch_in(event)?, async |record| {
            let body = record.body.as_bytes();
            let job = WebhookJob::from_json(body)?;
            tracing::info!(call_id = %job.call, trace_id = trace_of(&job.call), kind = job.kind.as_str(), "webhook");
            breakers.hold_all(switchboard.now().await.no_webhooks);
            let settings = library.of(&job.edge, None).await?;
            let (store, http, config) = (&function.cloud, &settings.sender, &settings.config);
            send_webhook::handle(store, http, &clock, &breakers, config, body, jitter()).await
        });
        Ok(answer(&batch.await))
    })
    .await
}

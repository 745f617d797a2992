//! The function `build-payload`: decisions in, payloads and their announcements out.

use functions::aws::lambda::{begin, serve, trace_of};
use functions::aws::settings::Library;
use functions::build_payload;
use functions::clock::SystemClock;
use functions::invocation::{answer, batch_in};
use functions::outbox::DecisionJob;
use functions::ports::DECISIONS;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let function = begin("build-payload", DECISIONS).await;
    let clock = SystemClock::start();
    let library = Library::<()>::new(function.cloud.clone(), clock);
    serve(async |event| {
        let batch = function.batch(batch_in(event)?, async |record| {
            let job = DecisionJob::from_json(record.body.as_bytes())?;
            let call = &job.decision.call_id;
            tracing::info!(call_id = %call, trace_id = trace_of(call), seq = job.seq, "decision");
            let settings = library.of(&job.edge, None).await?;
            build_payload::handle(&function.cloud, &clock, &settings.config, record.body.as_bytes()).await
        });
        Ok(answer(&batch.await))
    })
    .await
}

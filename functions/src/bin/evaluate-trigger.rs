//! The function `evaluate-trigger`: signals in, decisions out.

use functions::aws::deliveries::WithoutClaims;
use functions::aws::lambda::{begin, serve, trace_of};
use functions::aws::settings::Library;
use functions::aws::switches::Switchboard;
use functions::batch::{Failure, Handled};
use functions::clock::SystemClock;
use functions::evaluate_trigger;
use functions::invocation::{answer, batch_in};
use functions::ports::{Policies, SIGNALS};
use functions::switches::Pinned;
use handoff::event::CallEvent;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let function = begin("evaluate-trigger", SIGNALS).await;
    let clock = SystemClock::start();
    let library = Library::<()>::new(function.cloud.clone(), clock);
    let switchboard = Switchboard::new(function.cloud.clone(), clock);
    serve(async |event| {
        let batch = function.batch(batch_in(event)?, async |record| {
            let event = CallEvent::from_json(record.body.as_bytes()).map_err(Failure::permanent)?;
            tracing::info!(call_id = %event.call, trace_id = trace_of(&event.call), seq = event.seq, "signal");
            let switches = switchboard.now().await;
            if switches.no_decisions {
                return Ok(Handled::Done);
            }
            let version = event.evaluable.as_ref().map(|evaluable| evaluable.snapshot.policy_version.as_str());
            let settings = library.of(&event.edge, version).await?;
            if version.is_some_and(|version| settings.policies.policy(version).is_none()) {
                return Err(Failure::Transient("the edge has not published the policy of this event".to_owned()));
            }
            let store = WithoutClaims(&function.cloud);
            let policies = Pinned { policies: &settings.policies, version: switches.policy.as_deref() };
            evaluate_trigger::handle(&store, &policies, &clock, record.body.as_bytes()).await
        });
        Ok(answer(&batch.await))
    })
    .await
}

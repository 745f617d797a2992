//! The function `measure-transfers`: chains that closed or got something late in, rows of
//! measures out.

use functions::aws::lambda::{begin, serve, trace_of};
use functions::batch::Failure;
use functions::invocation::{BatchResponse, HeadsEvent, ItemFailure, answer};
use functions::measure_transfers;
use functions::ports::PARKED;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let function = begin("measure-transfers", PARKED).await;
    serve(async |event| {
        let event: HeadsEvent = serde_json::from_value(event)
            .map_err(|_| Failure::permanent("the invocation is not a batch of a stream"))?;
        let mut response = BatchResponse::default();
        for (number, tenant, call) in event.measured() {
            match measure_transfers::measure(&function.cloud, &tenant, &call).await {
                Ok(rows) => tracing::info!(call_id = %call, trace_id = trace_of(&call), rows, "measured"),
                Err(Failure::Permanent(why)) => tracing::error!(call_id = %call, why, "not measured"),
                Err(error) => {
                    tracing::warn!(call_id = %call, %error, "the stream comes again from here");
                    response.batch_item_failures.push(ItemFailure { item_identifier: number.to_owned() });
                    break;
                }
            }
        }
        Ok(answer(&response))
    })
    .await
}

//! The adapters of the cloud, behind the feature `aws`: the same ports over SQS, DynamoDB,
//! S3, KMS, Secrets Manager and Systems Manager. Only the files of this folder name `aws_sdk_*`. An adapter
//! decides nothing: conditions and outcomes are `handoff`'s, retries are the queue's.

pub mod archive;
pub mod checkpoints;
pub mod commands;
pub mod deliveries;
pub mod erase;
pub mod expire;
pub mod forward;
pub mod lambda;
pub mod ledger;
pub mod measures;
pub mod names;
pub mod queues;
pub mod read;
pub mod settings;
pub mod switches;
pub mod vault;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use handoff::clock::Timestamp;

use crate::ports::PortError;
use crate::sqlite::wall_clock;
use names::Names;

/// A row of a table, as the SDK hands it over.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// The stores of one stack, for every port.
#[derive(Clone, Debug)]
pub struct Cloud {
    /// What they are called.
    pub names: Names,
    clients: Arc<Clients>,
}

/// A client for each service, made when somebody first asks for it: what a function never
/// asks for is not in its binary, nor in its start.
#[derive(Debug)]
struct Clients {
    shared: SdkConfig,
    sqs: OnceLock<aws_sdk_sqs::Client>,
    dynamodb: OnceLock<aws_sdk_dynamodb::Client>,
    kms: OnceLock<aws_sdk_kms::Client>,
    s3: OnceLock<aws_sdk_s3::Client>,
    secrets: OnceLock<aws_sdk_secretsmanager::Client>,
    parameters: OnceLock<aws_sdk_ssm::Client>,
}

impl Clients {
    fn new(shared: SdkConfig) -> Self {
        Self {
            shared,
            sqs: OnceLock::new(),
            dynamodb: OnceLock::new(),
            kms: OnceLock::new(),
            s3: OnceLock::new(),
            secrets: OnceLock::new(),
            parameters: OnceLock::new(),
        }
    }
}

impl Cloud {
    /// What clients for the stack of `names` need, with what the environment says of region,
    /// endpoint and credentials. No request is made yet.
    pub async fn connect(names: Names) -> Self {
        let clients = Clients::new(environment().await);
        Self { names, clients: Arc::new(clients) }
    }

    fn sqs(&self) -> &aws_sdk_sqs::Client {
        self.clients.sqs.get_or_init(|| aws_sdk_sqs::Client::new(&self.clients.shared))
    }

    fn dynamodb(&self) -> &aws_sdk_dynamodb::Client {
        self.clients.dynamodb.get_or_init(|| aws_sdk_dynamodb::Client::new(&self.clients.shared))
    }

    fn kms(&self) -> &aws_sdk_kms::Client {
        self.clients.kms.get_or_init(|| aws_sdk_kms::Client::new(&self.clients.shared))
    }

    fn s3(&self) -> &aws_sdk_s3::Client {
        self.clients.s3.get_or_init(|| {
            // Emulators serve buckets under their path; so does S3 itself.
            let config = aws_sdk_s3::config::Builder::from(&self.clients.shared).force_path_style(true);
            aws_sdk_s3::Client::from_conf(config.build())
        })
    }

    fn secrets(&self) -> &aws_sdk_secretsmanager::Client {
        self.clients.secrets.get_or_init(|| aws_sdk_secretsmanager::Client::new(&self.clients.shared))
    }

    fn parameters(&self) -> &aws_sdk_ssm::Client {
        self.clients.parameters.get_or_init(|| {
            // Who asks goes on without an answer: none is asked for twice.
            let config = aws_sdk_ssm::config::Builder::from(&self.clients.shared);
            aws_sdk_ssm::Client::from_conf(config.retry_config(RetryConfig::disabled()).build())
        })
    }

    /// The time by the clock of this machine.
    fn wall(&self) -> Timestamp {
        wall_clock()
    }
}

/// Region, endpoint and credentials from the environment, with the process's one TLS library:
/// what every client of the cloud is made of, the edge's own among them.
pub async fn environment() -> SdkConfig {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await
}

/// What the SDK's errors come to. Permanent is what the record itself is to blame for, and no
/// more: a table that is not there or a role that may not is mended by an operator, and until
/// then every record waits in its queue.
pub(crate) fn failed<E, R>(what: &str, error: aws_sdk_dynamodb::error::SdkError<E, R>) -> PortError
where
    E: aws_sdk_dynamodb::error::ProvideErrorMetadata,
{
    let code = error.as_service_error().and_then(|error| error.code());
    let text = format!("{what}: {}", code.unwrap_or("no answer"));
    match code {
        Some("ValidationException" | "InvalidParameterValue") => PortError::Permanent(text),
        _ => PortError::Transient(text),
    }
}

/// The code of a service's answer, where it answered.
pub(crate) fn code_of<E, R>(error: &aws_sdk_dynamodb::error::SdkError<E, R>) -> Option<&str>
where
    E: aws_sdk_dynamodb::error::ProvideErrorMetadata,
{
    error.as_service_error().and_then(|error| error.code())
}

/// A string attribute.
pub(crate) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// A number attribute.
pub(crate) fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// A binary attribute.
pub(crate) fn binary(value: &[u8]) -> AttributeValue {
    AttributeValue::B(aws_sdk_dynamodb::primitives::Blob::new(value))
}

/// A string attribute of an item.
pub(crate) fn text_of<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

/// A number attribute of an item.
pub(crate) fn number_of<T: std::str::FromStr>(item: &Item, name: &str) -> Option<T> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

/// A binary attribute of an item.
pub(crate) fn binary_of(item: &Item, name: &str) -> Option<Vec<u8>> {
    item.get(name)?.as_b().ok().map(|blob| blob.as_ref().to_vec())
}

/// Rows that contradict each other were not written by this program.
pub(crate) fn damaged(what: &str) -> PortError {
    PortError::Permanent(format!("{what} is damaged"))
}

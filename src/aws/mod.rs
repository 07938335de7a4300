//! AWS: clients, errors, retries, and one module for each service.
//!
//! Everything above this folder calls S3 through [`s3`] and SQS through [`sqs`]; DynamoDB is called by
//! `reports/store` and the ledger, with the item types of [`item`] and the conditional writes of [`statements`]. Every
//! failed call becomes an [`error::AwsError`]. [`retry`] repeats calls, [`bulk`] settles requests of many items,
//! [`pace`] bounds the number under way, and [`requests`] observes every attempt. This file makes the clients;
//! `tests/pipeline` covers it.

pub mod bulk;
pub mod error;
pub mod item;
pub mod pace;
pub mod requests;
pub mod retry;
pub mod s3;
pub mod sqs;
pub mod statements;

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_types::service_config::ServiceConfigKey;

use crate::aws::requests::Requests;

/// Attempts at one call by the SDK, with its own backoff, before the call fails.
const CALL_ATTEMPTS: u32 = 4;
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the answer to one attempt; longer than the longest poll of a queue (20 s).
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// The clients of one process.
#[derive(Debug, Clone)]
pub struct Clients {
    /// S3.
    pub s3: aws_sdk_s3::Client,
    /// SQS.
    pub sqs: aws_sdk_sqs::Client,
    /// DynamoDB.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// The observer of their requests.
    pub requests: Requests,
}

impl Clients {
    /// Creates clients as the standard `AWS_*` environment and the profile configure them. If they set an endpoint, S3
    /// is addressed by path: local stacks do not resolve bucket names as hosts.
    pub async fn from_environment() -> Self {
        let config: SdkConfig = aws_config::defaults(aws_config::BehaviorVersion::latest())
            .retry_config(RetryConfig::standard().with_max_attempts(CALL_ATTEMPTS))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                    .build(),
            )
            // A body that waits to be read is not stalled; reading has its own timeout.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .load()
            .await;
        let own_endpoint = ServiceConfigKey::builder().service_id("s3").env("AWS_ENDPOINT_URL").profile("endpoint_url");
        let own_endpoint = own_endpoint.build().ok().and_then(|key| config.service_config()?.load_config(key));
        let endpoint_given = own_endpoint.is_some() || config.endpoint_url().is_some();
        let requests = Requests::default();
        let s3 = aws_sdk_s3::config::Builder::from(&config)
            .interceptor(requests.clone())
            .force_path_style(endpoint_given)
            // Parts of an upload need no checksum beyond the transport's; the completion would have to repeat each of
            // them.
            .request_checksum_calculation(aws_sdk_s3::config::RequestChecksumCalculation::WhenRequired)
            .build();
        let sqs = aws_sdk_sqs::config::Builder::from(&config).interceptor(requests.clone()).build();
        let dynamodb = aws_sdk_dynamodb::config::Builder::from(&config).interceptor(requests.clone()).build();
        Clients {
            s3: aws_sdk_s3::Client::from_conf(s3),
            sqs: aws_sdk_sqs::Client::from_conf(sqs),
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb),
            requests,
        }
    }
}

//! AWS clients and AWS errors, and shorthands for DynamoDB items.
//!
//! Every failed call becomes an [`AwsError`] that names the operation and the resource, says what to do about it, and is of
//! one of a few kinds. [`Kind::is_passing`] is the one place that says which call is worth repeating by itself.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_types::service_config::ServiceConfigKey;
use tokio_util::sync::CancellationToken;

use crate::requests::{Requests, THROTTLING_CODES};

/// Tries of one call inside the SDK, with its own backoff, before it counts as failed.
const CALL_ATTEMPTS: u32 = 4;
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer to one try of a call; longer than the longest poll of a queue (20 s).
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);
/// First and longest pause between tries of what must not be given up.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(20));
/// The same after a conditional write that another was faster with.
const RACE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Longest pause between tries at one object, which others wait for.
const ONE_OBJECT: Duration = Duration::from_secs(3);

/// What kind of failure a call met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The service asks to slow down.
    Throttled,
    /// Network, timeout or a fault of the service: the same call may succeed later. It may also have been carried out.
    Transient,
    /// The endpoint cannot be reached at all.
    Unreachable,
    /// Credentials could not be had, or have run out: their provider renews them.
    NoCredentials,
    /// The credentials do not allow the call.
    Denied,
    /// The region is missing, or not the one that the resource is in.
    WrongRegion,
    /// The object lies in a storage class from which it has to be restored first.
    Cold,
    /// A bucket, queue or table does not exist.
    MissingResource,
    /// An object, in the version asked for, does not exist.
    NotFound,
    /// A multipart upload does not exist: it was completed or aborted.
    UploadGone,
    /// A condition of the write or read does not hold.
    Condition,
    /// The service does not offer this (501).
    NotImplemented,
    /// The service refuses the request as it is.
    Refused,
}

impl Kind {
    /// Whether trying again can help without anybody's help.
    pub fn is_passing(self) -> bool {
        match self {
            Kind::Throttled | Kind::Transient | Kind::Unreachable | Kind::NoCredentials => true,
            Kind::Denied
            | Kind::WrongRegion
            | Kind::Cold
            | Kind::MissingResource
            | Kind::NotFound
            | Kind::UploadGone
            | Kind::Condition
            | Kind::NotImplemented
            | Kind::Refused => false,
        }
    }

    /// Whether the fault may lie with the one thing that was asked for, and not with the service or our rights to it as a
    /// whole. Only a look at something else can tell for certain.
    pub fn may_be_of_the_thing(self) -> bool {
        !matches!(self, Kind::MissingResource | Kind::NoCredentials | Kind::WrongRegion)
    }
}

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub struct AwsError {
    /// The IAM name of the operation, such as `s3:GetObject`.
    pub operation: &'static str,
    /// What it was done to.
    pub resource: String,
    /// What kind of failure.
    pub kind: Kind,
    /// What the service or the network said.
    pub cause: String,
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AwsError { operation, resource, kind, cause } = self;
        write!(f, "{operation} on {resource} failed: {cause}")?;
        match kind {
            Kind::NoCredentials => write!(f, " (check the credentials of this process, and AWS_REGION)"),
            Kind::Denied => write!(
                f,
                " (give the role of this process {operation} on {resource}, or check its credentials and AWS_REGION)"
            ),
            Kind::WrongRegion => write!(f, " (set AWS_REGION to the region of the bucket, the queue and the tables)"),
            Kind::Cold => write!(
                f,
                " (it lies in a cold storage class: restore it with aws s3api restore-object, or copy it over itself into a warm one)"
            ),
            Kind::MissingResource => {
                write!(f, " (check the name, the account and AWS_REGION; deploy/template.yaml creates it)")
            }
            Kind::Unreachable => {
                write!(f, " (nothing answers at the endpoint: check AWS_REGION, AWS_ENDPOINT_URL and the network)")
            }
            Kind::Throttled => write!(f, " (the service limits the rate)"),
            _ => Ok(()),
        }
    }
}

/// Turns the SDK's error into ours.
pub fn explain<E>(
    operation: &'static str,
    resource: impl Into<String>,
) -> impl FnOnce(SdkError<E, HttpResponse>) -> AwsError
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let resource = resource.into();
    move |error| {
        let code = error.code().unwrap_or_default().to_owned();
        let kind = match &error {
            SdkError::DispatchFailure(failure) if failure.is_io() => Kind::Unreachable,
            SdkError::DispatchFailure(_) if lacks_credentials(&error) => Kind::NoCredentials,
            SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) if lacks_region(&error) => {
                Kind::WrongRegion
            }
            SdkError::ConstructionFailure(_) => Kind::Refused,
            SdkError::ServiceError(service) => kind_of(&code, service.raw().status().as_u16()),
            _ => Kind::Transient,
        };
        let cause = match (&error, error.message()) {
            (SdkError::ServiceError(_), Some(message)) => format!("{code}: {message}"),
            // Without even a code, the answer was none of the service's, or could not be read; only the SDK knows why.
            (SdkError::ServiceError(service), None) if !code.is_empty() || has_no_body(service.raw()) => {
                format!("{code} (HTTP {})", service.raw().status().as_u16()).trim_start().to_owned()
            }
            (SdkError::ServiceError(service), None) => {
                format!("HTTP {}: {}", service.raw().status().as_u16(), DisplayErrorContext(&error))
            }
            _ => DisplayErrorContext(&error).to_string(),
        };
        AwsError { operation, resource, kind, cause }
    }
}

/// The SDK has no kind of its own for credentials that are missing or cannot be fetched; it says so in the chain of causes.
fn lacks_credentials(error: &dyn std::error::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<aws_credential_types::provider::error::CredentialsError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn has_no_body(response: &HttpResponse) -> bool {
    response.body().bytes().is_some_and(<[u8]>::is_empty)
}

/// As with credentials: the SDK says in words that it was not told the region.
fn lacks_region(error: &dyn std::error::Error) -> bool {
    let told = DisplayErrorContext(error).to_string();
    ["region must be set", "Missing Region", "field: `region`"].iter().any(|words| told.contains(words))
}

fn kind_of(code: &str, status: u16) -> Kind {
    match code {
        _ if THROTTLING_CODES.contains(&code) => Kind::Throttled,
        "ConditionalCheckFailedException" | "PreconditionFailed" => Kind::Condition,
        "AccessDenied"
        | "AccessDeniedException"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "KMS.AccessDeniedException"
        | "AWS.SimpleQueueService.AccessDenied" => Kind::Denied,
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            Kind::WrongRegion
        }
        "InvalidObjectState" => Kind::Cold,
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => Kind::NoCredentials,
        // S3 begins some answers with 200 before it knows how they end, and lets a slow request go with 400.
        "InternalError" | "InternalServerError" | "ServiceUnavailable" | "RequestTimeout" => Kind::Transient,
        "NoSuchBucket"
        | "ResourceNotFoundException"
        | "QueueDoesNotExist"
        | "AWS.SimpleQueueService.NonExistentQueue" => Kind::MissingResource,
        "NoSuchKey" | "NoSuchVersion" | "NotFound" => Kind::NotFound,
        "NoSuchUpload" => Kind::UploadGone,
        "NotImplemented" => Kind::NotImplemented,
        _ => match status {
            301 => Kind::WrongRegion,
            401 | 403 => Kind::Denied,
            404 => Kind::NotFound,
            // Another request on the same object is under way.
            409 => Kind::Transient,
            412 => Kind::Condition,
            429 | 503 => Kind::Throttled,
            501 => Kind::NotImplemented,
            500.. => Kind::Transient,
            _ => Kind::Refused,
        },
    }
}

/// The clients of one process.
#[derive(Debug, Clone)]
pub struct Clients {
    /// S3.
    pub s3: aws_sdk_s3::Client,
    /// SQS.
    pub sqs: aws_sdk_sqs::Client,
    /// DynamoDB.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// What became of their requests.
    pub requests: Requests,
}

impl Clients {
    /// Clients as the standard `AWS_*` environment and the profile describe them. With an endpoint of one's own, S3 is addressed by path:
    /// local stacks do not resolve bucket names as hosts.
    pub async fn from_environment() -> Self {
        let config: SdkConfig = aws_config::defaults(aws_config::BehaviorVersion::latest())
            .retry_config(RetryConfig::standard().with_max_attempts(CALL_ATTEMPTS))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                    .build(),
            )
            // A body that waits for its turn is not stalled; reading has a timeout of its own.
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
            // Parts of an upload need no checksum beyond the transport's; their completion would have to repeat each.
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

/// An item as DynamoDB gives it.
pub type Item = HashMap<String, AttributeValue>;

/// A text attribute.
pub fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// A text attribute of an item, where it is there.
pub fn text_of(item: &Item, name: &str) -> Option<String> {
    item.get(name)?.as_s().ok().cloned()
}

/// A number attribute of an item, where it is there and whole.
pub fn number(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

/// Pauses between tries: doubled each time up to a bound, and jittered so that consumers do not move in step.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { next: BACKOFF.0, longest: BACKOFF.1 }
    }
}

impl Backoff {
    /// For who lost a race to another: short pauses, so that the next is run apart.
    pub fn after_a_race() -> Self {
        Backoff { next: RACE.0, longest: RACE.1 }
    }

    /// For one object of many, whose tries must not hold up the others for long.
    pub fn of_one_object() -> Self {
        Backoff { next: BACKOFF.0, longest: ONE_OBJECT }
    }

    /// Waits for the next pause: for short retries that need not be called off.
    pub async fn pause_uncancelled(&mut self) {
        self.pause(&CancellationToken::new()).await;
    }

    /// Waits for the next pause. `false` when `cancel` came first.
    pub async fn pause(&mut self, cancel: &CancellationToken) -> bool {
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) % 1000;
        let pause = self.next.mul_f64(0.5 + random as f64 / 2000.0);
        self.next = (self.next * 2).min(self.longest);
        cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
    }
}

/// Tries `call` until it succeeds, fails for good, or `cancel` comes: for what must not be given up, such as a committed
/// batch. Failures are logged as they grow old, not each.
pub async fn persist<T>(
    cancel: &CancellationToken,
    mut call: impl AsyncFnMut() -> Result<T, AwsError>,
) -> Result<T, AwsError> {
    let mut backoff = Backoff::default();
    let mut failures = 0_u32;
    loop {
        match call().await {
            Err(error) if error.kind.is_passing() => {
                failures += 1;
                if failures.is_power_of_two() {
                    tracing::warn!(failures, "{error}; trying again");
                }
                if !backoff.pause(cancel).await {
                    return Err(error);
                }
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_before_status() {
        assert_eq!(kind_of("SlowDown", 503), Kind::Throttled);
        assert_eq!(kind_of("ProvisionedThroughputExceededException", 400), Kind::Throttled);
        assert_eq!(kind_of("ResourceNotFoundException", 400), Kind::MissingResource);
        assert_eq!(kind_of("NoSuchUpload", 404), Kind::UploadGone);
        assert_eq!(kind_of("OperationAborted", 409), Kind::Transient);
        assert_eq!(kind_of("", 412), Kind::Condition);
        assert_eq!(kind_of("", 500), Kind::Transient);
        assert_eq!(kind_of("ValidationException", 400), Kind::Refused);
        assert_eq!(kind_of("InternalError", 200), Kind::Transient);
        assert_eq!(kind_of("RequestTimeout", 400), Kind::Transient);
        assert_eq!(kind_of("ExpiredToken", 400), Kind::NoCredentials);
    }

    #[test]
    fn an_error_names_operation_resource_and_remedy() {
        let error = AwsError {
            operation: "s3:GetObject",
            resource: "s3://b/k".into(),
            kind: Kind::Denied,
            cause: "AccessDenied".into(),
        };
        let text = error.to_string();
        assert!(
            text.contains("s3:GetObject on s3://b/k failed: AccessDenied") && text.contains("give the role"),
            "{text}"
        );
    }
}

//! Errors of AWS.
//!
//! Every failed call becomes an [`AwsError`], which names the operation, the resource and a remedy, and has one of a
//! few kinds. [`Kind::is_transient`] alone decides which calls are worth repeating automatically.

use std::fmt;

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::aws::requests::THROTTLING_CODES;

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The service asks to slow down.
    Throttled,
    /// A network error, a timeout or a fault of the service: a repetition may succeed. The call may have been carried
    /// out.
    Transient,
    /// The endpoint cannot be reached at all.
    Unreachable,
    /// Credentials are unavailable or have expired: their provider renews them.
    NoCredentials,
    /// The credentials do not permit the call.
    Denied,
    /// The region is missing, or is not the resource's.
    WrongRegion,
    /// The object is in a storage class from which it must be restored first.
    Cold,
    /// A bucket, queue or table does not exist.
    MissingResource,
    /// An object does not exist in the requested version.
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
    /// Returns true if a repetition may succeed without intervention.
    pub fn is_transient(self) -> bool {
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

    /// Returns true if the fault may lie with the one resource of the call, rather than with the service or our
    /// permissions as a whole. Only a call on another resource can tell for certain.
    pub fn may_concern_one_resource(self) -> bool {
        !matches!(self, Kind::MissingResource | Kind::NoCredentials | Kind::WrongRegion)
    }
}

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub struct AwsError {
    /// The IAM name of the operation, such as `s3:GetObject`.
    pub operation: &'static str,
    /// The resource that the call was made on.
    pub resource: String,
    /// The kind of failure.
    pub kind: Kind,
    /// The message of the service or the network.
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
                " (it is in a cold storage class: restore it with aws s3api restore-object, \
                 or copy it over itself into a warm one)"
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

/// Returns a function that turns the SDK's error into an [`AwsError`] of this operation on this resource.
pub fn aws_error<E>(
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
            SdkError::ServiceError(service) => kind_of(&code, Some(service.raw().status().as_u16())),
            _ => Kind::Transient,
        };
        let cause = match (&error, error.message()) {
            (SdkError::ServiceError(_), Some(message)) => format!("{code}: {message}"),
            // Without a code, the answer was not the service's, or could not be read; only the SDK knows why.
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

/// Returns true if credentials are missing or cannot be fetched. The SDK has no error kind for it, but a cause in the
/// chain.
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

/// Returns true if no region is configured. The SDK has no error kind for it, but a message.
fn lacks_region(error: &dyn std::error::Error) -> bool {
    let message = DisplayErrorContext(error).to_string();
    ["region must be set", "Missing Region", "field: `region`"].iter().any(|words| message.contains(words))
}

/// Returns the kind of an error by its code and, where it has one of its own, its status.
pub(super) fn kind_of(code: &str, status: Option<u16>) -> Kind {
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
        // S3 begins some answers with 200 before it knows their outcome, and aborts slow requests with 400.
        "InternalError" | "InternalServerError" | "ServiceUnavailable" | "RequestTimeout" => Kind::Transient,
        "NoSuchBucket"
        | "ResourceNotFoundException"
        | "QueueDoesNotExist"
        | "AWS.SimpleQueueService.NonExistentQueue" => Kind::MissingResource,
        "NoSuchKey" | "NoSuchVersion" | "NotFound" => Kind::NotFound,
        "NoSuchUpload" => Kind::UploadGone,
        "NotImplemented" => Kind::NotImplemented,
        // Another request on the same object is under way.
        "OperationAborted" | "ConditionalRequestConflict" => Kind::Transient,
        _ => match status.unwrap_or_default() {
            301 => Kind::WrongRegion,
            401 | 403 => Kind::Denied,
            404 => Kind::NotFound,
            // As above.
            409 => Kind::Transient,
            412 => Kind::Condition,
            429 | 503 => Kind::Throttled,
            501 => Kind::NotImplemented,
            500.. => Kind::Transient,
            _ => Kind::Refused,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_before_status() {
        assert_eq!(kind_of("SlowDown", Some(503)), Kind::Throttled);
        assert_eq!(kind_of("ProvisionedThroughputExceededException", Some(400)), Kind::Throttled);
        assert_eq!(kind_of("ResourceNotFoundException", Some(400)), Kind::MissingResource);
        assert_eq!(kind_of("NoSuchUpload", Some(404)), Kind::UploadGone);
        assert_eq!(kind_of("OperationAborted", Some(409)), Kind::Transient);
        assert_eq!(kind_of("", Some(412)), Kind::Condition);
        assert_eq!(kind_of("", Some(500)), Kind::Transient);
        assert_eq!(kind_of("ValidationException", Some(400)), Kind::Refused);
        assert_eq!(kind_of("InternalError", Some(200)), Kind::Transient);
        assert_eq!(kind_of("RequestTimeout", Some(400)), Kind::Transient);
        assert_eq!(kind_of("ExpiredToken", Some(400)), Kind::NoCredentials);
    }

    #[test]
    fn an_item_of_a_request_has_a_code_and_no_status() {
        assert_eq!(kind_of("PreconditionFailed", None), Kind::Condition);
        assert_eq!(kind_of("NoSuchKey", None), Kind::NotFound);
        assert_eq!(kind_of("AccessDenied", None), Kind::Denied);
        assert_eq!(kind_of("SlowDown", None), Kind::Throttled);
        assert_eq!(kind_of("InternalError", None), Kind::Transient);
        assert_eq!(kind_of("ConditionalRequestConflict", None), Kind::Transient);
        assert_eq!(kind_of("Unheard", None), Kind::Refused);
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

//! An observer of every request to AWS: it counts them for [`crate::telemetry::metrics`], and follows failing services
//! for [`crate::service::health`].
//!
//! An interceptor sees what the callers do not: the SDK's own retries, which are billed like any other request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_s3::config::interceptors::FinalizerInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use opentelemetry::KeyValue;

use crate::telemetry::metrics::metrics;

/// Error codes by which services ask to slow down.
pub const THROTTLING_CODES: [&str; 9] = [
    "ThrottlingException",
    "Throttling",
    "RequestThrottled",
    "SlowDown",
    "RequestLimitExceeded",
    "ProvisionedThroughputExceededException",
    "TooManyRequestsException",
    "OverLimit",
    "LimitExceededException",
];

/// The outcome of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    /// A condition did not hold, a resource is missing, or the request is wrong: the service works.
    Refused,
    /// Credentials are missing or do not permit the request.
    Denied,
    Throttled,
    /// No answer, or a fault of the service.
    Failed,
}

impl Outcome {
    fn of(context: &FinalizerInterceptorContextRef<'_>) -> Self {
        let Some(response) = context.response() else { return Outcome::Failed };
        let says = |code: &&str| {
            let body = response.body().bytes().unwrap_or_default();
            memchr::memmem::find(body, code.as_bytes()).is_some()
        };
        match response.status().as_u16() {
            ..=399 => Outcome::Ok,
            429 | 503 => Outcome::Throttled,
            // The service works, but does not implement this: a local stack.
            501 => Outcome::Refused,
            500.. => Outcome::Failed,
            _ if THROTTLING_CODES.iter().any(says) => Outcome::Throttled,
            401 | 403 => Outcome::Denied,
            _ => Outcome::Refused,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Refused | Outcome::Denied => "refused",
            Outcome::Throttled => "throttled",
            Outcome::Failed => "failed",
        }
    }
}

/// An unbroken run of failed requests.
#[derive(Debug, Clone, Copy)]
struct Failures {
    first: Instant,
    last: Instant,
}

/// Observes the requests of all clients that have it as an interceptor. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    /// Services whose last request failed.
    failing: Arc<Mutex<BTreeMap<String, Failures>>>,
}

impl Requests {
    /// Returns the services that have failed for at least `at_least`, each with the time from the first failure to the
    /// last. The last failure must be no older than `within`. A service that is rarely used (S3, by an idle consumer)
    /// is thus not reported because it failed once and was not used again.
    pub fn failing_for(&self, at_least: Duration, within: Duration) -> Vec<(String, Duration)> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = failing.iter().filter(|(_, failures)| failures.last.elapsed() <= within);
        let lasting = recent.map(|(service, failures)| (service.clone(), failures.last - failures.first));
        lasting.filter(|(_, duration)| *duration >= at_least).collect()
    }

    fn record(&self, service: &str, outcome: Outcome) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Outcome::Ok | Outcome::Refused => {
                failing.remove(service);
            }
            Outcome::Denied | Outcome::Throttled | Outcome::Failed => {
                let now = Instant::now();
                failing.entry(service.to_owned()).or_insert(Failures { first: now, last: now }).last = now;
            }
        }
    }
}

impl Intercept for Requests {
    fn name(&self) -> &'static str {
        "Requests"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(operation) = config.load::<Metadata>() else { return Ok(()) };
        let outcome = Outcome::of(context);
        self.record(operation.service(), outcome);
        let service = KeyValue::new("rpc.service", operation.service().to_owned());
        if config.load::<RequestAttempts>().is_some_and(|attempts| attempts.attempts() > 1) {
            metrics().retries.add(1, std::slice::from_ref(&service));
        }
        let method = KeyValue::new("rpc.method", operation.name().to_owned());
        metrics().requests.add(1, &[service, method, KeyValue::new("outcome", outcome.label())]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(requests: &Requests, at_least: u64, within: u64) -> Vec<String> {
        let failing = requests.failing_for(Duration::from_millis(at_least), Duration::from_millis(within));
        failing.into_iter().map(|(service, _)| service).collect()
    }

    #[test]
    fn a_service_fails_from_its_first_failure_to_its_next_answer() {
        let requests = Requests::default();
        requests.record("S3", Outcome::Failed);
        requests.record("SQS", Outcome::Denied);
        std::thread::sleep(Duration::from_millis(20));
        requests.record("S3", Outcome::Throttled);
        requests.record("DynamoDB", Outcome::Failed);
        assert_eq!(failing(&requests, 20, 60_000), ["S3"], "the others failed once, and nobody has asked again");
        assert_eq!(failing(&requests, 0, 60_000), ["DynamoDB", "S3", "SQS"]);
        requests.record("S3", Outcome::Refused);
        requests.record("SQS", Outcome::Ok);
        assert_eq!(failing(&requests, 0, 60_000), ["DynamoDB"]);
    }

    #[test]
    fn what_was_long_ago_says_nothing_of_now() {
        let requests = Requests::default();
        requests.record("S3", Outcome::Failed);
        std::thread::sleep(Duration::from_millis(20));
        assert!(failing(&requests, 0, 19).is_empty());
    }
}

//! What Amazon ECS tells a task about itself, and what a task tells ECS.
//!
//! * Who it is, for the resource attributes of its telemetry:
//!   <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html>.
//! * That it must not be scaled in, from the commit of a batch to its end:
//!   <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html>. A task that is scaled in all the
//!   same loses nothing; the next consumer only takes a lease longer.
//!
//! Elsewhere both do nothing.

use std::time::Duration;

use opentelemetry::KeyValue;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Longest wait for an answer of the agent, which is on the same machine.
const AGENT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long protection lasts that nobody takes back or renews.
const PROTECTION: Duration = Duration::from_secs(3600);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ContainerMetadata {
    docker_id: Option<String>,
    name: Option<String>,
    #[serde(rename = "ContainerARN")]
    container_arn: Option<String>,
    log_options: LogOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct LogOptions {
    awslogs_group: Option<String>,
    awslogs_stream: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TaskMetadata {
    cluster: Option<String>,
    #[serde(rename = "TaskARN")]
    task_arn: Option<String>,
    family: Option<String>,
    revision: Option<String>,
    availability_zone: Option<String>,
    launch_type: Option<String>,
}

/// What OpenTelemetry calls the parts of a task; empty when this is none.
/// <https://opentelemetry.io/docs/specs/semconv/resource/cloud-provider/aws/ecs/>
pub async fn resource_attributes() -> Vec<KeyValue> {
    let Ok(endpoint) = std::env::var("ECS_CONTAINER_METADATA_URI_V4") else { return Vec::new() };
    match (get(&endpoint).await, get(&format!("{endpoint}/task")).await) {
        (Ok(container), Ok(task)) => attributes(container, task),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!("ECS does not say which task this is, so telemetry does not either: {error}");
            Vec::new()
        }
    }
}

async fn get<T: for<'de> Deserialize<'de>>(url: &str) -> Result<T, String> {
    let request = agent().map_err(|error| error.to_string())?.get(url).send();
    let body = request.await.and_then(reqwest::Response::error_for_status).map_err(|error| error.to_string())?.bytes();
    serde_json::from_slice(&body.await.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

fn agent() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().timeout(AGENT_TIMEOUT).no_proxy().build()
}

fn attributes(container: ContainerMetadata, task: TaskMetadata) -> Vec<KeyValue> {
    // arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID
    let arn = task.task_arn.clone().unwrap_or_default();
    let part = |position| arn.split(':').nth(position).filter(|part| !part.is_empty()).map(str::to_owned);
    [
        ("cloud.provider", Some("aws".to_owned())),
        ("cloud.platform", Some("aws_ecs".to_owned())),
        ("cloud.region", part(3)),
        ("cloud.account.id", part(4)),
        ("cloud.availability_zone", task.availability_zone),
        ("cloud.resource_id", container.container_arn.clone()),
        ("aws.ecs.cluster.arn", task.cluster),
        ("aws.ecs.container.arn", container.container_arn),
        ("aws.ecs.launchtype", task.launch_type.map(|launch_type| launch_type.to_lowercase())),
        ("aws.ecs.task.arn", task.task_arn),
        ("aws.ecs.task.id", arn.rsplit('/').next().filter(|id| !id.is_empty()).map(str::to_owned)),
        ("aws.ecs.task.family", task.family),
        ("aws.ecs.task.revision", task.revision),
        ("container.id", container.docker_id),
        ("container.name", container.name),
        ("aws.log.group.names", container.log_options.awslogs_group),
        ("aws.log.stream.names", container.log_options.awslogs_stream),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(KeyValue::new(name, value?)))
    .collect()
}

/// Keeps the task from being scaled in while somebody asks for it. The calls run beside what is protected and never hold it up.
#[derive(Debug)]
pub struct ScaleInProtection {
    wanted: Option<watch::Sender<bool>>,
    _asking: Option<AbortOnDropHandle<()>>,
}

impl ScaleInProtection {
    /// Of this task, where it is one.
    pub fn of_this_task() -> Self {
        let client = std::env::var("ECS_AGENT_URI").ok().and_then(|agent_uri| Some((agent_uri, agent().ok()?)));
        let Some((agent_uri, client)) = client else { return ScaleInProtection { wanted: None, _asking: None } };
        let (wanted, changes) = watch::channel(false);
        let asking = tokio::spawn(ask(client, format!("{agent_uri}/task-protection/v1/state"), changes, PROTECTION));
        ScaleInProtection { wanted: Some(wanted), _asking: Some(AbortOnDropHandle::new(asking)) }
    }

    /// Protects the task until what is given is dropped.
    pub fn hold(&self) -> Protected<'_> {
        self.set(true);
        Protected(self)
    }

    fn set(&self, protected: bool) {
        if let Some(wanted) = &self.wanted {
            wanted.send_replace(protected);
        }
    }
}

/// The task is protected until this is dropped.
#[derive(Debug)]
pub struct Protected<'a>(&'a ScaleInProtection);

impl Drop for Protected<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Tells the agent what is wanted: when that changes, and before protection, which lasts for `lasting`, runs out.
async fn ask(client: reqwest::Client, url: String, mut changes: watch::Receiver<bool>, lasting: Duration) {
    let mut protected = false;
    loop {
        let renewal = if protected { lasting / 2 } else { Duration::MAX };
        match tokio::time::timeout(renewal, changes.changed()).await {
            Ok(Ok(())) => protected = *changes.borrow_and_update(),
            Ok(Err(_)) => return,
            Err(_) => {}
        }
        let body = if protected {
            serde_json::json!({"ProtectionEnabled": true, "ExpiresInMinutes": lasting.as_secs() / 60})
        } else {
            serde_json::json!({"ProtectionEnabled": false})
        };
        let request = client.put(&url).header("content-type", "application/json").body(body.to_string());
        if let Err(error) = request.send().await.and_then(reqwest::Response::error_for_status) {
            tracing::warn!(
                "ECS does not change the scale-in protection of this task: {error} (give its role ecs:UpdateTaskProtection)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_described_in_the_words_of_opentelemetry() {
        let container = serde_json::from_str(
            r#"{"DockerId": "abc-1", "Name": "consumer", "ContainerARN": "arn:aws:ecs:eu-west-1:111122223333:container/c/1",
                "LogOptions": {"awslogs-group": "/music-streams", "awslogs-stream": "consumer/1"}, "Limits": {"CPU": 2}}"#,
        );
        let task = serde_json::from_str(
            r#"{"Cluster": "arn:aws:ecs:eu-west-1:111122223333:cluster/c", "Family": "music-streams", "Revision": "7",
                "TaskARN": "arn:aws:ecs:eu-west-1:111122223333:task/c/158d1c", "LaunchType": "FARGATE"}"#,
        );
        let attributes = attributes(container.unwrap(), task.unwrap());
        let find = |name: &str| {
            attributes
                .iter()
                .find(|attribute| attribute.key.as_str() == name)
                .map(|attribute| attribute.value.to_string())
        };
        assert_eq!(find("cloud.region").as_deref(), Some("eu-west-1"));
        assert_eq!(find("cloud.account.id").as_deref(), Some("111122223333"));
        assert_eq!(find("aws.ecs.task.id").as_deref(), Some("158d1c"));
        assert_eq!(find("aws.ecs.launchtype").as_deref(), Some("fargate"));
        assert_eq!(find("aws.log.group.names").as_deref(), Some("/music-streams"));
        assert_eq!(find("cloud.availability_zone"), None);
    }

    #[tokio::test]
    async fn protection_is_renewed_while_it_is_wanted() {
        let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
        let agent_state = axum::routing::put(async move |body: String| drop(say.send(body)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/state", listener.local_addr().unwrap());
        let served = axum::serve(listener, axum::Router::new().route("/state", agent_state)).into_future();
        let _served = AbortOnDropHandle::new(tokio::spawn(served));
        let (wanted, changes) = watch::channel(false);
        let lasting = Duration::from_millis(100);
        let _asking = AbortOnDropHandle::new(tokio::spawn(ask(agent().unwrap(), url, changes, lasting)));

        let protection = ScaleInProtection { wanted: Some(wanted), _asking: None };
        let protected = protection.hold();
        let mut said = async || tokio::time::timeout(Duration::from_secs(10), said.recv()).await.unwrap().unwrap();
        for _ in 0..3 {
            assert!(said().await.contains(r#""ProtectionEnabled":true"#));
        }
        drop(protected);
        while said().await != r#"{"ProtectionEnabled":false}"# {}
        assert!(tokio::time::timeout(2 * lasting, said()).await.is_err(), "nothing to renew");
    }
}

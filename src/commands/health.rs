//! `music-streams health`: asks a running consumer for its health, in a container without a shell or `curl`. Covered by
//! tests/pipeline/health.rs.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

/// The longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// A question to a running consumer.
#[derive(Debug, Args)]
pub struct HealthQuery {
    /// Address of its health answers: the --health-address that it was given
    #[arg(long, env = "MUSIC_STREAMS_HEALTH_ADDRESS", value_name = "ADDRESS")]
    health_address: SocketAddr,

    /// Ask whether it is ready, not only whether it is alive
    #[arg(long)]
    ready: bool,
}

impl HealthQuery {
    /// Returns the consumer's answer. The error is the reason for which it is not live or not ready.
    pub async fn ask(&self) -> Result<String, String> {
        let question = if self.ready { "ready" } else { "live" };
        let url = format!("http://{}/{question}", self.health_address);
        let unreachable = |error: reqwest::Error| format!("nobody answers at {url}: {error}");
        let client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).no_proxy().build().map_err(unreachable)?;
        let response = client.get(&url).send().await.map_err(unreachable)?;
        let is_healthy = response.status().is_success();
        let said = response.text().await.map_err(unreachable)?.trim_end().to_owned();
        if is_healthy { Ok(said) } else { Err(said) }
    }
}

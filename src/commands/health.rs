//! `music-streams health`: asks a running consumer how it is, without a shell or `curl` in the container.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

/// Longest wait of `music-streams health` for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// Which question to ask a running consumer.
#[derive(Debug, Args)]
pub struct HealthQuery {
    /// Where it answers: the --health-address that it was given
    #[arg(long, env = "MUSIC_STREAMS_HEALTH_ADDRESS", value_name = "ADDRESS")]
    health_address: SocketAddr,

    /// Ask whether it is ready, and not only whether it lives
    #[arg(long)]
    ready: bool,
}

impl HealthQuery {
    /// Asks. The error tells why it is not well.
    pub async fn ask(&self) -> Result<String, String> {
        let question = if self.ready { "ready" } else { "live" };
        let url = format!("http://{}/{question}", self.health_address);
        let unreachable = |error: reqwest::Error| format!("nobody answers at {url}: {error}");
        let client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).no_proxy().build().map_err(unreachable)?;
        let response = client.get(&url).send().await.map_err(unreachable)?;
        let is_well = response.status().is_success();
        let said = response.text().await.map_err(unreachable)?.trim_end().to_owned();
        if is_well { Ok(said) } else { Err(said) }
    }
}

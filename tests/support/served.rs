//! `music-streams serve` as a process, and answers of it.

use std::process::{Child, Command, Stdio};

use reqwest::header::HeaderMap;

use crate::support::*;

/// A server of a deployment's figures, which ends with this value.
pub struct Served {
    process: Child,
    pub url: String,
    log: std::path::PathBuf,
}

/// An answer over HTTP.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.body))
    }

    /// The number of calls to DynamoDB that it cost.
    pub fn calls(&self) -> u64 {
        let timing = self.header("server-timing");
        let calls = timing.split_once("desc=\"").and_then(|(_, rest)| rest.split(' ').next());
        calls.and_then(|calls| calls.parse().ok()).unwrap_or_else(|| panic!("no calls in {timing:?}"))
    }
}

impl Served {
    /// Starts a server at a free port, and waits until it answers.
    pub async fn start(deployment: &Deployment, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let log = std::env::temp_dir().join(format!(
            "{}-serve-{:x}.log",
            deployment.bucket,
            std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()
        ));
        let process = Command::new(env!("CARGO_BIN_EXE_music-streams"))
            .args(["serve", "--address", "127.0.0.1:0"])
            .args(flags)
            .env("MUSIC_STREAMS_QUEUE_URL", &deployment.queue_url)
            .env("MUSIC_STREAMS_TABLE_PREFIX", &deployment.table_prefix)
            .env("MUSIC_STREAMS_LOG_FORMAT", "json")
            .envs(environment.iter().copied())
            .stderr(std::fs::File::create(&log).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let url = eventually_some("the server tells its address", PATIENCE, async || {
            let said = std::fs::read_to_string(&log).unwrap();
            let address = said.split_once("the page is at ").and_then(|(_, rest)| rest.split(['"', '\n']).next());
            address.map(str::to_owned).ok_or(said)
        })
        .await;
        Served { process, url, log }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(reqwest::Method::GET, path, headers).await
    }

    pub async fn ask(&self, method: reqwest::Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.request(method, format!("{}{path}", self.url));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.text().await.unwrap() }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

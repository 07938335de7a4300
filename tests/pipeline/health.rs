//! Health: what an orchestrator is told, while services work, fail, and leave a batch standing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

/// A way to a service that can be shut, and on which requests for keys with "stuck" in them are never answered.
#[derive(Clone, Default)]
struct Gate {
    is_shut: Arc<AtomicBool>,
}

impl Gate {
    async fn before(&self, upstream: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let gate = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(gate.clone().forward(client, upstream.strip_prefix("http://").unwrap().to_owned()));
            }
        });
        url
    }

    async fn forward(self, client: TcpStream, upstream: String) {
        let server = TcpStream::connect(upstream).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let requests = async {
            let mut buffer = vec![0; 65_536];
            while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                if self.is_shut.load(Ordering::Relaxed) {
                    return;
                }
                let text = String::from_utf8_lossy(&buffer[..length]);
                if text.starts_with("GET ") && text.contains("/incoming/stuck") {
                    std::future::pending::<()>().await;
                }
                to_server.write_all(&buffer[..length]).await.unwrap();
            }
        };
        tokio::select! {
            () = requests => {}
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        }
    }
}

/// Asks until the answer is as wanted.
async fn answers(address: &str, question: &[&str], wanted: impl Fn(&Ended) -> bool) -> Ended {
    eventually_some(format!("health {question:?} answers as wanted"), Duration::from_secs(30), async || {
        let ended = program(&[&["health", "--health-address", address], question].concat(), &[]);
        if wanted(&ended) { Ok(ended) } else { Err(ended.stdout + &ended.stderr) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_what_happens() {
    let deployment = Deployment::new("health").await;
    let gate = Gate::default();
    let way = gate.before(std::env::var("AWS_ENDPOINT_URL").unwrap()).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let nobody = program(&["health", "--health-address", &free], &[]);
    assert!(!nobody.success && nobody.stderr.contains("nobody answers"), "{}", nobody.stderr);

    let flags = ["--health-address", &free, "--unready-after", "2s", "--stuck-after", "3s", "--window", "1s"];
    let consumer = deployment.consumer_in(&flags, &[("AWS_ENDPOINT_URL", &way)]);
    consumer.logged("\"ready\"").await;
    assert_eq!(answers(&free, &[], |ended| ended.success).await.stdout, "live\n");
    assert_eq!(answers(&free, &["--ready"], |ended| ended.success).await.stdout, "ready\n");

    // A service that fails for long makes it unready, and does not kill it.
    gate.is_shut.store(true, Ordering::Relaxed);
    let failing = |ended: &Ended| !ended.success && ended.stderr.contains("SQS has failed for");
    answers(&free, &["--ready"], failing).await;
    assert!(answers(&free, &[], |_| true).await.success);
    gate.is_shut.store(false, Ordering::Relaxed);
    answers(&free, &["--ready"], |ended| ended.success).await;

    // A batch that stands still although services answer does.
    let rows = rows(9400, 50);
    deployment.put("incoming/stuck.csv", csv_of(&rows)).await;
    let stuck = answers(&free, &[], |ended| !ended.success).await;
    assert!(stuck.stderr.contains("a batch has stood still for"), "{}", stuck.stderr);
    consumer.kill();
    deployment.work_off().await;
    Expected::of(&rows).assert_reported(&deployment).await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let deployment = Deployment::new("taken").await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut consumer = deployment.consumer(&["--health-address", &address]);
    consumer.logged(&format!("--health-address {address} cannot be used")).await;
    assert!(!consumer.end().await.success());
}

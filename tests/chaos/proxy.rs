//! An unreliable network: forwards connections, loses answers, breaks off requests, delays calls and refuses
//! connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::Random;

/// A proxy to one service. Ends with the runtime.
pub struct Proxy {
    pub url: String,
    faults: Arc<AtomicU64>,
}

impl Proxy {
    /// Starts a proxy to the service at `upstream` (`http://host:port`).
    pub async fn to(upstream: &str, seed: u64) -> Self {
        let upstream = upstream.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let faults: Arc<AtomicU64> = Arc::default();
        let counted = Arc::clone(&faults);
        tokio::spawn(async move {
            let mut random = Random(seed);
            while let Ok((client, _)) = listener.accept().await {
                let fate = Fate::of(&mut random);
                let counted = Arc::clone(&counted);
                tokio::spawn(connect(client, upstream.clone(), fate, counted));
            }
        });
        Proxy { url, faults }
    }

    /// Returns the number of connections that were disturbed.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }
}

/// The fate of a connection: the bytes that pass each way before it breaks, and its beginning.
#[derive(Debug, Clone, Copy)]
struct Fate {
    refused: bool,
    delay: Duration,
    request_bytes: u64,
    answer_bytes: u64,
}

impl Fate {
    fn of(random: &mut Random) -> Self {
        // Every connection breaks some time, as there would soon be only good ones otherwise.
        let good = Fate { refused: false, delay: Duration::ZERO, request_bytes: u64::MAX, answer_bytes: 1 << 19 };
        match random.below(20) {
            0 => Fate { refused: true, ..good },
            1 => Fate { delay: Duration::from_millis(random.below(4000)), ..good },
            2 => Fate { request_bytes: random.below(3000), ..good },
            // The request arrives, and its answer does not.
            3 | 4 => Fate { answer_bytes: 0, ..good },
            5 | 6 => Fate { answer_bytes: random.below(20_000), ..good },
            _ => Fate { answer_bytes: random.below(1 << 19), ..good },
        }
    }
}

async fn connect(mut client: TcpStream, upstream: String, fate: Fate, faults: Arc<AtomicU64>) {
    tokio::time::sleep(fate.delay).await;
    if fate.refused {
        faults.fetch_add(1, Ordering::Relaxed);
        let mut request = [0; 4096];
        let _ = client.read(&mut request).await;
        let _ = client.write_all(b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        return;
    }
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let broke = tokio::select! {
        broke = forward(from_client, to_server, fate.request_bytes) => broke,
        broke = forward(from_server, to_client, fate.answer_bytes) => broke,
    };
    faults.fetch_add(u64::from(broke), Ordering::Relaxed);
}

/// Forwards until either side ends, or the limit of bytes is reached. Returns true in the latter case.
async fn forward(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, mut left: u64) -> bool {
    let mut buffer = [0; 16 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return false };
        if read as u64 > left {
            let _ = to.write_all(&buffer[..left as usize]).await;
            return true;
        }
        left -= read as u64;
        if to.write_all(&buffer[..read]).await.is_err() {
            return false;
        }
    }
}

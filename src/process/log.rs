//! The log: lines on standard error, written without blocking.
//!
//! A dedicated thread writes them. If standard error is full or closed, lines are lost but work continues: lines wait
//! in a queue that is bounded in bytes, those that do not fit are counted and dropped, and errors of writing are
//! ignored. Before the process ends, [`flush`] waits for the queue, for a limited time. Covered by `tests/process.rs`.

use std::io::Write;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

/// Upper bound of the bytes in the queue: some ten thousand lines of usual length.
const MAX_WAITING_BYTES: usize = 4 << 20;
/// Bytes that a line takes in the queue besides its text.
const LINE_OVERHEAD: usize = 64;

/// An entry of the writing thread's queue.
enum Entry {
    Line(Vec<u8>),
    /// Answered once everything before it is written.
    Flush(SyncSender<()>),
}

/// The queue of lines, with its size and its losses.
struct Log {
    entries: Sender<Entry>,
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
}

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let (entries, written) = channel();
    // Without the thread the receiver is dropped, and every line is counted as lost.
    let _ = std::thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&written));
    Log { entries, waiting_bytes: AtomicUsize::new(0), lost: AtomicU64::new(0) }
});

fn write_all(entries: &Receiver<Entry>) {
    let mut stderr = std::io::stderr();
    while let Ok(entry) = entries.recv() {
        match entry {
            Entry::Line(line) => {
                let _ = stderr.write_all(&line);
                LOG.waiting_bytes.fetch_sub(line.len() + LINE_OVERHEAD, Ordering::Relaxed);
                let lost = LOG.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let _ =
                        writeln!(stderr, "music-streams: {lost} lines of the log were lost: standard error was full");
                }
            }
            // The waiting thread may have timed out.
            Entry::Flush(done) => drop(done.try_send(())),
        }
    }
}

/// Logs a line. It is lost if the queue is full.
pub fn line(text: &str) {
    add(format!("{text}\n").into_bytes());
}

fn add(line: Vec<u8>) {
    let bytes = line.len() + LINE_OVERHEAD;
    let before = LOG.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
    if before.saturating_add(bytes) > MAX_WAITING_BYTES || LOG.entries.send(Entry::Line(line)).is_err() {
        LOG.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        LOG.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until all lines logged so far are written, for at most `limit`.
pub fn flush(limit: Duration) {
    let (done, written) = sync_channel(1);
    if LOG.entries.send(Entry::Flush(done)).is_ok() {
        let _ = written.recv_timeout(limit);
    }
}

/// A writer for `tracing`: each write is a whole line.
#[derive(Debug, Clone, Copy)]
pub struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        add(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

//! The log: lines on standard error, for which nothing waits.
//!
//! A thread of its own writes them. Where nobody reads standard error, or nobody has it open any more, lines are lost
//! and work is not: they wait in a queue that is bounded in bytes, what finds no place there is counted and dropped,
//! and errors of writing are no news to anybody. Who ends the process waits for the queue with [`flush`], and no longer
//! than it says.

use std::io::Write;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

/// Bytes of the lines that wait to be written: some ten thousand lines of usual length.
const MAX_WAITING_BYTES: usize = 4 << 20;
/// What a line takes in the queue beside its text.
const LINE_OVERHEAD: usize = 64;

/// What the writing thread is given.
enum Entry {
    Line(Vec<u8>),
    /// Everything before this is written when it is answered.
    Flush(SyncSender<()>),
}

/// A queue of lines, and what is known of it.
struct Log {
    entries: Sender<Entry>,
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
}

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let (entries, written) = channel();
    // Without the thread the receiver is gone and every line is lost, which is all that can be done about it.
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
            // Whoever waited has perhaps gone on.
            Entry::Flush(done) => drop(done.try_send(())),
        }
    }
}

/// Says a line; it is lost when too many are waiting.
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

/// Waits until all lines said so far are written, for `limit` at the most.
pub fn flush(limit: Duration) {
    let (done, written) = sync_channel(1);
    if LOG.entries.send(Entry::Flush(done)).is_ok() {
        let _ = written.recv_timeout(limit);
    }
}

/// The log as `tracing` writes to it: each write is a whole line.
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

//! Named tasks, and one rule for all of them: if a task dies, the process dies.
//!
//! A consumer that lost one of its tasks would appear healthy and do only part of its work. So a panic anywhere ends
//! the process after logging the task and the place ([`end_on_panic`]), and so does a task that ends early
//! ([`spawn_until`], [`end`]). The supervisor starts the process again, and the protocol makes that safe. Only
//! computations on input are contained ([`contain`]): their caller receives the failure.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Level;

use crate::process::log;

/// Longest wait for the log to be written before the process ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// The name of the running task.
    static NAME: &'static str;
}

thread_local! {
    /// True while a computation runs whose panic is contained.
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Starts a task under a name.
pub fn spawn<F>(name: &'static str, task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(NAME.scope(name, task))
}

/// Runs a task on whichever thread is free, and waits for it. The task ends when nobody waits any more.
pub async fn apart<F>(name: &'static str, task: F) -> F::Output
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    match AbortOnDropHandle::new(spawn(name, task)).await {
        Ok(output) => output,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is shutting down, and this waits for its own end.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Starts a task that must run until `shutdown`. If it ends earlier, the process ends.
pub fn spawn_until<F>(shutdown: &CancellationToken, name: &'static str, task: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let shutdown = shutdown.clone();
    spawn(name, async move {
        task.await;
        if !shutdown.is_cancelled() {
            end(&format!("the task \"{name}\" ended before its time"));
        }
    })
}

/// Runs a computation. Returns `None` if it panics, which is logged and ends nothing else.
pub fn contain<T>(compute: impl FnOnce() -> T) -> Option<T> {
    let outer = IS_CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(compute));
    IS_CONTAINED.set(outer);
    result.ok()
}

/// Installs a panic hook: every panic from now on ends the process with SIGABRT, unless it is contained.
pub fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let is_contained = IS_CONTAINED.try_with(Cell::get).unwrap_or(false);
        let task = NAME.try_with(|name| (*name).to_owned()).unwrap_or_else(|_| {
            let of_thread = if is_contained { "computation" } else { "unnamed" };
            std::thread::current().name().unwrap_or(of_thread).to_owned()
        });
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        let text = format!("the task \"{task}\" crashed at {place}: {message}");
        if is_contained {
            log_error(&text);
        } else {
            end(&text);
        }
    }));
}

/// Logs `reason` and ends the process. Waits briefly for standard error, which may have no reader.
pub fn end(reason: &str) -> ! {
    // Empties the queue first, so that the reason fits.
    log::flush(LAST_WORDS);
    log_error(&format!("{reason}; this is a fault of this program, which ends here"));
    log::flush(LAST_WORDS);
    std::process::abort()
}

fn log_error(text: &str) {
    // No subscriber: before logging starts, in commands, and in a panic within the subscriber itself.
    if tracing::enabled!(Level::ERROR) {
        tracing::error!("{text}");
    } else {
        log::line(&format!("music-streams: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output};

    /// Runs the test of that name in a process of its own.
    fn ends(test: &str) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            &format!("process::tasks::tests::{test}"),
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ]);
        command.output().unwrap()
    }

    async fn sleep_long() {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "ends its process; `a_panic_in_a_task_ends_the_process` runs it in another"]
    async fn panics_in_a_task() {
        end_on_panic();
        drop(spawn("sweep", async { panic!("no way out") }));
        sleep_long().await;
    }

    #[tokio::test]
    #[ignore = "ends its process; `a_panic_in_a_task_ends_the_process` runs it in another"]
    async fn panics_on_the_main_task() {
        end_on_panic();
        panic!("no way out");
    }

    #[test]
    fn a_panic_in_a_task_ends_the_process() {
        for (test, task) in
            [("panics_in_a_task", "\"sweep\""), ("panics_on_the_main_task", "tests::panics_on_the_main_task\"")]
        {
            let ended = ends(test);
            assert_eq!(ended.status.signal(), Some(6), "{test}: {}", ended.status);
            let said = String::from_utf8(ended.stderr).unwrap();
            assert!(said.contains(&format!("{task} crashed at src/process/tasks.rs:")), "{said}");
            assert!(said.contains(": no way out; this is a fault"), "{said}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "ends its process; `a_task_that_ends_before_its_time_ends_the_process` runs it in another"]
    async fn ends_before_its_time() {
        let shutdown = CancellationToken::new();
        drop(spawn_until(&shutdown, "receiver", async {}));
        sleep_long().await;
    }

    #[tokio::test]
    async fn a_task_that_ends_before_its_time_ends_the_process() {
        let ended = ends("ends_before_its_time");
        assert_eq!(ended.status.signal(), Some(6));
        assert!(String::from_utf8(ended.stderr).unwrap().contains("the task \"receiver\" ended before its time"));
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        spawn_until(&shutdown, "receiver", async {}).await.unwrap();
    }

    #[test]
    #[ignore = "sets the process's panic hook; `a_contained_panic_is_said_and_ends_nothing` runs it in another"]
    fn contains_a_panic() {
        end_on_panic();
        assert_eq!(contain(|| -> u8 { panic!("bad input") }), None);
        assert_eq!(contain(|| 7), Some(7));
        log::flush(Duration::from_secs(5));
    }

    #[test]
    fn a_contained_panic_is_said_and_ends_nothing() {
        let ended = ends("contains_a_panic");
        assert!(ended.status.success(), "{}", ended.status);
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(said.contains("bad input") && !said.contains("ends here"), "{said}");
        // What runs after it is not contained any more.
        assert!(!IS_CONTAINED.get());
    }
}

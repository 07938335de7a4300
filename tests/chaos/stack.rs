//! The processes of the local stack, which can be frozen and killed.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The processes of the stack: DynamoDB and the rest.
pub struct Stack {
    pids: Vec<String>,
    /// The command that starts the database.
    command: Vec<String>,
    database: Option<Child>,
}

impl Stack {
    pub fn new() -> Self {
        let pids = std::env::var("MUSIC_STREAMS_TEST_STACK_PIDS").expect("run this by `make chaos`");
        let pids: Vec<_> = pids.split(' ').map(str::to_owned).collect();
        let command = std::fs::read(format!("/proc/{}/cmdline", pids[0])).unwrap();
        let words = command.split(|&byte| byte == 0).filter(|word| !word.is_empty());
        let command = words.map(|word| String::from_utf8(word.to_vec()).unwrap()).collect();
        Stack { pids, command, database: None }
    }

    pub fn signal(&self, which: usize, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pids[which]]).status().unwrap().success());
    }

    pub async fn freeze(&self, which: usize, duration: Duration) {
        self.signal(which, "-STOP");
        tokio::time::sleep(duration).await;
        self.signal(which, "-CONT");
    }

    /// Kills the database and starts it again on what it had written.
    pub async fn restart_database(&mut self) {
        self.signal(0, "-KILL");
        if let Some(mut database) = self.database.take() {
            database.wait().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        for _ in 0..100 {
            let mut command = Command::new(&self.command[0]);
            command.args(&self.command[1..]).stdout(Stdio::null()).stderr(Stdio::null());
            let mut database = command.spawn().unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            // Somebody's connection may have the port for a moment.
            if database.try_wait().unwrap().is_none() {
                self.pids[0] = database.id().to_string();
                self.database = Some(database);
                return;
            }
        }
        panic!("the database does not start again");
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(database) = &mut self.database {
            let _ = database.kill();
            let _ = database.wait();
        }
    }
}

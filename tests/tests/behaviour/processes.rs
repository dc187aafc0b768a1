//! The programs as processes of their own, to be killed and stopped.

use std::process::{Child, Command, Stdio};

use crate::world::{Settings, eventually};

/// An API that runs. It dies with its test.
pub struct Process {
    child: Child,
    /// Where it serves.
    pub base: String,
}

impl Process {
    /// An API that answers.
    pub async fn api(settings: &Settings, more: &[&str]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("127.0.0.1:{port}");
        let mut arguments = settings.api_arguments(more);
        arguments.extend(["--listen".to_owned(), listen.clone()]);
        let mut command = program(API, &arguments[1..]);
        let child = command.spawn().expect("cargo builds the programs before these tests");
        let process = Self { child, base: format!("http://{listen}") };
        eventually("the API to be ready", || async {
            reqwest::get(format!("{}/readyz", process.base)).await.is_ok_and(|ready| ready.status() == 200)
        })
        .await;
        process
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The process stands still, and its connections stay.
    pub fn pause(&self) {
        signal(&self.child, "-STOP");
    }

    /// It goes on, and does not know that time has passed.
    pub fn resume(&self) {
        signal(&self.child, "-CONT");
    }
}

pub const API: &str = env!("CARGO_BIN_EXE_api-process");
pub const RECONCILER: &str = env!("CARGO_BIN_EXE_reconciler-process");

/// A program that prints only what is wrong, and is told all it needs by its arguments.
pub fn program(program: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).args(["--log", "error"]).stdout(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BOXOFFICE_")) {
        command.env_remove(name);
    }
    command
}

/// Sends a signal to a process of this test.
pub fn signal(process: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &process.id().to_string()]).status();
    assert!(sent.unwrap().success(), "{signal}");
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its test may have killed it already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

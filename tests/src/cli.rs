//! The command line, as a script would call it.

use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use crate::files;
use crate::host::Host;

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}{}", self.stdout, self.stderr))
    }
}

/// Runs `stead` against no host in particular.
pub async fn stead(arguments: &[&str]) -> Ended {
    run(Command::new(files::binary()).args(arguments)).await
}

impl Host {
    /// Runs `stead` against this host.
    pub async fn stead(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(files::binary());
        command
            .args(arguments)
            .env("STEAD_URL", self.services.base())
            .env("STEAD_ADMIN_URL", self.admin.base());
        run(&mut command).await
    }
}

/// Runs any command.
pub async fn run(command: &mut Command) -> Ended {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = output.await.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

//! A serving process, seen from its parent.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{report::Report, serve::Plan};

/// A child that serves. It does not outlive this handle.
pub struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts this program again, to serve.
    pub fn start(plan: &Plan) -> Result<Process> {
        let mut child = Command::new(env::current_exe()?)
            .args(["serve", &serde_json::to_string(plan)?])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the serving process")?;
        let output = BufReader::new(child.stdout.take().expect("stdout was piped"));
        Ok(Process { child, output })
    }

    /// Waits for the report.
    pub fn report(&mut self) -> Result<Report> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the serving process ended without a report");
        Ok(serde_json::from_str(&line)?)
    }

    /// Waits for a process that ends by itself.
    pub fn wait(mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "the serving process ended with {status}");
        Ok(())
    }

    /// Kills the process on the spot, by SIGKILL on Unix: nothing is flushed, nothing is closed.
    pub fn kill(mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "the serving process ended before it was killed");
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail for a child that has ended, and that is well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

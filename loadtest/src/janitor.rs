//! Cleans up after this process however it ends: mounts, loop devices, folders, child processes.
//!
//! A signal handler cannot do it (a panic, a kill -9 and the out-of-memory killer run none), so a
//! small shell of its own session waits on a pipe from us. When the pipe closes, for whatever
//! reason, it does what was told and not taken back, the last first.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Reads lines `ADD key command` and `DONE key`; at the end of input runs what is left. `tac`
/// reverses, and a command is tried a few times because a file system is busy for a moment after
/// its user was killed.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
list=$(mktemp) || exit 1
while read -r verb key command; do
  if [ "$verb" = DONE ]; then
    grep -v "^$key " "$list" > "$list.new"; mv "$list.new" "$list"
  else
    printf '%s %s\n' "$key" "$command" >> "$list"
  fi
done
tac "$list" | while read -r key command; do
  for try in 1 2 3 4 5 6 7 8 9 10; do
    sh -c "$command" </dev/null >/dev/null 2>&1 && break
    sleep 0.2
  done
done
rm -f "$list" "$list.new"
"#;

pub struct Janitor {
    child: Child,
    pipe: Option<ChildStdin>,
    next_key: u64,
}

/// A command that runs at the end unless it is taken back.
#[derive(Clone, Copy, Debug)]
pub struct Duty(u64);

impl Janitor {
    /// # Errors
    /// When no shell can be started.
    pub fn start() -> io::Result<Self> {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(SCRIPT)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of a Ctrl-C on the terminal.
            .process_group(0)
            .spawn()?;
        let pipe = child.stdin.take();
        Ok(Self {
            child,
            pipe,
            next_key: 0,
        })
    }

    /// Promises a shell command, on one line.
    ///
    /// # Errors
    /// When the shell is gone.
    pub fn promise(&mut self, command: &str) -> io::Result<Duty> {
        self.next_key += 1;
        self.tell(&format!("ADD k{} {command}\n", self.next_key))?;
        Ok(Duty(self.next_key))
    }

    /// # Errors
    /// When the shell is gone.
    pub fn take_back(&mut self, duty: Duty) -> io::Result<()> {
        self.tell(&format!("DONE k{} -\n", duty.0))
    }

    fn tell(&mut self, line: &str) -> io::Result<()> {
        match &mut self.pipe {
            Some(pipe) => pipe.write_all(line.as_bytes()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        // Close the pipe and wait until all is clean.
        self.pipe = None;
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_run_last_first_and_those_taken_back_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("said");
        let say = |what: &str| format!("echo {what} >> {}", file.display());
        let mut janitor = Janitor::start().unwrap();
        janitor.promise(&say("first")).unwrap();
        let duty = janitor.promise(&say("never")).unwrap();
        janitor.promise(&say("second")).unwrap();
        janitor.take_back(duty).unwrap();
        drop(janitor);
        assert_eq!(std::fs::read_to_string(file).unwrap(), "second\nfirst\n");
    }
}

//! Runs a program that must not outlive this process, however this process ends.
//!
//! A small shell stands between the two, in a process group of its own so that Ctrl-C in the terminal does
//! not reach it. It holds the reading end of a pipe whose only writing end is here. When this process ends,
//! even by SIGKILL, the pipe closes; the shell then interrupts the program, waits for it and removes the
//! temporary directory.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::user::{self, Account};

/// `$1` is the log, `$2` what to remove when the pipe closes (or nothing), the rest the program.
///
/// The reader is a process of its own because a shell can either read or wait. It interrupts again and again:
/// POSIX gives background programs of a script an ignored SIGINT, so one that comes before postgres has
/// installed its handler is lost. It does so itself, so that the program also ends when the shell was killed.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
closed=
trap 'closed=1' USR1
umask 077
log=$1 remove=$2
shift 2
exec 3<&0 </dev/null >>"$log" 2>&1 || exit 125
"$@" 3<&- &
program=$!
(
  read -r line <&3
  kill -USR1 $$
  while kill -INT "$program"; do kill -USR1 $$; sleep 0.1 || sleep 1; done
) 2>/dev/null &
reader=$!
exec 3<&- 2>/dev/null
while wait "$program"; status=$?; [ -n "$closed" ] && kill -0 "$program" 2>/dev/null; do :; done
kill -KILL "$reader" 2>/dev/null
if [ -n "$closed" ] && [ -n "$remove" ]; then rm -rf "$remove"; fi
exit "$status"
"#;

/// How often an ending is looked for.
const POLL: Duration = Duration::from_millis(10);

/// A limit for the ending of a program whose owner was dropped rather than stopped.
const DROP_LIMIT: Duration = Duration::from_secs(15);

/// A program under the watchdog. It holds nothing of an async runtime, so that it may outlive one.
#[derive(Debug)]
pub(super) struct Watched {
    shell: Child,
    /// The writing end of the pipe. Closed when this process ends, and never inherited by other children:
    /// the standard library marks its pipes close-on-exec.
    input: Option<ChildStdin>,
}

impl Watched {
    /// Starts the program with its output appended to the log.
    pub(super) fn spawn(
        program: &Path,
        arguments: &[OsString],
        variables: &[(&str, String)],
        log: &Path,
        remove: Option<&Path>,
        account: Option<&Account>,
    ) -> io::Result<Self> {
        let mut shell = user::command("/bin/sh", account)
            .args(["-c", SCRIPT, "tuneloop-watchdog"])
            .arg(log)
            .arg(remove.unwrap_or(Path::new("")))
            .arg(program)
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        // Taken out of the child: waiting on a child would close it.
        let input = shell.stdin.take();
        Ok(Self { shell, input })
    }

    /// The program's status once it has ended.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.shell.try_wait()
    }

    /// Waits for the program to end by itself.
    pub(super) async fn finished(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks the program to end and waits up to a limit; says whether it did.
    pub(super) async fn stop(&mut self, limit: Duration) -> io::Result<bool> {
        self.input = None;
        Ok(tokio::time::timeout(limit, self.finished()).await.is_ok_and(|status| status.is_ok()))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.input = None;
        let start = Instant::now();
        while matches!(self.ended(), Ok(None)) {
            if start.elapsed() > DROP_LIMIT {
                tracing::warn!("PostgreSQL is still stopping; its watchdog stays with it");
                return;
            }
            thread::sleep(POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Scene {
        dir: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        fn watch(&self, script: &str, remove: Option<&Path>) -> Watched {
            let arguments = ["-c".into(), script.into()];
            Watched::spawn(Path::new("/bin/sh"), &arguments, &[], &self.dir.path().join("log"), remove, None)
                .unwrap()
        }

        fn log(&self) -> String {
            fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
        }

        async fn log_has(&self, text: &str) {
            while !self.log().contains(text) {
                tokio::time::sleep(POLL).await;
            }
        }
    }

    /// Like postgres: installs its own handler of SIGINT, some time after it was started with it ignored.
    const INTERRUPTIBLE: &str = r#"exec perl -e '$| = 1; print "running\n"; select(undef, undef, undef, 0.3);
        $SIG{INT} = sub { print "interrupted\n"; exit 3 }; sleep 1 while 1'"#;

    #[tokio::test]
    async fn the_programs_end_and_words_are_passed_on() {
        let scene = Scene::new();
        let mut watched = scene.watch("echo out; echo err >&2; exit 7", None);
        assert_eq!(watched.finished().await.unwrap().code(), Some(7));
        assert_eq!(scene.log(), "out\nerr\n");
    }

    #[tokio::test]
    async fn a_directory_stays_when_the_program_ends_by_itself() {
        let scene = Scene::new();
        let kept = tempfile::tempdir().unwrap();
        scene.watch("exit 0", Some(kept.path())).finished().await.unwrap();
        assert!(kept.path().exists());
    }

    #[tokio::test]
    async fn closing_the_pipe_interrupts_the_program_and_removes_the_directory() {
        let scene = Scene::new();
        let removed = tempfile::tempdir().unwrap();
        let mut watched = scene.watch(INTERRUPTIBLE, Some(removed.path()));
        scene.log_has("running").await;
        assert!(watched.ended().unwrap().is_none());
        assert!(watched.stop(Duration::from_mins(1)).await.unwrap());
        assert_eq!(watched.ended().unwrap().and_then(|status| status.code()), Some(3));
        assert_eq!(scene.log(), "running\ninterrupted\n");
        assert!(!removed.path().exists());
    }

    #[tokio::test]
    async fn dropping_stops_too() {
        let scene = Scene::new();
        let watched = scene.watch(INTERRUPTIBLE, None);
        scene.log_has("running").await;
        drop(watched);
        assert_eq!(scene.log(), "running\ninterrupted\n");
    }
}

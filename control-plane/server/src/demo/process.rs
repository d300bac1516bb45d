//! Child processes that never outlive this one.
//!
//! INVARIANT: every process started here is gone when its [`ChildProcess`] is dropped, and, on Linux, when this process
//! ends in whatever way, `SIGKILL` included.

use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal};

/// A running child; dropping it kills it.
#[derive(Debug)]
pub struct ChildProcess {
    child: Child,
}

impl ChildProcess {
    /// Starts `command` with nothing on its standard input.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::null());
        detach_from_terminal_but_not_from_us(&mut command);
        Ok(Self { child: spawn_on_lasting_thread(command)? })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, or `None` while it runs.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end, waits up to `patience`, then kills it. Says how it ended.
    pub async fn stop(mut self, patience: Duration) -> Option<ExitStatus> {
        if self.exited().is_none() {
            // Failing to signal means that it is gone already.
            let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
        let deadline = tokio::time::Instant::now() + patience;
        while tokio::time::Instant::now() < deadline {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.kill()
    }

    fn kill(&mut self) -> Option<ExitStatus> {
        // A child that was waited for is never signalled: its id may belong to somebody else by now.
        if let Some(status) = self.exited() {
            return Some(status);
        }
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Puts the child into a process group of its own, so that Ctrl-C reaches only us and we end it in order, and has the
/// kernel kill it when we die first.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn detach_from_terminal_but_not_from_us(command: &mut Command) {
    use std::os::unix::process::CommandExt;

    command.process_group(0);
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec only these two system calls are made; they allocate nothing and take no lock.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // We may have died before the line above.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        });
    }
}

/// Without a parent death signal the child stays in our process group, so that Ctrl-C reaches it directly.
#[cfg(not(target_os = "linux"))]
fn detach_from_terminal_but_not_from_us(_command: &mut Command) {}

type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Linux sends the parent death signal when the *thread* that forked ends, and async runtimes and test harnesses end
/// threads. So one thread forks all children, and it lasts as long as the process.
fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: Mutex<Option<mpsc::Sender<Order>>> = Mutex::new(None);

    let (reply, answer) = mpsc::sync_channel(1);
    {
        let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
        let orders = match spawner.take() {
            Some(orders) => orders,
            None => {
                let (orders, queue) = mpsc::channel::<Order>();
                std::thread::Builder::new().name("child-spawner".into()).spawn(move || {
                    for (mut command, reply) in queue {
                        // The receiver waits for exactly this answer.
                        let _ = reply.send(command.spawn());
                    }
                })?;
                orders
            }
        };
        let sent = orders.send((command, reply));
        *spawner = Some(orders);
        sent.map_err(|_| io::Error::other("the thread that starts child processes has ended"))?;
    }
    answer.recv().map_err(|_| io::Error::other("the thread that starts child processes has ended"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> ChildProcess {
        let mut command = Command::new("sleep");
        // It must not hold the harness's output open should it be left behind.
        command.arg("600").stdout(Stdio::null()).stderr(Stdio::null());
        ChildProcess::spawn(command).unwrap()
    }

    fn alive(pid: u32) -> bool {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::test_kill_process(pid).is_ok()
    }

    #[test]
    fn a_child_is_gone_after_drop() {
        let child = sleeper();
        let pid = child.pid();
        assert!(alive(pid), "the child must run first");
        drop(child);
        assert!(!alive(pid), "pid {pid} still there");
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut child = std::thread::spawn(sleeper).join().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(child.exited(), None);
    }

    #[tokio::test]
    async fn stop_asks_first_and_tells_how_it_ended() {
        use std::os::unix::process::ExitStatusExt;
        let status = sleeper().stop(Duration::from_secs(5)).await.unwrap();
        assert_eq!(status.signal(), Some(15), "{status}");
    }

    #[tokio::test]
    async fn stop_kills_what_does_not_listen() {
        use std::os::unix::process::ExitStatusExt;
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; while :; do sleep 0.05; done"]);
        let child = ChildProcess::spawn(command).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let status = child.stop(Duration::from_millis(300)).await.unwrap();
        assert_eq!(status.signal(), Some(9), "{status}");
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error() {
        let error = ChildProcess::spawn(Command::new("/nonexistent/envoy")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    #[ignore = "the next test runs it as a process of its own, which it kills"]
    fn helper_that_starts_a_child_and_waits() {
        let Ok(path) = std::env::var("TIDEGATE_TEST_PID_FILE") else { return };
        let child = sleeper();
        std::fs::write(path, child.pid().to_string()).unwrap();
        std::thread::sleep(Duration::from_secs(60));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_child_dies_with_us_even_when_we_are_killed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let mut parent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored"])
            .arg(
                module_path!().split_once("::").unwrap().1.to_owned()
                    + "::helper_that_starts_a_child_and_waits",
            )
            .env("TIDEGATE_TEST_PID_FILE", &file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = (0..200)
            .find_map(|_| {
                std::thread::sleep(Duration::from_millis(50));
                std::fs::read_to_string(&file).ok()?.parse::<u32>().ok()
            })
            .expect("the helper writes its child's pid");
        assert!(alive(pid));
        parent.kill().unwrap();
        parent.wait().unwrap();
        // Orphaned to whoever reaps orphans here; a zombie counts as gone.
        let gone = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        });
        if !gone {
            let _ = rustix::process::kill_process(
                Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
                Signal::KILL,
            );
        }
        assert!(gone, "pid {pid} outlived its parent");
    }
}

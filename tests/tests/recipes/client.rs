//! A recipe in its own process, driven line by line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

/// The language of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Python,
    Java,
}

/// A process that has one token provider, for one audience, with a clock that can be moved.
#[derive(Debug)]
pub struct Client {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Where the recipes are.
pub fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/recipes")
}

/// Whether a program is there.
pub fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The compiled Java recipe and its driver.
fn classes(drivers: &Path) -> &'static Path {
    static CLASSES: OnceLock<PathBuf> = OnceLock::new();
    CLASSES.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recipe-classes");
        let source = recipes().join("beam-java/src/main/java/dev/tidegate/recipe/IdentityTokens.java");
        let compiled = Command::new("javac")
            .args(["--release", "11", "-Xlint:all,-options", "-Werror", "-d"])
            .arg(&folder)
            .args([source, drivers.join("Drive.java")])
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        folder
    })
}

// === impl Language ===

impl Language {
    /// Why nothing of this language can be run here, if so.
    pub fn missing(self) -> Option<&'static str> {
        let programs: &[&str] = match self {
            Self::Python => &["python3"],
            Self::Java => &["java", "javac"],
        };
        programs.iter().find(|program| !is_there(program)).copied()
    }
}

// === impl Client ===

impl Client {
    pub fn start(language: Language, metadata_server: SocketAddr, audience: &str) -> Self {
        let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes");
        let mut command = match language {
            Language::Python => {
                let mut command = Command::new("python3");
                command
                    .args(["-B", "-W", "error"])
                    .arg(drivers.join("drive.py"))
                    .env("PYTHONPATH", recipes().join("beam-python"));
                command
            }
            Language::Java => {
                let mut command = Command::new("java");
                command
                    // A proxy that nobody may ask, for addresses of this machine as well.
                    .args([
                        "-Dhttp.proxyHost=127.0.0.1",
                        "-Dhttp.proxyPort=1",
                        "-Dhttp.nonProxyHosts=",
                        "-cp",
                    ])
                    .arg(classes(&drivers))
                    .arg("dev.tidegate.recipe.Drive");
                command
            }
        };
        let mut process = command
            .arg(audience)
            .env("GCE_METADATA_HOST", metadata_server.to_string())
            .env("http_proxy", "http://127.0.0.1:1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    /// What the driver answers to a command.
    pub fn tell(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the driver ended at `{command}`");
        line.trim_end().to_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It has ended already if the test went well; there is nobody to tell otherwise.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

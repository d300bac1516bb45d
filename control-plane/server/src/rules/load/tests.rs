use super::*;

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

#[test]
fn yaml_files_are_found_however_deep_and_others_are_not() {
    let folder = folder(&[
        ("a.yaml", b"a"),
        ("team/b.yml", b"b"),
        ("team/deep/c.yaml", b"c"),
        ("README.md", b"no"),
        (".hidden.yaml", b"no"),
        (".git/x.yaml", b"no"),
        ("d.yaml~", b"no"),
    ]);
    let loaded = load(folder.path()).unwrap();
    let names: Vec<_> = loaded.files.keys().cloned().collect();
    assert_eq!(names, ["a.yaml", "team/b.yml", "team/deep/c.yaml"]);
    assert!(loaded.problems.is_empty());
}

#[cfg(unix)]
#[test]
fn a_kubernetes_volume_is_read_once_through_its_links() {
    let folder = folder(&[("..2026_01/a.yaml", b"first"), ("..2026_02/a.yaml", b"second")]);
    std::os::unix::fs::symlink("..2026_01", folder.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", folder.path().join("a.yaml")).unwrap();
    let loaded = load(folder.path()).unwrap();
    assert_eq!(loaded.files, Files::from([("a.yaml".to_owned(), "first".to_owned())]));
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_a_problem_and_not_an_absent_file() {
    let folder = folder(&[("a.yaml", b"a")]);
    std::os::unix::fs::symlink("nowhere.yaml", folder.path().join("b.yaml")).unwrap();
    let loaded = load(folder.path()).unwrap();
    assert_eq!((loaded.problems[0].file.as_str(), loaded.problems[0].code), ("b.yaml", "TG1001"));
}

#[test]
fn empty_files_and_files_that_are_not_utf8_are_problems() {
    let folder = folder(&[("a.yaml", b"ok"), ("b.yaml", b" \n"), ("c.yaml", b"x: \xff")]);
    let problems = load(folder.path()).unwrap().problems;
    let problems: Vec<_> = problems.iter().map(|problem| (problem.file.as_str(), problem.code)).collect();
    assert_eq!(problems, [("b.yaml", "TG1003"), ("c.yaml", "TG1002")]);
}

#[test]
fn a_missing_folder_and_a_folder_without_rules_are_errors() {
    let folder = folder(&[("README.md", b"no rules")]);
    assert!(matches!(load(folder.path()), Err(LoadError::NoRules { .. })));
    assert!(matches!(load(&folder.path().join("missing")), Err(LoadError::Folder { .. })));
}

#[test]
fn the_fingerprint_changes_with_the_files() {
    let folder = folder(&[("a.yaml", b"a")]);
    let before = fingerprint(folder.path(), std::iter::empty()).unwrap();
    assert_eq!(before, fingerprint(folder.path(), std::iter::empty()).unwrap());
    fs::write(folder.path().join("b.yaml"), "b").unwrap();
    assert_ne!(before, fingerprint(folder.path(), std::iter::empty()).unwrap());
}

#[test]
fn values_and_directories_must_have_their_shape() {
    let folder = folder(&[
        ("values.yaml", b"project: acme\n"),
        ("bad-values.yaml", b"- project\n"),
        ("jobs.json", br#"{"dataflow/acme/europe-west4/orders": ["1", "2"]}"#),
        ("bad-jobs.json", br#"{"dataflow/acme/europe-west4/orders": "1"}"#),
    ]);
    let path = |name: &str| folder.path().join(name);
    assert_eq!(load_environment(&path("values.yaml")).unwrap()["project"], "acme");
    assert!(load_environment(&path("bad-values.yaml")).is_err());
    assert_eq!(load_directory(&path("jobs.json")).unwrap()["dataflow/acme/europe-west4/orders"].len(), 2);
    assert!(load_directory(&path("bad-jobs.json")).is_err());
    assert!(load_directory(&path("missing.json")).is_err());
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_nowhere_is_an_error_and_not_a_deletion() {
    let folder = folder(&[("a.yaml", b"a"), (".rev1/deny.yaml", b"deny")]);
    std::os::unix::fs::symlink(".rev1", folder.path().join("security")).unwrap();
    assert_eq!(load(folder.path()).unwrap().files.len(), 2);
    fs::rename(folder.path().join(".rev1"), folder.path().join(".rev2")).unwrap();
    let error = load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("security"), "{error}");
}

/// Two versions, swapped as Kubernetes does: both have a Deny, in the first file or in the last. No reading lacks it.
#[cfg(unix)]
#[test]
fn a_folder_that_is_swapped_while_it_is_read_is_never_a_mixture() {
    // Enough files between the two that a swap often falls between reading them.
    let names: Vec<String> =
        ["a".to_owned(), "z".to_owned()].into_iter().chain((0..200).map(|i| format!("m{i:03}"))).collect();
    let folder = tempfile::tempdir().unwrap();
    for (version, deny) in [("..1", "z"), ("..2", "a")] {
        fs::create_dir(folder.path().join(version)).unwrap();
        for name in &names {
            let text = if name == deny { "deny" } else { "allow" };
            fs::write(folder.path().join(version).join(format!("{name}.yaml")), text).unwrap();
        }
    }
    let link = |target: &str| {
        std::os::unix::fs::symlink(target, folder.path().join("..new")).unwrap();
        fs::rename(folder.path().join("..new"), folder.path().join("..data")).unwrap();
    };
    link("..1");
    for name in &names {
        let target = format!("..data/{name}.yaml");
        std::os::unix::fs::symlink(target, folder.path().join(format!("{name}.yaml"))).unwrap();
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut read = 0;
    std::thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || {
            for version in ["..2", "..1"].into_iter().cycle() {
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                link(version);
                std::thread::sleep(Duration::from_millis(17));
            }
        });
        let readings: Vec<_> = (0..150).filter_map(|_| load(folder.path()).ok()).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        read = readings.len();
        for loaded in readings {
            assert!(loaded.files.values().any(|text| text == "deny"), "a mixture of two versions");
        }
    });
    assert!(read > 0, "every reading was given up");
}

use std::fs;
use std::path::PathBuf;

use SetName::{Accepted, Earlier};

use super::*;

struct Place {
    folder: tempfile::TempDir,
    store: RuleStore,
}

/// Files of many parts, with characters that JSON writes otherwise.
fn rules(files: usize, edit: &str) -> Arc<AcceptedRules> {
    let text = |at: usize| if at == 7 { format!("edited {edit}") } else { format!("kind: \"é\\{at}\"\n") };
    Arc::new(AcceptedRules {
        files: (0..files).map(|at| (format!("rules/{at:04}.yaml"), text(at))).collect(),
        environment: [("project".to_owned(), "acme".to_owned())].into(),
    })
}

fn open(folder: tempfile::TempDir) -> Result<Place, StateError> {
    let state = Arc::new(StateDir::open(folder.path())?);
    Ok(Place { store: RuleStore::open(state)?, folder })
}

fn place() -> Place {
    open(tempfile::tempdir().unwrap()).unwrap()
}

impl Place {
    fn write(&self, name: SetName, rules: &Arc<AcceptedRules>) {
        self.store.write(name, rules).unwrap();
        assert_eq!(self.read(name).as_ref(), Some(&**rules));
    }

    /// As another process does.
    fn read(&self, name: SetName) -> Option<AcceptedRules> {
        read(self.folder.path(), name).unwrap()
    }

    fn again(self) -> Self {
        let Self { folder, store } = self;
        drop(store);
        open(folder).unwrap()
    }

    fn pieces(&self) -> BTreeSet<String> {
        self.store.folder.names().unwrap().into_iter().collect()
    }

    fn path_of(&self, piece: &str) -> PathBuf {
        self.folder.path().join(FOLDER).join(piece)
    }

    fn index(&self, name: SetName) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.folder.path().join(name.to_string())).unwrap()).unwrap()
    }

    fn refusal(&self) -> String {
        let error = read(self.folder.path(), Accepted).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{error}");
        error.to_string()
    }
}

#[test]
fn an_edit_writes_one_piece_and_an_index_and_removes_what_nobody_needs() {
    let place = place();
    assert_eq!(place.read(Accepted), None);
    place.write(Accepted, &rules(1000, "once"));
    let before = place.pieces();
    assert!(before.len() > 100, "{}", before.len());
    place.write(Accepted, &rules(1000, "twice"));
    let after = place.pieces();
    assert_eq!((before.difference(&after).count(), after.difference(&before).count()), (1, 1));
    // Files come, go and move; values change.
    place.write(Accepted, &rules(1001, "twice"));
    place.write(Accepted, &rules(3, ""));
    assert!(place.pieces().len() <= 3);
    let mut other = AcceptedRules::clone(&rules(3, ""));
    other.environment.clear();
    place.write(Accepted, &Arc::new(other.clone()));
    let text = other.files.remove("rules/0001.yaml").unwrap();
    other.files.insert("moved.yaml".to_owned(), text);
    place.write(Accepted, &Arc::new(other));
    place.write(Accepted, &Arc::default());
    assert_eq!(place.pieces(), BTreeSet::new());
}

#[test]
fn a_set_that_is_kept_twice_takes_the_room_of_one_until_both_are_gone() {
    let place = place();
    place.write(Accepted, &rules(300, "a"));
    let pieces = place.pieces();
    place.write(Earlier(1), &rules(300, "a"));
    assert_eq!(place.pieces(), pieces);
    place.write(Accepted, &rules(300, "b"));
    assert_eq!(place.pieces().len(), pieces.len() + 1);
    let place = place.again();
    assert_eq!(place.read(Earlier(1)).as_ref(), Some(&*rules(300, "a")));
    place.store.remove(Earlier(1)).unwrap();
    place.store.remove(Earlier(1)).unwrap();
    assert_eq!(place.read(Earlier(1)), None);
    assert_eq!(place.pieces().len(), pieces.len());
    assert_eq!(place.read(Accepted).as_ref(), Some(&*rules(300, "b")));
}

#[test]
fn pieces_that_were_removed_are_written_again() {
    let place = place();
    place.write(Accepted, &rules(300, "b"));
    place.write(Earlier(1), &rules(300, "a"));
    // What was written last is not on disk any more.
    place.store.remove(Earlier(1)).unwrap();
    place.write(Earlier(2), &rules(300, "a"));
    place.write(Accepted, &rules(300, "a"));
}

#[test]
fn after_a_crash_there_is_the_old_set_or_the_new_one() {
    let place = place();
    place.write(Accepted, &rules(300, "old"));
    let old = place.pieces();
    let old_index = fs::read(place.folder.path().join("accepted.json")).unwrap();
    // In the middle of a piece, behind a piece, in the middle of the index.
    fs::write(place.path_of(".0123.new"), "{\"rules").unwrap();
    fs::write(place.path_of(&"ab".repeat(32)), "{}").unwrap();
    fs::write(place.folder.path().join(".accepted.json.new"), "{\"format\": 2, ").unwrap();
    let place = place.again();
    assert_eq!(place.read(Accepted).as_ref(), Some(&*rules(300, "old")));
    place.write(Accepted, &rules(300, "old"));
    assert_eq!(place.pieces(), old, "what nobody names is removed");
    // Behind the index: what only the old one named is still there.
    place.write(Earlier(1), &rules(300, "old"));
    place.write(Accepted, &rules(300, "new"));
    let new = place.pieces();
    fs::remove_file(place.folder.path().join("rules-1.json")).unwrap();
    let place = place.again();
    assert_eq!(place.pieces(), new);
    assert_eq!(place.read(Accepted).as_ref(), Some(&*rules(300, "new")));
    place.write(Accepted, &rules(300, "new"));
    assert_eq!(place.pieces().len(), old.len());
    // Before the index: the new pieces are there, and the old index.
    let place = place.again();
    place.write(Earlier(1), &rules(300, "old"));
    fs::write(place.folder.path().join("accepted.json"), old_index).unwrap();
    assert_eq!(place.again().read(Accepted).as_ref(), Some(&*rules(300, "old")));
}

#[test]
fn a_piece_that_is_missing_torn_or_changed_is_an_error_and_no_smaller_set() {
    let place = place();
    place.write(Accepted, &rules(300, "a"));
    let pieces = place.pieces();
    let piece = pieces.first().unwrap();
    let path = place.path_of(piece);
    let whole = fs::read(&path).unwrap();
    for (content, said) in [
        (&whole[..whole.len() / 2], "is not what was written"),
        (&b"{}"[..], "is not what was written"),
        (&b""[..], "is not what was written"),
    ] {
        fs::write(&path, content).unwrap();
        let refusal = place.refusal();
        assert!(refusal.contains("accepted.json") && refusal.contains(piece.as_str()), "{refusal}");
        assert!(refusal.contains(said), "{refusal}");
    }
    fs::remove_file(&path).unwrap();
    let refusal = place.refusal();
    assert!(refusal.contains(piece.as_str()) && refusal.contains("is missing"), "{refusal}");
    assert!(matches!(place.store.read(Accepted), Err(StateError::Damaged { .. })));
}

#[test]
fn whoever_starts_anew_gets_rid_of_damage_that_an_earlier_set_has_too() {
    let place = place();
    place.write(Earlier(1), &rules(300, "a"));
    place.write(Accepted, &rules(300, "a"));
    let pieces = place.pieces();
    let mut pieces = pieces.iter();
    fs::write(place.path_of(pieces.next().unwrap()), "{}").unwrap();
    fs::remove_file(place.path_of(pieces.next().unwrap())).unwrap();
    place.refusal();
    fs::remove_file(place.folder.path().join("accepted.json")).unwrap();
    let place = place.again();
    place.write(Accepted, &rules(300, "a"));
    assert_eq!(place.read(Earlier(1)).as_ref(), Some(&*rules(300, "a")));
}

#[test]
fn an_index_that_is_not_one_is_an_error() {
    let place = place();
    place.write(Accepted, &rules(300, "a"));
    let good = place.index(Accepted);
    let mut shifted = good.clone();
    let pieces = shifted["pieces"].as_object_mut().unwrap();
    let (first, piece) = pieces.iter().next().map(|(part, piece)| (part.clone(), piece.clone())).unwrap();
    pieces.remove(&first);
    pieces.insert("127000".to_owned(), piece);
    let mut outside = good.clone();
    outside["pieces"]["0"] = "../signing-key.p8".into();
    let mut newer = good.clone();
    newer["format"] = 3.into();
    let mut both = good.clone();
    both["files"] = serde_json::json!({"a.yaml": "x"});
    let mut neither = good.clone();
    neither.as_object_mut().unwrap().remove("pieces");
    let mut unknown = good.clone();
    unknown["more"] = 1.into();
    for (index, said) in [
        (shifted, "files of another part"),
        (outside, "a name that no piece has"),
        (newer, "format 3"),
        (both, "neither"),
        (neither, "neither"),
        (unknown, "unknown field"),
        ("{".into(), "expected"),
    ] {
        fs::write(place.folder.path().join("accepted.json"), index.to_string()).unwrap();
        let refusal = place.refusal();
        assert!(refusal.contains(said), "{said}: {refusal}");
    }
    let Place { folder, store } = place;
    drop(store);
    assert!(matches!(open(folder), Err(StateError::Damaged { .. })), "the program does not start");
}

#[test]
fn what_an_earlier_version_wrote_is_read_and_brought_into_this_form() {
    let folder = tempfile::tempdir().unwrap();
    let old = |rules: &AcceptedRules| {
        serde_json::json!({"files": rules.files, "environment": rules.environment}).to_string()
    };
    fs::write(folder.path().join("accepted.json"), old(&rules(300, "a"))).unwrap();
    fs::write(folder.path().join("rules-4.json"), old(&rules(300, "b"))).unwrap();
    assert_eq!(read(folder.path(), Accepted).unwrap().as_ref(), Some(&*rules(300, "a")));
    let place = open(folder).unwrap();
    assert_eq!(place.index(Accepted)["format"], 2);
    assert_eq!(place.read(Accepted).as_ref(), Some(&*rules(300, "a")));
    assert_eq!(place.read(Earlier(4)).as_ref(), Some(&*rules(300, "b")));
    let place = place.again();
    assert_eq!(place.store.read(Accepted).unwrap(), Some(rules(300, "a")));
    place.store.remove(Earlier(4)).unwrap();
}

#[test]
fn nothing_is_removed_while_an_earlier_set_cannot_be_read() {
    let place = place();
    place.write(Earlier(1), &rules(300, "a"));
    let pieces = place.pieces();
    let path = place.folder.path().join("rules-1.json");
    let index = fs::read(&path).unwrap();
    fs::write(&path, "{").unwrap();
    let place = place.again();
    place.write(Accepted, &rules(300, "b"));
    fs::write(&path, index).unwrap();
    assert!(place.pieces().is_superset(&pieces));
    assert_eq!(place.read(Earlier(1)).as_ref(), Some(&*rules(300, "a")));
}

#[test]
fn whoever_reads_while_sets_are_replaced_sees_one_of_them() {
    let place = place();
    place.write(Accepted, &rules(300, "0"));
    let path = place.folder.path().to_owned();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for edit in 1..40 {
                place.store.write(Accepted, &rules(300, &edit.to_string())).unwrap();
            }
        });
        while !writer.is_finished() {
            let seen = read(&path, Accepted).unwrap().unwrap();
            assert_eq!(seen, *rules(300, seen.files["rules/0007.yaml"].trim_start_matches("edited ")));
        }
    });
}

#[test]
fn names_of_sets_are_those_of_their_files() {
    for name in [Accepted, Earlier(0), Earlier(17), Earlier(u64::MAX)] {
        assert_eq!(SetName::of_file(&name.to_string()), Some(name));
    }
    for file in
        ["", "rules-.json", "rules-01.json", "rules-+1.json", "rules-1", "history.json", ".accepted.json.new"]
    {
        assert_eq!(SetName::of_file(file), None, "{file}");
    }
    // Part of the format.
    assert_eq!([part(""), part("a.yaml"), part("rules/000001.yaml")], [37, 101, 115]);
}

#[test]
fn a_write_that_fails_leaves_the_old_set_whole() {
    let place = place();
    place.write(Accepted, &rules(300, "old"));
    // The index cannot be written: what it is written beside is a folder.
    let staged = place.folder.path().join(".accepted.json.new");
    fs::create_dir_all(staged.join("in the way")).unwrap();
    assert!(matches!(place.store.write(Accepted, &rules(300, "new")), Err(StateError::Io { .. })));
    place.write(Earlier(1), &rules(3, "other"));
    assert_eq!(place.read(Accepted).as_ref(), Some(&*rules(300, "old")));
    // Neither can a piece.
    fs::remove_dir_all(&staged).unwrap();
    let pieces = place.folder.path().join(FOLDER);
    fs::rename(&pieces, place.folder.path().join("elsewhere")).unwrap();
    fs::write(&pieces, "no folder").unwrap();
    assert!(matches!(place.store.write(Accepted, &rules(300, "newer")), Err(StateError::Io { .. })));
    fs::remove_file(&pieces).unwrap();
    fs::rename(place.folder.path().join("elsewhere"), &pieces).unwrap();
    let place = place.again();
    assert_eq!(place.read(Accepted).as_ref(), Some(&*rules(300, "old")));
    place.write(Accepted, &rules(300, "newer"));
}

use std::fs;

use super::*;
use crate::decisions::filter;
use crate::decisions::queue::{Queue, Room};
use crate::decisions::record::{GapCause, Outcome, Recorded};
use crate::decisions::testing::recorded;

const ROOM: Room = Room { ordinary: 1 << 30, reserve: 1 << 20 };

struct Place {
    folder: tempfile::TempDir,
    limits: Limits,
}

/// A store with its keeper on a thread.
struct Running {
    store: Arc<Store>,
    queue: Arc<Queue>,
    keeper: std::thread::JoinHandle<()>,
}

impl Place {
    fn new(limits: Limits) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), limits }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("decisions")
    }

    fn start(&self) -> Running {
        let store = Arc::new(Store::open(&self.path(), self.limits, DecisionMetrics::default()).unwrap());
        let queue = Arc::new(Queue::new(ROOM));
        let keeper = Keeper::new(store.clone(), queue.clone());
        let keeper = std::thread::spawn(move || keeper.run());
        Running { store, queue, keeper }
    }

    fn files(&self) -> Vec<PathBuf> {
        files(&self.path()).unwrap()
    }

    fn damaged(&self) -> usize {
        let names = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|extension| extension == DAMAGED)).count()
    }
}

impl Running {
    fn push(&self, entries: impl IntoIterator<Item = Entry>) {
        self.queue.push(entries.into_iter().map(|entry| (entry, true)));
    }

    /// Ends when everything is written.
    fn stop(self) -> Arc<Store> {
        self.queue.close();
        self.keeper.join().unwrap();
        self.store
    }

    fn settled(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.store.is_catching_up() {
            assert!(Instant::now() < until, "files from before are still not read");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn entry(number: usize) -> Entry {
    let outcome = if number.is_multiple_of(10) { Outcome::Deny } else { Outcome::Allow };
    let at = Moment::now().0 - 60_000_000 + i64::try_from(number).unwrap();
    Entry::Decision(Arc::new(recorded(&id(number), outcome, at)))
}

fn id(number: usize) -> String {
    format!("AAAA-{:04}-{:04}", number / 10_000, number % 10_000)
}

fn ids(found: &Found) -> Vec<String> {
    let id = |(_, entry): &(u64, Entry)| match entry {
        Entry::Decision(recorded) => recorded.id.clone(),
        Entry::Gap(gap) => format!("{:?}", gap.cause),
    };
    found.entries.iter().map(id).collect()
}

fn by_id(number: usize) -> Filter {
    Filter { id: Some(id(number)), ..Filter::default() }
}

fn all(store: &Store) -> Vec<String> {
    ids(&store.find(&Filter::default(), u64::MAX, 1_000_000))
}

#[test]
fn what_is_written_is_found_the_latest_first_and_page_by_page() {
    let place = Place::new(Limits::default());
    let running = place.start();
    running.push((0..1_000).map(entry));
    let store = running.stop();
    assert_eq!(ids(&store.find(&by_id(321), u64::MAX, 10)), [id(321)]);
    assert!(store.find(&by_id(1_000), u64::MAX, 10).entries.is_empty());
    let denied = Filter { denied: true, ..Filter::default() };
    let (mut before, mut seen) = (u64::MAX, Vec::new());
    loop {
        let found = store.find(&denied, before, 7);
        seen.extend(ids(&found));
        match found.more {
            Some(more) => before = more,
            None => break,
        }
    }
    let expected: Vec<String> = (0..100).rev().map(|number| id(number * 10)).collect();
    assert_eq!(seen, expected);
    assert_eq!(store.metrics.stored.get(), 1_000);
}

#[test]
fn a_restart_keeps_everything_and_goes_on_in_the_same_file() {
    let place = Place::new(Limits::default());
    for round in 0..3 {
        let running = place.start();
        running.push((round * 300..round * 300 + 300).map(entry));
        running.stop();
    }
    assert_eq!(place.files().len(), 1);
    let running = place.start();
    running.push([entry(900)]);
    let store = running.stop();
    let expected: Vec<String> = (0..=900).rev().map(id).collect();
    assert_eq!(all(&store), expected);
}

#[test]
fn two_processes_do_not_share_a_store() {
    let place = Place::new(Limits::default());
    let running = place.start();
    let second = Store::open(&place.path(), place.limits, DecisionMetrics::default());
    assert!(matches!(second, Err(StateError::InUse { .. })), "{second:?}");
    running.stop();
}

#[cfg(unix)]
#[test]
fn folder_and_files_are_for_their_owner_only_even_if_the_folder_was_not() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new(Limits::default());
    fs::create_dir(place.path()).unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let running = place.start();
    running.push([entry(1)]);
    running.stop();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.path()), 0o700);
    for file in place.files() {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

/// Damages the only file with `damage`, and looks at what becomes of it.
fn damaged(mut damage: impl FnMut(&mut Vec<u8>)) {
    let place = Place::new(Limits::default());
    let running = place.start();
    running.push((0..2_000).map(entry));
    running.stop();
    let [file] = place.files().try_into().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    damage(&mut bytes);
    fs::write(&file, bytes).unwrap();

    let running = place.start();
    running.settled();
    running.push((5_000..5_010).map(entry));
    let store = running.stop();
    // Either nothing of it is lost, or the whole file is set aside and that is told.
    let found = all(&store);
    if place.damaged() == 1 {
        assert!(found.contains(&format!("{:?}", GapCause::StoreDamaged)), "{found:?}");
        assert_eq!(found.len(), 11, "{found:?}");
        assert_eq!(store.metrics.store_errors.get_or_create(&ReasonLabel::new("damaged")).get(), 1);
    } else {
        assert_eq!(found.len(), 2_010);
    }
    for number in 5_000..5_010 {
        assert_eq!(ids(&store.find(&by_id(number), u64::MAX, 5)), [id(number)]);
    }
}

#[test]
fn a_file_that_is_cut_off_is_set_aside_and_serving_goes_on() {
    for part in [0, 1, 2, 3, 7] {
        damaged(|bytes| bytes.truncate(bytes.len() * part / 8));
    }
}

#[test]
fn a_file_with_flipped_bytes_is_set_aside_or_whole_and_serving_goes_on() {
    // The same positions every time: the header, and some all over the file.
    damaged(|bytes| bytes.iter_mut().take(64).for_each(|byte| *byte ^= 0xff));
    let mut state = 1_u64;
    for _ in 0..12 {
        damaged(|bytes| {
            for _ in 0..40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = usize::try_from(state >> 33).unwrap() % bytes.len();
                bytes[at] ^= 1 << (state % 8);
            }
        });
    }
}

#[test]
fn a_foreign_file_is_set_aside() {
    damaged(|bytes| *bytes = b"this is no database\n".repeat(100));
    damaged(Vec::clear);
}

#[test]
fn the_store_stays_within_its_size_and_forgets_the_oldest() {
    let place = Place::new(Limits { max_size: MIN_SIZE, ..Limits::default() });
    let running = place.start();
    let mut last = 0;
    for round in 0..30 {
        let noise = |number: usize| {
            let Entry::Decision(one) = entry(number) else { panic!() };
            let mut one = Recorded::clone(&one);
            // Not to be compressed.
            one.path = (0..40)
                .map(|part| {
                    crate::bundle::hex(&crate::bundle::sha256(
                        &[number.to_le_bytes(), usize::to_le_bytes(part)].concat(),
                    ))
                })
                .collect();
            Entry::Decision(Arc::new(one))
        };
        running.push((round * 400..round * 400 + 400).map(noise));
        last = round * 400 + 399;
        while running.store.metrics.stored.get() < (last as u64 + 1) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let bytes: u64 = place.files().iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(bytes <= MIN_SIZE, "{bytes} bytes in round {round}");
    }
    let store = running.stop();
    assert!(store.find(&by_id(0), u64::MAX, 1).entries.is_empty(), "the oldest is forgotten");
    assert_eq!(store.find(&by_id(last), u64::MAX, 1).entries.len(), 1);
    assert!(all(&store).len() > 1_000);
}

#[test]
fn nothing_is_kept_for_longer_than_was_said() {
    let place = Place::new(Limits { max_age: Duration::from_secs(2), ..Limits::default() });
    let running = place.start();
    running.push([Entry::Decision(Arc::new(recorded("AAAA-0000-0000", Outcome::Deny, Moment::now().0)))]);
    running.stop();
    let running = place.start();
    running.settled();
    let first = all(&running.store);
    running.stop();
    std::thread::sleep(Duration::from_millis(2_100));
    let running = place.start();
    running.settled();
    let store = running.stop();
    assert_eq!(all(&store), Vec::<String>::new());
    assert!(first.len() <= 1);
    assert!(place.files().is_empty(), "{:?}", place.files());
}

#[test]
fn terms_are_kept_once_per_block() {
    let folder = tempfile::tempdir().unwrap();
    let segment = Segment::create(&folder.path().join("1.redb"), Moment(1)).unwrap();
    let entries: Vec<Entry> = (0..600).map(entry).collect();
    segment.append(7, &entries).unwrap();
    assert_eq!(segment.next_number().unwrap(), Some(607));
    let index = segment.index();
    let workload = Filter { workload: Some("sales/orders".into()), ..Filter::default() };
    assert_eq!(workload.terms().iter().map(|term| index[term]).collect::<Vec<_>>(), [3]);
    assert_eq!(segment.blocks(&workload.terms(), u64::MAX).unwrap(), [519, 263, 7]);
    assert_eq!(segment.blocks(&workload.terms(), 263).unwrap(), [7]);
    assert!(!index.contains_key(&filter::gap_term()));
}

use std::fs;

use super::*;
use crate::decisions::filter;
use crate::decisions::queue::{Queue, Queued, Room};
use crate::decisions::record::{Audit, GapCause, Outcome, Recorded};
use crate::decisions::slip::Slip;
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
        self.queue.push(entries.into_iter().map(Queued::from));
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
            let outcome = if number.is_multiple_of(10) { Outcome::Deny } else { Outcome::Allow };
            noise("sales/orders", number, outcome)
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

/// A record of a workload that cannot be compressed.
fn noise(workload: &str, number: usize, outcome: Outcome) -> Entry {
    let Entry::Decision(one) = entry(number) else { panic!() };
    let mut one = Recorded::clone(&one);
    (one.workload, one.outcome) = (workload.to_owned(), outcome);
    let part = |part: usize| {
        crate::bundle::hex(&crate::bundle::sha256(&[number.to_le_bytes(), part.to_le_bytes()].concat()))
    };
    one.path = (0..40).map(part).collect();
    Entry::Decision(Arc::new(one))
}

/// A pod refuses as much as the store holds several times over; what others refused stays, in order, each once.
#[test]
fn a_flood_of_refusals_of_one_workload_does_not_push_out_those_of_others() {
    let place = Place::new(Limits { max_size: MIN_SIZE, ..Limits::default() });
    let running = place.start();
    let mut quiet = Vec::new();
    let mut written = 0;
    for round in 0..40 {
        let at = |offset: usize| round * 1_000 + offset;
        if round < 20 {
            quiet.push(id(at(900)));
            quiet.push(id(at(901)));
            running.push([
                noise("sales/quiet", at(900), Outcome::Deny),
                noise("sales/calm", at(901), Outcome::Deny),
            ]);
            running.push([noise("sales/quiet", at(902), Outcome::Allow)]);
            written += 3;
        }
        running.push((0..400).map(|offset| noise("sales/loud", at(offset), Outcome::Deny)));
        written += 400;
        while running.store.metrics.stored.get() < written {
            std::thread::sleep(Duration::from_millis(5));
        }
        let bytes: u64 = place.files().iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(bytes <= MIN_SIZE, "{bytes} bytes in round {round}");
    }
    let store = running.stop();
    let of = |workload: &str, denied: bool| {
        let filter = Filter { workload: Some(workload.into()), denied, ..Filter::default() };
        ids(&store.find(&filter, u64::MAX, 100_000))
    };
    let loud = of("sales/loud", true);
    assert!(!loud.contains(&id(0)) && loud.len() > 1_000, "the oldest of who writes most is forgotten");
    let mut kept: Vec<String> = of("sales/quiet", true);
    assert!(kept.is_sorted_by(|later, earlier| later > earlier), "{kept:?}");
    kept.extend(of("sales/calm", true));
    kept.sort();
    assert_eq!(kept, quiet, "every one, and each once");
    assert_eq!(of("sales/quiet", false).len(), 20, "what was allowed is not precious");
    assert_eq!(ids(&store.find(&by_id(900), u64::MAX, 5)), [id(900)]);
    // All of it is there after a restart.
    drop(store);
    let running = place.start();
    running.settled();
    let store = running.stop();
    let filter = Filter { workload: Some("sales/calm".into()), ..Filter::default() };
    assert_eq!(store.find(&filter, u64::MAX, 100_000).entries.len(), 20);
}

/// Anybody can be refused by a workload as often as the store holds several times over; what its rules require to be recorded
/// stays, and what was refused before is told to be missing, each once.
#[test]
fn a_flood_of_refusals_does_not_push_out_what_is_required_of_the_same_workload() {
    let place = Place::new(Limits { max_size: MIN_SIZE, ..Limits::default() });
    let running = place.start();
    let (mut kept, mut refused) = (Vec::new(), 0);
    let gaps =
        |running: &Running| running.store.metrics.gaps.get_or_create(&ReasonLabel::new("store_full")).get();
    for round in 0..40 {
        let at = |offset: usize| round * 1_000 + offset;
        if round < 20 {
            kept.push(id(at(900)));
            let Entry::Decision(mut one) = noise("sales/loud", at(900), Outcome::Allow) else { panic!() };
            Arc::make_mut(&mut one).audit = Audit::Required;
            let (slip, _written) = Slip::new();
            running.queue.push([Queued { entry: Entry::Decision(one), ticket: Some(slip.ticket(0)) }]);
        }
        running.push((0..400).map(|offset| noise("sales/loud", at(offset), Outcome::Deny)));
        refused += 400;
        let written = refused + kept.len() as u64;
        // What is missing is told at once, not with what comes next.
        let begin = Instant::now();
        while running.store.metrics.stored.get() < written + gaps(&running) {
            assert!(begin.elapsed() < Duration::from_secs(60), "in round {round}");
            std::thread::sleep(Duration::from_millis(5));
        }
        let bytes: u64 = place.files().iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(bytes <= MIN_SIZE, "{bytes} bytes in round {round}");
    }
    let told = gaps(&running);
    assert!(told > 2, "{told}");
    let store = running.stop();
    let found = store.find(&Filter::default(), u64::MAX, 1_000_000);
    let (mut required, mut left, mut lost) = (Vec::new(), 0, 0);
    for (_, entry) in found.entries.iter().rev() {
        match entry {
            Entry::Decision(one) if one.audit == Audit::Required => required.push(one.id.clone()),
            Entry::Decision(_) => left += 1,
            Entry::Gap(gap) => {
                assert_eq!((gap.cause, gap.workload.as_str()), (GapCause::StoreFull, "sales/loud"));
                assert_eq!(gap.lost, Some(gap.lost_in_full));
                lost += gap.lost_in_full;
            }
        }
    }
    assert_eq!(required, kept, "every one, in order, and each once");
    assert!(left < refused, "{left}");
    assert_eq!(left + lost, refused, "what is gone is told");
}

/// Of who has more than its share the latest moves, and what others require is whole. What it refused has room of its own.
#[test]
fn a_flood_of_what_is_required_does_not_push_out_that_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let segment = |name: &str| Arc::new(Segment::create(&folder.path().join(name), Moment(1)).unwrap());
    let (from, to) = (segment("1.redb"), segment("2.redb"));
    let required = |workload: &str, number: usize| {
        let Entry::Decision(mut one) = noise(workload, number, Outcome::Allow) else { panic!() };
        Arc::make_mut(&mut one).audit = Audit::Required;
        Entry::Decision(one)
    };
    let loud = (0..90).map(|number| required("sales/loud", number));
    let quiet = (90..100).map(|number| required("sales/quiet", number));
    let entries: Vec<Entry> = loud.chain(quiet).chain([noise("sales/loud", 100, Outcome::Deny)]).collect();
    from.append(0, &entries).unwrap();
    let room = entries[60..100].iter().map(|entry| entry.weight() as u64).sum();
    let mut carry = carry::Carry::begin(from, to.clone(), room, Moment(0)).unwrap();
    assert!(carry.step().unwrap());
    let moved = to.blocks(&Default::default(), &Default::default(), u64::MAX).unwrap();
    let moved = moved.iter().flat_map(|number| to.block(*number, Moment(0), Moment(i64::MAX)).unwrap());
    let moved: Vec<Entry> = moved.map(|(_, entry)| entry).collect();
    assert!(moved.iter().eq(&entries[60..]), "{}", moved.len());
    let told: Vec<_> = carry.lost().into_iter().collect();
    assert_eq!(told, [("sales/loud".to_owned(), 60), ("sales/quiet".to_owned(), 0)]);
}

#[test]
fn what_was_moved_is_removed_when_it_is_too_old() {
    let folder = tempfile::tempdir().unwrap();
    let segment = |name: &str| Arc::new(Segment::create(&folder.path().join(name), Moment(1)).unwrap());
    let (from, to) = (segment("1.redb"), segment("2.redb"));
    let old: Vec<Entry> = (0..10).map(|number| noise("sales/quiet", number, Outcome::Deny)).collect();
    let loud: Vec<Entry> = (10..40).map(|number| noise("sales/loud", number, Outcome::Deny)).collect();
    from.append(0, &old).unwrap();
    from.append(10, &loud).unwrap();
    let now = noise("sales/quiet", 100, Outcome::Deny);
    let later = Moment(now.time().0 + 1_000_000);
    let mut new = Recorded::clone(match &now {
        Entry::Decision(recorded) => recorded,
        Entry::Gap(_) => panic!(),
    });
    new.time = later;
    to.append(40, &[Entry::Decision(Arc::new(new))]).unwrap();
    let mut carry = carry::Carry::begin(from.clone(), to.clone(), 1 << 20, Moment(0)).unwrap();
    assert!(carry.step().unwrap());
    let count = |segment: &Segment| {
        let blocks = segment.blocks(&Default::default(), &Default::default(), u64::MAX).unwrap();
        let of = |number: &u64| segment.block(*number, Moment(0), Moment(i64::MAX)).unwrap().len();
        blocks.iter().map(of).sum::<usize>()
    };
    assert_eq!((count(&from), count(&to)), (0, 11));
    to.expire(Moment(0)).unwrap();
    assert_eq!(count(&to), 11);
    to.expire(later).unwrap();
    assert_eq!((count(&to), to.next_number().unwrap()), (1, Some(41)));
    let left: Vec<u64> = to.tallies().unwrap().iter().map(|(_, tally)| tally.count).collect();
    assert_eq!(left, [1], "it is not counted any more");
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

#[tokio::test]
async fn while_nothing_can_be_written_what_is_required_is_not_acknowledged_and_the_rest_is_told() {
    let place = Place::new(Limits::default());
    let running = place.start();
    // Where the first file would be.
    fs::create_dir(place.path().join("000000000001.redb")).unwrap();
    let required = || {
        let mut one = recorded("BBBB-0000-0001", Outcome::Allow, Moment::now().0);
        one.audit = Audit::Required;
        let (slip, written) = Slip::new();
        let ticket = Some(slip.ticket(3));
        running.queue.push([Queued { entry: Entry::Decision(Arc::new(one)), ticket }]);
        written
    };
    let lost = |reason| running.store.metrics.lost.get_or_create(&ReasonLabel::new(reason)).get();
    for round in 1..=2 {
        running.push([entry(0), entry(1), entry(2)]);
        assert_eq!(required().unwritten().await, [3]);
        while lost("other") < 2 * round {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!((lost("other"), lost("in_full")), (4, 2));
    fs::remove_dir(place.path().join("000000000001.redb")).unwrap();
    assert_eq!(required().unwritten().await, [0; 0]);
    let store = running.stop();
    let found = store.find(&Filter::default(), u64::MAX, 100);
    let gaps: Vec<_> = found
        .entries
        .iter()
        .filter_map(|(_, entry)| match entry {
            Entry::Gap(gap) => Some((gap.cause, gap.workload.as_str(), gap.lost, gap.lost_in_full)),
            Entry::Decision(_) => None,
        })
        .collect();
    assert_eq!(gaps, [(GapCause::ControlPlaneDropped, "sales/orders", Some(6), 2)]);
    assert_eq!(found.entries.len(), 2, "{found:?}");
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
    let blocks =
        |filter: &Filter, before| segment.blocks(&filter.terms(), &filter.rare_terms(), before).unwrap();
    assert_eq!(blocks(&workload, u64::MAX), [519, 263, 7]);
    assert_eq!(blocks(&workload, 263), [7]);
    assert_eq!([blocks(&by_id(300), u64::MAX), blocks(&by_id(599), u64::MAX)], [[263], [519]]);
    assert!(blocks(&by_id(600), u64::MAX).is_empty() && blocks(&by_id(599), 519).is_empty());
    let ids = by_id(300).terms();
    assert!(ids.iter().all(|id| !index.contains_key(id)), "as many keys as there are entries");
    assert!(!index.contains_key(&filter::gap_term()));
}

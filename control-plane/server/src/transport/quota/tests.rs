use super::*;

const OPTIONS: QuotaOptions = QuotaOptions {
    connections: 2,
    all_connections: 4,
    streams: 2,
    messages_per_second: 4,
    bytes_per_second: 1_000,
    records_per_second: 100,
};

fn peer(name: &str) -> VerifiedPeer {
    format!("spiffe://td/ns/a/sa/{name}").parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn streams_are_counted_per_principal() {
    let quotas = Quotas::new(OPTIONS);
    let one = quotas.open(&peer("one")).unwrap();
    let _two = quotas.open(&peer("one")).unwrap();
    assert_eq!(quotas.open(&peer("one")).unwrap_err(), Exceeded::Streams);
    assert!(quotas.open(&peer("two")).is_ok(), "another principal has its own");
    drop(one);
    assert!(quotas.open(&peer("one")).is_ok());
}

#[tokio::test(start_paused = true)]
async fn connections_are_counted_per_principal_and_altogether() {
    let quotas = Quotas::new(OPTIONS);
    let connect = |name: &str| quotas.connect(Some(&peer(name)));
    let one = connect("one").unwrap();
    let _two = connect("one").unwrap();
    assert_eq!(connect("one").unwrap_err(), Exceeded::Connections);
    let shared = quotas.connect(None).unwrap();
    let _other = connect("two").unwrap();
    assert_eq!(connect("three").unwrap_err(), Exceeded::AllConnections);
    assert_eq!(quotas.connect(None).unwrap_err(), Exceeded::AllConnections);
    drop(one);
    // What was refused was not counted.
    let one = connect("three").unwrap();
    drop((one, shared));
    assert!(connect("one").is_ok() && connect("three").is_ok());
}

#[tokio::test(start_paused = true)]
async fn unfinished_messages_are_bounded_per_principal_and_leave_one_message_to_everybody() {
    let options = QuotaOptions { streams: 1_000, ..OPTIONS };
    let quotas = Quotas::new(options);
    let begin = |name: &str| {
        let mut unfinished = quotas.open(&peer(name)).unwrap().unfinished();
        unfinished.hold(MAX_MESSAGE).map(|()| unfinished)
    };
    let mut open = Vec::new();
    for principal in 0..100 {
        for _ in 0..100 {
            open.extend(begin(&principal.to_string()));
        }
    }
    let held = quotas.shared.unfinished.load(Ordering::Acquire);
    assert_eq!(held, open.len() * MAX_MESSAGE);
    // Those who came when everything was taken have one message each.
    assert!((ALL_UNFINISHED..=ALL_UNFINISHED + 100 * ALWAYS_UNFINISHED).contains(&held), "{held}");
    assert_eq!(begin("0").unwrap_err(), Exceeded::Unfinished);
    let mut last = begin("last").unwrap();
    assert_eq!(last.hold(MAX_MESSAGE + 1), Err(Exceeded::Unfinished));
    drop((open, last));
    assert_eq!(quotas.shared.unfinished.load(Ordering::Acquire), 0);
    let many: Vec<_> = (0..100).map_while(|_| begin("0").ok()).collect();
    assert_eq!(many.len(), UNFINISHED / MAX_MESSAGE, "one principal alone");
}

#[test]
fn the_worst_case_is_what_the_documentation_says() {
    let (one, all) = QuotaOptions::default().worst_case();
    assert_eq!((one >> 20, all >> 20), (228, 1_824));
    let text = include_str!("../quota.rs");
    for figure in [one >> 20, all >> 20] {
        let told = match figure {
            figure if figure >= 1_000 => format!("**{} {:03} MiB**", figure / 1_000, figure % 1_000),
            figure => format!("**{figure} MiB**"),
        };
        assert!(text.contains(&told), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn openings_are_metered() {
    let quotas = Quotas::new(OPTIONS);
    let opened = (0..100).filter(|_| quotas.open(&peer("one")).is_ok()).count();
    assert_eq!(opened, 4);
    assert_eq!(quotas.open(&peer("one")).unwrap_err(), Exceeded::Openings);
    tokio::time::advance(Duration::from_secs(15)).await;
    assert!(quotas.open(&peer("one")).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_talks_too_much_leaves_something_to_the_others() {
    let quotas = Quotas::new(OPTIONS);
    let mut loud = quotas.open(&peer("one")).unwrap();
    let mut quiet = quotas.open(&peer("one")).unwrap();
    let passed = (0..100).filter(|_| loud.message(1).is_ok()).count();
    assert_eq!(passed, 10);
    assert_eq!(loud.message(1), Err(Exceeded::StreamMessages));
    assert_eq!(quiet.message(1), Ok(()));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(loud.message(1), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn bytes_are_metered_over_all_streams() {
    let quotas = Quotas::new(OPTIONS);
    let (mut one, mut two) = (quotas.open(&peer("one")).unwrap(), quotas.open(&peer("one")).unwrap());
    assert_eq!(one.message(3_000), Ok(()));
    assert_eq!(two.message(2_000), Err(Exceeded::Bytes));
    assert_eq!(two.message(1_000), Ok(()));
    let mut other = quotas.open(&peer("two")).unwrap();
    assert_eq!(other.message(4_000), Ok(()));
    assert_eq!(other.message(usize::MAX), Err(Exceeded::Bytes));
}

#[tokio::test(start_paused = true)]
async fn coming_back_does_not_refill_anything_and_those_long_gone_are_forgotten() {
    let quotas = Quotas::new(OPTIONS);
    for number in 0..MAX_REMEMBERED * 2 {
        drop(quotas.open(&peer(&format!("n{number}"))).unwrap());
    }
    assert!(quotas.accounts.lock().unwrap().len() >= MAX_REMEMBERED, "recent ones are kept");
    tokio::time::advance(REMEMBERED).await;
    drop(quotas.open(&peer("last")).unwrap());
    assert_eq!(quotas.accounts.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn records_are_paid_for_one_by_one_and_who_has_none_left_waits() {
    let quotas = Quotas::new(QuotaOptions { bytes_per_second: 1 << 20, streams: 100, ..OPTIONS });
    let loud = quotas.open(&peer("one")).unwrap();
    let second = Duration::from_secs(1);
    assert_eq!(loud.batch(192, 400), Ok(Duration::ZERO), "two seconds at once");
    assert_eq!(loud.batch(92, 400), Ok(second));
    assert_eq!(loud.batch(0, 2), Ok(second + Duration::from_millis(80)), "an empty batch costs something");
    let other = quotas.open(&peer("two")).unwrap();
    assert_eq!(other.batch(192, 400), Ok(Duration::ZERO), "another principal has its own");
    let sibling = quotas.open(&peer("one")).unwrap();
    assert_eq!(sibling.batch(12, 400), Ok(second + Duration::from_millis(280)), "in turn");
    tokio::time::advance(5 * second).await;
    assert_eq!(sibling.batch(192, 400), Ok(Duration::ZERO));
    tokio::time::advance(60 * second).await;
    let waits = sibling.batch(1, 3 << 20).unwrap();
    assert!(waits.abs_diff(second) < Duration::from_millis(10), "bytes count as well: {waits:?}");
    // What is said otherwise has meters of its own.
    assert_eq!(quotas.open(&peer("one")).unwrap().message(1_000), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_never_refused_and_who_pays_and_does_not_wait_is() {
    let quotas = Quotas::new(QuotaOptions { streams: 1_000, bytes_per_second: 1 << 20, ..OPTIONS });
    let open = || quotas.open(&peer("one")).unwrap();
    // As many as there are turns, and each sends the most that it may.
    for _ in 0..TURNS {
        assert!(open().batch(MAX_RECORDS, MAX_MESSAGE).is_ok());
    }
    let refused = (0..1_000).find_map(|_| open().batch(MAX_RECORDS, MAX_MESSAGE).err());
    assert_eq!(refused, Some(Exceeded::Records));
    let waits = open().batch(0, 0).unwrap();
    assert!(waits < Duration::from_secs(1_200), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_batches_are_read_at_once() {
    let quotas = Quotas::new(QuotaOptions { streams: 1_000, ..OPTIONS });
    let mut turns = Vec::new();
    for _ in 0..TURNS {
        turns.push(quotas.open(&peer("one")).unwrap().turn().await.unwrap());
    }
    let next = quotas.open(&peer("one")).unwrap();
    let other = quotas.open(&peer("two")).unwrap();
    let waits =
        |pass: StreamPass| async move { tokio::time::timeout(Duration::from_secs(1), pass.turn()).await };
    assert!(waits(other).await.is_ok());
    assert!(waits(next).await.is_err());
    turns.pop();
    assert!(waits(quotas.open(&peer("one")).unwrap()).await.is_ok());
}

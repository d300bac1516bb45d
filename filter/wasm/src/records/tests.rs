use super::*;

fn record(id: usize) -> Vec<u8> {
    let id = format!("{id:08}");
    pb::DecisionRecord { decision_id: id, path: "/x".repeat(100), ..Default::default() }.encode_to_vec()
}

/// As the filter does it: whether it was kept.
fn offer(records: &mut Records, id: usize, class: Class) -> bool {
    let has_room = records.has_room(class);
    if has_room {
        records.push(record(id), class)
    } else {
        records.drop_one(class)
    }
    has_room
}

fn vm() -> pb::VmId {
    pb::VmId { instance: "orders-1".into(), generation: 7 }
}

fn next(records: &mut Records) -> Option<pb::ReportRequest> {
    let who = || pb::WorkloadHint { workload: "sales/orders-api".into(), instance: "orders-1".into() };
    let message = records.batch(&vm(), who)?;
    assert!(message.len() <= 64 << 10, "{}", message.len());
    Some(pb::ReportRequest::decode(message.as_slice()).unwrap())
}

fn ids(batch: &pb::ReportRequest) -> Vec<usize> {
    batch.records.iter().map(|record| record.decision_id.parse().unwrap()).collect()
}

fn acknowledge(records: &mut Records, sequence: u64) {
    records.acknowledged(&pb::ReportResponse { sequence }.encode_to_vec());
}

#[test]
fn nothing_is_opened_or_said_where_there_is_nothing_to_say() {
    let mut records = Records::default();
    assert!(!records.is_due(u64::MAX));
    records.opened(1);
    assert!(next(&mut records).is_none());
    let mut records = Records::default();
    records.want();
    assert!(records.is_due(0));
}

#[test]
fn records_go_out_in_order_and_say_once_whose_they_are() {
    let mut records = Records::default();
    for id in 0..3 {
        records.push(record(id), Class::Full);
    }
    assert!(records.is_due(0));
    assert!(next(&mut records).is_none(), "no stream yet");
    records.opened(1);
    let first = next(&mut records).unwrap();
    assert_eq!((first.sequence, ids(&first)), (1, vec![0, 1, 2]));
    assert_eq!(first.workload.unwrap().workload, "sales/orders-api");
    assert_eq!(first.vm, Some(vm()));
    records.push(record(3), Class::Full);
    let second = next(&mut records).unwrap();
    assert_eq!((second.sequence, ids(&second), second.workload), (2, vec![3], None));
}

#[test]
fn what_was_not_acknowledged_is_sent_again_in_order_and_what_was_is_not() {
    let mut records = Records::default();
    records.opened(1);
    for id in 0..4 {
        records.push(record(id), Class::Full);
        records.skip();
        assert!(next(&mut records).is_some());
    }
    acknowledge(&mut records, 2);
    records.push(record(4), Class::Full);
    records.closed(1_000, 0);
    assert_eq!(records.token(), None);
    assert!(!records.is_due(1_000));
    assert!(records.is_due(20_000));
    records.opened(2);
    let again = next(&mut records).unwrap();
    assert_eq!((again.sequence, ids(&again), again.unsampled), (1, vec![2, 3, 4], 2));
    acknowledge(&mut records, 1);
    assert!(next(&mut records).is_none());
    assert_eq!(records.bytes, 0);
}

#[test]
fn nobody_takes_them_and_they_stay_bounded_and_are_counted() {
    let mut records = Records::default();
    let mut kept = 0;
    while offer(&mut records, kept, Class::Sample) {
        kept += 1;
    }
    let samples = kept;
    assert!(records.bytes <= MAX_BYTES / 2 + 300);
    while offer(&mut records, kept, Class::Full) {
        kept += 1;
    }
    assert!(kept > samples, "refusals have room that samples have not");
    assert!(!offer(&mut records, kept, Class::Full));
    let others = kept;
    assert!(records.bytes <= MAX_BYTES / 4 * 3 + 300);
    while records.has_room(Class::Required) {
        offer(&mut records, kept, Class::Required);
        kept += 1;
    }
    assert!(kept - others > 500, "what is required has room that nothing else has");
    assert!(records.bytes <= MAX_BYTES + 300);
    records.opened(1);
    assert!(!records.can_take());
    let mut seen = Vec::new();
    let (mut dropped, mut in_full) = (0, 0);
    while let Some(batch) = next(&mut records) {
        seen.extend(ids(&batch));
        dropped += batch.dropped;
        in_full += batch.dropped_in_full;
        assert!(records.sent.len() <= WINDOW);
        acknowledge(&mut records, batch.sequence);
    }
    assert_eq!(seen, (others..kept).chain(0..others).collect::<Vec<_>>(), "what is required goes first");
    assert_eq!((dropped, in_full), (3, 2));
    assert!(records.can_take());
}

#[test]
fn counts_of_what_was_not_sampled_wait_for_a_record_or_until_they_are_asked_for() {
    let mut records = Records::default();
    records.opened(1);
    records.skip();
    assert!(next(&mut records).is_none());
    records.tell_counts();
    assert_eq!(next(&mut records).unwrap().unsampled, 1);
    records.tell_counts();
    assert!(next(&mut records).is_none());
    records.skip();
    records.push(record(0), Class::Full);
    assert_eq!(next(&mut records).unwrap().unsampled, 1);
}

#[test]
fn only_so_many_batches_are_on_their_way() {
    let mut records = Records::default();
    records.opened(1);
    for id in 0..2_000 {
        records.push(record(id), Class::Full);
    }
    assert!(records.is_pressing());
    for _ in 0..WINDOW {
        assert!(next(&mut records).is_some());
    }
    assert!(next(&mut records).is_none());
    assert!(!records.is_pressing());
    acknowledge(&mut records, 1);
    assert!(next(&mut records).is_some());
    records.acknowledged(b"\xff\xff");
    assert!(next(&mut records).is_none());
}

#[test]
fn what_is_required_goes_before_what_waits_already_and_comes_back_to_its_place() {
    let mut records = Records::default();
    records.opened(1);
    records.push(record(0), Class::Full);
    records.push(record(1), Class::Required);
    records.push(record(2), Class::Sample);
    records.push(record(3), Class::Required);
    assert_eq!(ids(&next(&mut records).unwrap()), [1, 3, 0, 2]);
    records.push(record(4), Class::Required);
    records.push(record(5), Class::Full);
    records.closed(0, 0);
    records.opened(2);
    assert_eq!(ids(&next(&mut records).unwrap()), [1, 3, 4, 0, 2, 5]);
    acknowledge(&mut records, 1);
    assert_eq!(records.bytes, 0);
}

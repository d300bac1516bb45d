use super::*;

fn record(id: usize) -> Vec<u8> {
    let id = format!("{id:08}");
    pb::DecisionRecord { decision_id: id, path: "/x".repeat(100), ..Default::default() }.encode_to_vec()
}

/// As the filter does it: whether it was kept.
fn offer(records: &mut Records, id: usize, in_full: bool) -> bool {
    let has_room = records.has_room(in_full);
    if has_room {
        records.push(record(id))
    } else {
        records.drop_one(in_full)
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
        records.push(record(id));
    }
    assert!(records.is_due(0));
    assert!(next(&mut records).is_none(), "no stream yet");
    records.opened(1);
    let first = next(&mut records).unwrap();
    assert_eq!((first.sequence, ids(&first)), (1, vec![0, 1, 2]));
    assert_eq!(first.workload.unwrap().workload, "sales/orders-api");
    assert_eq!(first.vm, Some(vm()));
    records.push(record(3));
    let second = next(&mut records).unwrap();
    assert_eq!((second.sequence, ids(&second), second.workload), (2, vec![3], None));
}

#[test]
fn what_was_not_acknowledged_is_sent_again_in_order_and_what_was_is_not() {
    let mut records = Records::default();
    records.opened(1);
    for id in 0..4 {
        records.push(record(id));
        records.skip();
        assert!(next(&mut records).is_some());
    }
    acknowledge(&mut records, 2);
    records.push(record(4));
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
    while offer(&mut records, kept, false) {
        kept += 1;
    }
    let samples = kept;
    assert!(records.bytes <= MAX_BYTES / 2 + 300);
    while offer(&mut records, kept, true) {
        kept += 1;
    }
    assert!(kept > samples, "refusals have room that samples have not");
    assert!(!offer(&mut records, kept, true));
    assert!(records.bytes <= MAX_BYTES + 300);
    assert!(!records.can_take());
    records.opened(1);
    let mut seen = Vec::new();
    let (mut dropped, mut in_full) = (0, 0);
    while let Some(batch) = next(&mut records) {
        seen.extend(ids(&batch));
        dropped += batch.dropped;
        in_full += batch.dropped_in_full;
        assert!(records.sent.len() <= WINDOW);
        acknowledge(&mut records, batch.sequence);
    }
    assert_eq!(seen, (0..kept).collect::<Vec<_>>());
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
    records.push(record(0));
    assert_eq!(next(&mut records).unwrap().unsampled, 1);
}

#[test]
fn only_so_many_batches_are_on_their_way() {
    let mut records = Records::default();
    records.opened(1);
    for id in 0..2_000 {
        records.push(record(id));
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

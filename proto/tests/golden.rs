//! Golden wire files: what was once sent must always be read the same. Files are only ever added.
//!
//! `TIDEGATE_BLESS=1 cargo test -p tidegate-proto --test golden` writes files that are not there yet; it never changes
//! one that is.

use std::path::PathBuf;

use prost::Message;
use tidegate_proto::v1::{subscribe_request as up, subscribe_response as down, *};

/// Compares a message with its golden file, both ways.
fn golden<M: Message + Default + PartialEq>(name: &str, message: &M) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !path.exists() && std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&path, message.encode_to_vec()).unwrap();
    }
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(M::decode(bytes.as_slice()).unwrap() == *message, "{name} is read differently");
    assert!(message.encode_to_vec() == bytes, "{name} is written differently");
}

fn manifest() -> Manifest {
    Manifest {
        format_version: 1,
        audience: "sales/orders-api".into(),
        revision: Some(Revision { epoch: 3, counter: 418 }),
        coverage: Coverage::Guarded.into(),
        sections: vec![
            SectionRef { kind: SectionKind::Rules.into(), sha256: vec![1; 32], size: 2048 },
            SectionRef { kind: SectionKind::Keys.into(), sha256: vec![2; 32], size: 4096 },
            SectionRef { kind: SectionKind::Directory.into(), sha256: vec![3; 32], size: 64 },
        ],
        issued_at: 1_795_200_000,
        not_after: 1_795_286_400,
        required_capabilities: vec!["rules/1".into()],
        used_capabilities: vec![],
        candidate: vec![],
        suspended_until: 0,
    }
}

fn signed() -> SignedManifest {
    SignedManifest {
        manifest: manifest().encode_to_vec(),
        signatures: vec![Signature { key_id: "k1".into(), signature: vec![7; 64] }],
    }
}

fn vm() -> VmId {
    VmId { instance: "orders-api-7d9f".into(), generation: 0x0123_4567_89AB_CDEF }
}

#[test]
fn manifests_keep_their_form() {
    golden("manifest.bin", &manifest());
    golden(
        "manifest_with_capabilities.bin",
        &Manifest { used_capabilities: vec![tidegate_proto::BODIES.into()], ..manifest() },
    );
    golden("manifest_suspended.bin", &Manifest { suspended_until: 1_795_201_800, ..manifest() });
    golden(
        "manifest_with_candidate.bin",
        &Manifest {
            candidate: vec![
                SectionRef { kind: SectionKind::Rules.into(), sha256: vec![4; 32], size: 1024 },
                SectionRef { kind: SectionKind::Keys.into(), sha256: vec![2; 32], size: 4096 },
            ],
            ..manifest()
        },
    );
    golden(
        "bundle.bin",
        &Bundle {
            manifest: Some(signed()),
            sections: vec![Section { kind: SectionKind::Rules.into(), content: b"rules".to_vec() }],
        },
    );
}

#[test]
fn what_filters_send_keeps_its_form() {
    let request = |message| SubscribeRequest { message: Some(message) };
    golden(
        "hello.bin",
        &request(up::Message::Hello(Hello {
            protocol_version: 1,
            filter_version: "0.1.0".into(),
            capabilities: vec!["rules/1".into(), "directory/1".into()],
            workload: Some(WorkloadHint {
                workload: "sales/orders-api".into(),
                instance: "orders-api-7d9f".into(),
            }),
            vm: Some(vm()),
            held_sections: vec![vec![1; 32]],
            enforced_manifest: vec![9; 32],
        })),
    );
    golden("ack.bin", &request(up::Message::Ack(Ack { nonce: 4, manifest_sha256: vec![9; 32] })));
    golden(
        "nack.bin",
        &request(up::Message::Nack(Nack {
            nonce: 4,
            reason: NackReason::StaleRevision.into(),
            detail: "older".into(),
        })),
    );
    golden(
        "receipt.bin",
        &request(up::Message::Receipt(Receipt {
            vm: Some(vm()),
            state: FilterState::Ready.into(),
            manifest_sha256: vec![9; 32],
            revision: Some(Revision { epoch: 3, counter: 418 }),
            filter_version: "0.1.0".into(),
            now: 1_795_200_000,
            counters: Some(Counters {
                allowed: 1,
                denied: 2,
                shadow_differences: 3,
                signature_checks_host: 4,
                signature_checks_fallback: 5,
                token_cache_hits: 6,
                nacks: 7,
                ..Counters::default()
            }),
            issuers: vec![],
        })),
    );
    golden(
        "receipt_with_candidate.bin",
        &request(up::Message::Receipt(Receipt {
            vm: Some(vm()),
            state: FilterState::Ready.into(),
            counters: Some(Counters {
                candidate_compared: 13,
                candidate_would_allow: 14,
                candidate_would_deny: 15,
                candidate_unknown: 16,
                ..Counters::default()
            }),
            ..Receipt::default()
        })),
    );
    golden(
        "receipt_with_issuers.bin",
        &request(up::Message::Receipt(Receipt {
            vm: Some(vm()),
            state: FilterState::Ready.into(),
            counters: Some(Counters {
                allowed: 1,
                degraded: 8,
                leases_ended: 9,
                over_budget: 10,
                lookups: 11,
                held: 12,
                ..Counters::default()
            }),
            issuers: vec![
                IssuerUse {
                    issuer: "gitlab".into(),
                    verified: 4,
                    refused: 1,
                    last_verified_at: 1_795_200_000,
                    ..IssuerUse::default()
                },
                IssuerUse { issuer: "google".into(), ..IssuerUse::default() },
            ],
            ..Receipt::default()
        })),
    );
    golden(
        "receipt_with_key_ages.bin",
        &request(up::Message::Receipt(Receipt {
            vm: Some(vm()),
            state: FilterState::Ready.into(),
            counters: Some(Counters { allowed: 1, suspended: 13, ..Counters::default() }),
            issuers: vec![IssuerUse {
                issuer: "gitlab".into(),
                keys_valid_until: 1_795_372_800,
                ..IssuerUse::default()
            }],
            ..Receipt::default()
        })),
    );
    golden(
        "uses.bin",
        &request(up::Message::Uses(Uses {
            rules: vec![RuleUse { rule: "sales/read".into(), count: 3, last_used_at: 1_795_200_000 }],
            keys: vec![KeyUse {
                issuer: "gitlab".into(),
                key_id: "2026-11".into(),
                verified: 2,
                last_verified_at: 1_795_200_001,
            }],
        })),
    );
    golden(
        "lookup.bin",
        &request(up::Message::Lookup(Lookup {
            nonce: 5,
            directory: "dataflow/acme/europe-west4/orders-etl".into(),
            id: "4570000000000000001".into(),
        })),
    );
    golden(
        "key_lookup.bin",
        &request(up::Message::KeyLookup(KeyLookup {
            nonce: 6,
            issuer: "gitlab".into(),
            key_id: "2026-11".into(),
        })),
    );
}

#[test]
fn what_the_control_plane_sends_keeps_its_form() {
    let response = |message| SubscribeResponse { message: Some(message) };
    golden(
        "push.bin",
        &response(down::Message::Push(Push { nonce: 4, manifest: Some(signed()), chunk_bytes: 5 })),
    );
    golden(
        "chunk.bin",
        &response(down::Message::Chunk(SectionChunk {
            sha256: vec![1; 32],
            offset: 0,
            content: b"rules".to_vec().into(),
        })),
    );
    golden(
        "lookup_result.bin",
        &response(down::Message::LookupResult(LookupResult { nonce: 5, listed: true })),
    );
}

#[test]
fn decision_records_keep_their_form() {
    golden(
        "report.bin",
        &ReportRequest {
            sequence: 1,
            vm: Some(vm()),
            records: vec![DecisionRecord {
                decision_id: "7Q4K-M2XD-0001".into(),
                time_ns: 1_795_200_000_000_000_000,
                outcome: Outcome::Deny.into(),
                reason: "no_allow_matched".into(),
                rule: String::new(),
                peer: "spiffe://prod.example/ns/etl/sa/orders-worker".into(),
                issuers: vec!["gitlab".into()],
                method: "POST".into(),
                host: "orders.sales.example".into(),
                path: "/v1/orders/7".into(),
                revision: Some(Revision { epoch: 3, counter: 418 }),
                manifest_sha256: vec![9; 32],
                shadow: Some(ShadowDifference {
                    outcome: Outcome::Allow.into(),
                    reason: "allowed_by_rule".into(),
                    rule: "sales/next".into(),
                }),
                ..DecisionRecord::default()
            }],
            dropped: 2,
            ..ReportRequest::default()
        },
    );
    golden(
        "report_in_full.bin",
        &ReportRequest {
            sequence: 1,
            vm: Some(vm()),
            records: vec![DecisionRecord {
                decision_id: "7Q4K-M2XD-0002".into(),
                time_ns: 1_795_200_000_000_000_000,
                outcome: Outcome::Allow.into(),
                reason: "allowed_by_rule".into(),
                rule: "sales/orders-etl".into(),
                degraded: true,
                claims: vec![RecordedClaim {
                    issuer: "gitlab".into(),
                    claim: "pipeline_id".into(),
                    values: vec!["99".into()],
                }],
                trace_id: vec![0x4B; 16],
                span_id: vec![0xF0; 8],
                decided_in_ns: 14_000,
                stands_for: 100,
                ended: true,
                port: 8080,
                candidate: Some(ShadowDifference {
                    outcome: Outcome::Deny.into(),
                    reason: "no_allow_matched".into(),
                    rule: String::new(),
                }),
                ..DecisionRecord::default()
            }],
            dropped: 2,
            dropped_in_full: 1,
            unsampled: 99,
            workload: Some(WorkloadHint {
                workload: "sales/orders-api".into(),
                instance: "orders-api-7d9f".into(),
            }),
        },
    );
}

#[test]
fn how_completely_something_is_recorded_keeps_its_form() {
    let record = |audit: Audit| DecisionRecord {
        decision_id: "7Q4K-M2XD-0003".into(),
        outcome: Outcome::Allow.into(),
        audit: audit.into(),
        ..DecisionRecord::default()
    };
    let records = [Audit::Unspecified, Audit::Sampled, Audit::Full, Audit::Required].map(record);
    golden(
        "report_with_audit.bin",
        &ReportRequest { sequence: 2, records: records.into(), ..ReportRequest::default() },
    );
}

/// Replicas of two versions speak with each other while one takes the place of the other.
#[test]
fn what_replicas_tell_each_other_keeps_its_form() {
    use tidegate_proto::v1::{follow_request as told, follow_response as sent};
    let up = |message| FollowRequest { message: Some(message) };
    let answer = |message| FollowResponse { message: Some(message) };
    let follower = Follower {
        protocol_version: 1,
        replica: "tidegate-7d9f_0a1b2c3d".into(),
        held_sections: vec![vec![1; 32], vec![2; 32]],
        highest_epoch: 0,
    };
    golden("follower.bin", &up(told::Message::Follower(follower.clone())));
    let later = Follower { highest_epoch: 1_795_200_000, ..follower };
    golden("follower_with_epoch.bin", &up(told::Message::Follower(later)));
    let report = FilterReport {
        workload: "sales/orders-api".into(),
        vm: Some(vm()),
        stream: 7,
        gone: false,
        heard_s_ago: 12,
        filter_version: "0.1.0".into(),
        capabilities: vec![tidegate_proto::BODIES.into()],
        state: FilterState::Ready.into(),
        enforced_manifest: vec![3; 32],
        revision: Some(Revision { epoch: 3, counter: 418 }),
        refusal: Some(RelayedRefusal {
            revision: Some(Revision { epoch: 3, counter: 419 }),
            reason: "expired".into(),
            detail: "not_after is over".into(),
            s_ago: 4,
        }),
        counters: Some(Counters { allowed: 5, denied: 6, ..Counters::default() }),
        issuers: vec![IssuerUse { issuer: "gitlab".into(), verified: 9, ..IssuerUse::default() }],
    };
    let gone = FilterReport { vm: Some(vm()), gone: true, ..FilterReport::default() };
    golden("filter_reports.bin", &up(told::Message::Filters(FilterReports { reports: vec![report, gone] })));
    let lookup = Lookup { nonce: 0, directory: "jobs".into(), id: "4570".into() };
    let question = RelayedQuestion {
        nonce: 8,
        workload: "sales/orders-api".into(),
        question: Some(relayed_question::Question::Lookup(lookup)),
    };
    golden("relayed_question.bin", &up(told::Message::Question(question)));
    let records =
        RelayedRecords { nonce: 9, workload: "sales/orders-api".into(), after: 6, batch: vec![1, 2, 3] };
    golden("relayed_records.bin", &up(told::Message::Records(records)));
    let member = |service_account: &str| Member {
        workload: "sales/orders-api".into(),
        service_account: service_account.into(),
    };
    let members =
        Members { trust_domain: "prod.example".into(), members: vec![member("orders"), member("")] };
    let round = Round { gone: vec!["sales/old".into()], members: Some(members) };
    golden("round.bin", &answer(sent::Message::Round(round)));
    golden("round_release.bin", &answer(sent::Message::Release(signed())));
    golden("round_end.bin", &answer(sent::Message::RoundEnd(RoundEnd {})));
    golden(
        "records_taken.bin",
        &answer(sent::Message::RecordsTaken(RecordsTaken { nonce: 9, refused: false })),
    );
    let refused = RecordsTaken { nonce: 9, refused: true };
    golden("records_refused.bin", &answer(sent::Message::RecordsTaken(refused)));
    // One encoder writes the chunks of both.
    let chunk = SectionChunk { sha256: vec![1; 32], offset: 4, content: vec![7; 9].into() };
    let to_filters = SubscribeResponse { message: Some(down::Message::Chunk(chunk.clone())) };
    let to_replicas = FollowResponse { message: Some(sent::Message::Chunk(chunk)) };
    assert_eq!(to_filters.encode_to_vec(), to_replicas.encode_to_vec());
}

#[test]
fn a_kind_of_message_from_the_future_is_no_message_and_no_error() {
    // Field 99, length-delimited.
    let future = [0x9A, 0x06, 0x02, 0x01, 0x02];
    assert_eq!(SubscribeResponse::decode(&future[..]).unwrap().message, None);
    assert_eq!(SubscribeRequest::decode(&future[..]).unwrap().message, None);
}

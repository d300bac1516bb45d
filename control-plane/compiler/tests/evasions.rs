//! Ways around rules on resources, natively. The table is the one that is tried in Envoy, too.

mod common;

use common::calls::{Gateway, allowing, denying};
use common::{compile_files, files, shown};
use table::{Expected, Table};
use tidegate_engine::Reason;

#[path = "../../../tests/src/evasions.rs"]
#[allow(dead_code, reason = "the other test says more")]
mod table;

/// Every way, whole and in pieces of one and of three bytes.
#[test]
fn no_way_leads_around_a_rule() {
    let table: Table = serde_saphyr::from_str(table::TEXT).unwrap();
    let (mut passed, mut stopped, mut wrong) = (0, 0, Vec::new());
    for way in &table.ways {
        for scene in &way.scenes {
            let sources = files(&[("mesh.yaml", &table.mesh), ("rules.yaml", &scene.rules())]);
            let compilation = compile_files(&sources);
            let said = shown(&compilation);
            let gateway = Gateway::new(&compilation.output.unwrap_or_else(|| panic!("{}: {said}", way.name)));
            let attempts = scene.attempts();
            assert!(!scene.allowed.is_empty(), "{}: nothing passes, so nothing is shown", way.name);
            assert!(attempts.len() > scene.allowed.len(), "{}: nothing is tried", way.name);
            for attempt in attempts {
                for piece in [usize::MAX, 1, 3] {
                    let reason = gateway.reason_of(&attempt.call, &attempt.body, piece);
                    let is_right = match attempt.expected {
                        Expected::Allowed => reason == Reason::AllowedBy,
                        Expected::Refused => reason != Reason::AllowedBy,
                        Expected::Denied => reason == Reason::DeniedBy,
                    };
                    if !is_right {
                        let body = String::from_utf8_lossy(&attempt.body);
                        wrong.push(format!("{}: {}\n{body}\nis {reason}", way.name, attempt.call));
                        break;
                    }
                }
                match attempt.expected {
                    Expected::Allowed => passed += 1,
                    Expected::Refused | Expected::Denied => stopped += 1,
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n\n"));
    println!("{} ways: {stopped} attempts, all refused; {passed} controls, all allowed", table.ways.len());
    assert!(passed >= 80 && stopped >= 390, "{passed} {stopped}");
}

/// A Deny is a Deny, not an ambiguity that refuses by luck.
#[test]
fn refusals_have_the_reason_that_is_meant() {
    let topic = "resources: {service: pubsub, actions: [publish], names: ['projects/acme/topics/orders']";
    let deny = denying(&format!("{topic}}}"));
    let publish = |name: &str| format!("POST pubsub.googleapis.com/v1/projects/acme/{name}:publish");
    assert_eq!(deny.reason(&publish("topics/orders")), Reason::DeniedBy);
    assert!(matches!(deny.reason(&publish("topics%2Forders")), Reason::Ambiguous(_)));
    let allow = allowing(&format!("{topic}, protocols: [http]}}"));
    assert_eq!(allow.reason(&publish("topics/secret")), Reason::NoAllowMatched);
}

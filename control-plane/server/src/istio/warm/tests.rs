use tidegate_engine::model::{GuardModel, IssuerModel, RuleModel};
use tidegate_identity::PackKind;

use super::*;

fn rule(id: &str, effect: Effect) -> RuleModel {
    RuleModel {
        id: id.into(),
        effect,
        mode: Mode::Enforce,
        owner: "team".into(),
        contact: String::new(),
        disclosure: Default::default(),
        audit: Default::default(),
        lease: Default::default(),
        revokes: false,
        from: Vec::new(),
        to: None,
    }
}

fn terms() -> Terms {
    let guard = GuardModel { id: "sales/sales".into(), mode: Mode::Enforce, ports: None, audiences: None };
    let issuer = IssuerModel { name: "gitlab".into(), slots: Vec::new() };
    let mut spec = IssuerSpec::new("gitlab", "https://gitlab.example", PackKind::Gitlab);
    spec.valid_until = 1000;
    Terms {
        guarded: true,
        model: PolicyModel {
            issuers: vec![issuer],
            guards: vec![guard],
            directories: vec!["d".into()],
            rules: vec![rule("a", Effect::Allow).into()],
        },
        issuers: vec![spec],
        directories: [("d".to_owned(), ["1".to_owned(), "2".to_owned()].into())].into(),
    }
}

fn jwk(id: &str) -> tidegate_identity::Jwk {
    // The generator of P-256 (SEC 2, section 2.4.2).
    let bytes = |hex: &str| -> Vec<u8> {
        hex.as_bytes()
            .chunks(2)
            .map(|digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap())
            .collect()
    };
    let x = bytes("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296");
    let y = bytes("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5");
    tidegate_identity::Jwk::ec(Some(id.into()), None, tidegate_identity::keys::Curve::P256, &x, &y).unwrap()
}

type Edit = fn(&mut Terms);

#[test]
fn what_is_wider_and_what_is_not() {
    let cases: [(&str, Change, Edit); 19] = [
        ("nothing", Change::Same, |_| {}),
        ("keys count longer", Change::Same, |t| t.issuers[0].valid_until = 2000),
        ("an Allow more", Change::Wider, |t| t.model.rules.push(rule("b", Effect::Allow).into())),
        ("an Allow less", Change::Narrower, |t| t.model.rules.clear()),
        ("another Allow", Change::Narrower, |t| t.model.rules[0].id = "c".into()),
        ("an Allow in Shadow", Change::Narrower, |t| t.model.rules[0].mode = Mode::Shadow),
        ("a Deny more", Change::Narrower, |t| t.model.rules.push(rule("b", Effect::Deny).into())),
        ("a Deny in Shadow", Change::Wider, |t| {
            t.model.rules.push(RuleModel { mode: Mode::Shadow, ..rule("b", Effect::Deny) }.into());
        }),
        ("no Guard any more", Change::Wider, |t| t.guarded = false),
        ("another Guard", Change::Narrower, |t| t.model.guards[0].ports = Some(vec![80])),
        ("another issuer first", Change::Narrower, |t| t.model.issuers[0].name = "z".into()),
        ("a key more", Change::Wider, |t| t.issuers[0].keys.push(jwk("k"))),
        ("keys end sooner", Change::Narrower, |t| t.issuers[0].valid_until = 999),
        ("an issuer more", Change::Narrower, |t| t.issuers.push(t.issuers[0].clone())),
        ("another audience", Change::Narrower, |t| t.issuers[0].audiences = vec!["x".into()]),
        ("an id more", Change::Wider, |t| {
            t.directories.get_mut("d").unwrap().insert("3".into());
        }),
        ("an id less", Change::Narrower, |t| {
            t.directories.get_mut("d").unwrap().remove("1");
        }),
        ("no directory", Change::Narrower, |t| t.directories.clear()),
        ("a revocation", Change::Narrower, |t| {
            let kind = tidegate_identity::RevokedKind::Subject;
            t.issuers[0].revoked.push(tidegate_identity::Revoked { kind, value: "s".into(), until: 0 });
        }),
    ];
    for (what, expected, edit) in cases {
        let mut after = terms();
        edit(&mut after);
        assert_eq!(change(&terms(), &after), expected, "{what}");
    }
}

#[test]
fn the_way_back_from_what_is_wider_is_narrower() {
    let edits: [(&str, Edit); 5] = [
        ("an Allow", |t| t.model.rules.push(rule("b", Effect::Allow).into())),
        ("a key", |t| t.issuers[0].keys.push(jwk("k"))),
        ("unguarded", |t| t.guarded = false),
        ("an id", |t| {
            t.directories.get_mut("d").unwrap().insert("3".into());
        }),
        ("dates", |t| t.issuers[0].valid_until = 2000),
    ];
    for (what, edit) in edits {
        let mut wide = terms();
        edit(&mut wide);
        assert_eq!(change(&wide, &terms()), Change::Narrower, "{what}");
    }
}

#[test]
fn an_id_more_is_narrower_where_a_deny_may_read_it() {
    let mut before = terms();
    before.model.rules.push(rule("b", Effect::Deny).into());
    let mut after = before.clone();
    after.directories.get_mut("d").unwrap().insert("3".into());
    assert_eq!(change(&before, &after), Change::Narrower);
}

#[test]
fn narrowings_are_written_at_once_and_all_else_waits() {
    let now = 100_000;
    for change in [Change::Same, Change::Wider, Change::Narrower] {
        assert_eq!(next_write(None, change, now), Write::Now, "there is none yet: {change:?}");
        assert_eq!(next_write(Some(now + 1), change, now), Write::Now, "the clock was set back: {change:?}");
    }
    assert_eq!(next_write(Some(now), Change::Narrower, now), Write::Now);
    assert_eq!(next_write(Some(now - 1), Change::Wider, now), Write::At(now + 599));
    assert_eq!(next_write(Some(now - 599), Change::Wider, now), Write::At(now + 1));
    assert_eq!(next_write(Some(now - 600), Change::Wider, now), Write::Now);
    assert_eq!(next_write(Some(now - 600), Change::Same, now), Write::At(now + 21_000));
    assert_eq!(next_write(Some(now - 21_600), Change::Same, now), Write::Now);
    assert_eq!(next_write(Some(i64::MIN), Change::Wider, now), Write::Now);
    assert_eq!(next_write(Some(i64::MAX - 1), Change::Same, i64::MAX - 1), Write::At(i64::MAX));
}

//! What is read from the cluster is not believed as it stands: others than the control plane may have written it.
//!
//! Pure. INVARIANT: what breaks a limit never ends a revocation of somebody; it does end a suspension. Of the same text every
//! replica makes the same, but for suspensions that begin in the future, and since when the past is whole.

use std::collections::BTreeSet;

use tidegate_compiler::revocation::INDENT;
use tidegate_compiler::tree;
use tidegate_proto::MAX_SUSPENSION_S;

use super::kept::{Broken, Frozen, Kept, MAX_SUSPENSIONS, Revocation, Suspension, check_text};

/// How far clocks of replicas may be apart, in seconds.
const SKEW_S: i64 = 300;
/// The last end that there is, 2100-01-01: later ones are no moments everywhere.
const LAST: i64 = 4_102_444_800;
/// Ids are counted up to here.
const MAX_GIVEN: u64 = 1 << 53;

// === impl Kept ===

impl Kept {
    /// Without what nobody could have asked for; [`Kept::unbelieved`] says what that was.
    pub(crate) fn check(mut self, now: i64) -> Self {
        let mut unbelieved = Vec::new();
        let numbers = self.revocations.iter().filter_map(|one| number("r-", &one.id));
        let numbers = numbers.chain(self.suspensions.iter().filter_map(|one| number("s-", &one.id)));
        let given = Some(self.given).filter(|given| *given <= MAX_GIVEN);
        self.given = numbers.chain(given).max().unwrap_or_default();

        let mut ids = BTreeSet::new();
        let mut revocations = Vec::new();
        for mut one in std::mem::take(&mut self.revocations) {
            if number("r-", &one.id).is_none() || !ids.insert(one.id.clone()) {
                one.id = self.next_id("r");
            }
            one.until = one.until.min(LAST);
            if let Err(why) = one.target.check() {
                // Nobody is that.
                unbelieved.push(told(one.id, &why));
                continue;
            }
            unbelieved.extend(without_odd_forms(&mut one).map(|why| told(one.id.clone(), &why)));
            revocations.push(one);
        }
        self.revocations = revocations;

        let mut suspended = 0_usize;
        self.suspensions.retain(|one| {
            let counts = usize::from(one.until > now);
            match check_suspension(one, now).or_else(|| {
                (suspended.saturating_add(counts) > MAX_SUSPENSIONS)
                    .then(|| format!("more than {MAX_SUSPENSIONS} workloads are suspended"))
            }) {
                None => {
                    suspended = suspended.saturating_add(counts);
                    true
                }
                Some(why) => {
                    let what = format!("the suspension of `{}` does not count: {why}", one.workload);
                    unbelieved.push(told(one.id.clone(), &what));
                    false
                }
            }
        });
        self.past.check(now);
        self.unbelieved = unbelieved;
        self
    }
}

/// The number in an id of this kind.
fn number(kind: &str, id: &str) -> Option<u64> {
    let digits = id.strip_prefix(kind)?;
    let number = digits.parse().ok().filter(|number| *number <= MAX_GIVEN)?;
    (format!("{kind}{number}") == id).then_some(number)
}

fn told(id: String, why: &str) -> Broken {
    let why = format!("{why}; `tidegate` did not write that into the cluster, look who did");
    Broken { id, why, in_force: false }
}

fn check_suspension(one: &Suspension, now: i64) -> Option<String> {
    if number("s-", &one.id).is_none() {
        return Some("its id is none".to_owned());
    }
    if one.at > now.saturating_add(SKEW_S) {
        return Some("it was made in the future".to_owned());
    }
    if !(1..=MAX_SUSPENSION_S).contains(&one.until.saturating_sub(one.at)) {
        return Some(format!("it lasts longer than {}", crate::clock::span(MAX_SUSPENSION_S)));
    }
    check_text("reason", &one.reason).and_then(|()| check_text("ticket", &one.ticket)).err()
}

/// The other forms stay, and so does what the Caller is now.
fn without_odd_forms(revocation: &mut Revocation) -> Option<String> {
    let Frozen { forms, .. } = revocation.frozen.as_mut()?;
    let before = forms.len();
    forms.retain(|form| is_form(form));
    let odd = before.saturating_sub(forms.len());
    (odd > 0).then(|| format!("{odd} of the {before} forms of {} cannot be read", revocation.target))
}

/// Whether it is one mapping, and stays within its place in the text that it is put into.
fn is_form(form: &str) -> bool {
    let is_within = |line: &str| line.len() > INDENT && line.bytes().take(INDENT).all(|byte| byte == b' ');
    if form.contains('\r') || !form.ends_with('\n') || !form.lines().all(is_within) {
        return false;
    }
    let (documents, faults) = tree::read(&format!("in:\n  -\n{form}"), None);
    let [document] = documents.as_slice() else { return false };
    let Some(list) = document.root().get("in") else { return false };
    let items: Vec<_> = list.items().collect();
    let [item] = items.as_slice() else { return false };
    faults.is_empty() && item.members().next().is_some() && document.root().members().count() == 1
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn read(spec: &Value) -> Kept {
        let mut whole = json!({"revision": 3, "given": 1, "pin": null, "revocations": [], "suspensions": []});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value::<Kept>(whole).unwrap().check(NOW)
    }

    fn revocation(id: &str, at: i64, until: i64) -> Value {
        let target = json!({"kind": "caller", "name": "data/etl"});
        json!({"id": id, "target": target, "reason": "x", "by": "me", "at": at, "until": until})
    }

    fn suspension(id: &str, at: i64, until: i64) -> Value {
        let workload = format!("sales/{id}");
        json!({"id": id, "workload": workload, "reason": "x", "ticket": "y", "by": "me", "at": at, "until": until})
    }

    #[test]
    fn a_suspension_that_nobody_could_have_asked_for_does_not_count() {
        let good = suspension("s-2", NOW - 10, NOW - 10 + MAX_SUSPENSION_S);
        let mut mute = suspension("s-3", NOW, NOW + 60);
        mute["ticket"] = "".into();
        for bad in [
            suspension("s-3", NOW, NOW + MAX_SUSPENSION_S + 1),
            suspension("s-3", NOW + SKEW_S + 1, NOW + 3_000),
            suspension("s-3", i64::MIN, i64::MAX),
            suspension("s-3", NOW, NOW),
            suspension("../s", NOW, NOW + 60),
            suspension("s-03", NOW, NOW + 60),
            mute,
        ] {
            let kept = read(&json!({"suspensions": [bad, good]}));
            let ids: Vec<_> = kept.suspensions.iter().map(|one| one.id.as_str()).collect();
            assert_eq!(ids, ["s-2"], "{bad}");
            assert_eq!((kept.unbelieved.len(), kept.unbelieved[0].in_force), (1, false), "{bad}");
        }
        let many: Vec<_> = (0..300).map(|at| suspension(&format!("s-{at}"), NOW, NOW + 60)).collect();
        let kept = read(&json!({"suspensions": many}));
        assert_eq!((kept.suspensions.len(), kept.unbelieved.len()), (MAX_SUSPENSIONS, 300 - MAX_SUSPENSIONS));
        let ended: Vec<_> = (0..300).map(|at| suspension(&format!("s-{at}"), NOW - 60, NOW)).collect();
        assert_eq!(read(&json!({"suspensions": ended})).unbelieved, []);
    }

    #[test]
    fn a_revocation_stays_whatever_is_wrong_with_it() {
        let odd = [
            revocation("r-4", NOW, NOW + 60),
            revocation("r-4", NOW, NOW + 60),
            revocation("../../x", NOW, NOW + 60),
            revocation("r-5", i64::MAX, i64::MAX),
            revocation("r-99999999999999999999", 0, NOW + 60),
        ];
        let kept = read(&json!({"revocations": odd, "given": u64::MAX}));
        let ids: Vec<_> = kept.revocations.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, ["r-4", "r-6", "r-7", "r-5", "r-8"]);
        assert_eq!((kept.given, kept.unbelieved.len()), (8, 0));
        assert!(kept.revocations.iter().all(|one| (NOW + 60..=LAST).contains(&one.until)));
        assert_eq!(kept.clone().check(NOW), kept, "once is enough");
        let mut nobody = revocation("r-9", NOW, NOW + 60);
        nobody["target"]["name"] = "".into();
        let kept = read(&json!({"revocations": [nobody, odd[0]]}));
        assert_eq!((kept.revocations.len(), kept.unbelieved[0].id.as_str()), (1, "r-9"));
    }

    #[test]
    fn a_form_stays_within_its_place() {
        let good = "    \"peer\":\n      \"namespace\": \"${env.space}\"\n";
        assert!(is_form(good));
        for bad in [
            "",
            "    a\n",
            "    - a: b\n",
            "    a: b\n  - c: d\n",
            "    a: b\n---\n    kind: Guard\n",
            "    a: b\n    ---\n",
            "    a: b\r---\rkind: Guard\n",
            "    a: b\n\n    c: d\n",
            "    a: b\n...\n",
            "    a: [b\n",
            "    a: b\nkind: Guard\n",
            "    a: b",
            "    {}\n",
        ] {
            assert!(!is_form(bad), "{bad:?}");
        }
        let mut one = revocation("r-1", NOW, NOW + 60);
        one["frozen"] = json!({"forms": [good, "    a: b\n---\n"], "environment": {}});
        let kept = read(&json!({"revocations": [one]}));
        assert_eq!(kept.revocations[0].frozen.as_ref().unwrap().forms, [good]);
        assert!(kept.unbelieved[0].why.contains("1 of the 2 forms of Caller data/etl"), "{kept:?}");
    }
}

//! What people did that has ended, for whoever has to account for it.
//!
//! Pure, but for the clock where it cannot be read. INVARIANT: nothing that counts is made of it, and it yields to what does: it
//! is bounded, and where there is no room for both, the oldest of it goes. Nothing in it keeps the rest from being read. Since when
//! it is whole is written beside it, and later wherever something was left out.
//!
//! INVARIANT: it names no token and no subject: what these say of themselves is not marked safe.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::kept::{Kept, MAX_NAME, Pin, Revocation, Suspension, Target};

/// Most of it.
const MAX: usize = 1_000;
/// Most bytes of it, as JSON.
const MAX_BYTES: usize = 128 << 10;
/// Most bytes of what something was done to: a few long names must not be all there is room for.
const MAX_WHAT: usize = 256;
/// What stands for the rest of it.
const REST: &str = "…";

/// What has ended, the earliest end first as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Past {
    /// What ended before then is not all here, in Unix seconds; `None`: nobody has written it down yet.
    since: Option<i64>,
    ended: Vec<Intervention>,
}

/// Something that somebody did to what is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intervention {
    /// Unique, e.g. `r-7`; empty for a pin.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Which kind.
    pub kind: InterventionKind,
    /// To what: a workload, a rule set, whoever is revoked.
    pub what: String,
    /// Why.
    pub reason: String,
    /// Where it is followed up.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ticket: String,
    /// Who did it.
    pub by: String,
    /// Unix seconds.
    pub at: i64,
    /// When it ends by itself, in Unix seconds; a pin does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// How it ended; absent: it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum InterventionKind {
    /// Something is taken back.
    Revoked,
    /// Guards of a workload only report.
    Suspended,
    /// Earlier rules are in force.
    Pinned,
}

/// How something ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// Unix seconds.
    pub at: i64,
    /// By what.
    pub how: EndHow,
    /// Who did that; absent: nobody, its time was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// By what something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EndHow {
    /// Its time was over.
    Time,
    /// Somebody ended it.
    Lifted,
    /// Somebody did the same again, for another time.
    Replaced,
}

/// Reads what can be read: a later version may have written what is not known here, and others anything.
pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Past, D::Error> {
    Ok(Past::of(Value::deserialize(from)?, crate::clock::now()))
}

// === impl Kept ===

impl Kept {
    /// Ends what has this id, or is of this workload. False: there is no such thing.
    pub fn lift(&mut self, id: &str, by: &str, now: i64) -> bool {
        let is = |one: &Suspension| one.id == id || one.workload == id;
        let suspensions: Vec<_> = self.suspensions.extract_if(.., |one| is(one)).collect();
        let revocations: Vec<_> = self.revocations.extract_if(.., |one| one.id == id).collect();
        let ended = suspensions.iter().map(Intervention::from);
        let ended: Vec<_> = ended.chain(revocations.iter().map(Intervention::from)).collect();
        let is_there = !ended.is_empty();
        self.past.add(ended.into_iter().map(|one| one.ended(EndHow::Lifted, by, now)));
        is_there
    }

    /// What has ended by then is no longer among what is in force.
    pub(super) fn end_what_is_over(&mut self, then: i64) {
        let suspensions = self.suspensions.extract_if(.., |one| one.until <= then);
        let suspensions = suspensions.map(|one| Intervention::from(&one));
        let revocations = self.revocations.extract_if(.., |one| one.until <= then);
        let ended = suspensions.chain(revocations.map(|one| Intervention::from(&one)));
        self.past.add(ended.map(|one| one.ended(EndHow::Time, "", then)));
    }

    /// A workload is suspended anew.
    pub(super) fn replace_suspension(&mut self, workload: &str, by: &str, now: i64) {
        let ended = self.suspensions.extract_if(.., |one| one.workload == workload);
        self.past.add(ended.map(|one| Intervention::from(&one).ended(EndHow::Replaced, by, now)));
    }

    /// Earlier rules are in force from now on.
    pub(super) fn pin(&mut self, pin: Pin) {
        if let Some(before) = self.pin.replace(pin.clone()) {
            self.past.add([Intervention::from(&before).ended(EndHow::Replaced, &pin.by, pin.at)]);
        }
    }

    /// The newest rules are in force again. Returns what was pinned.
    pub(super) fn unpin(&mut self, by: &str, now: i64) -> Option<Pin> {
        let pin = self.pin.take()?;
        self.past.add([Intervention::from(&pin).ended(EndHow::Lifted, by, now)]);
        Some(pin)
    }

    /// Before anything is changed: from now on it is written down how things end.
    pub(super) fn begin_past(&mut self, now: i64) {
        self.past.since = Some(self.interventions_since(now));
    }

    /// What people did, as far as it is known: what has ended, and what is in force.
    pub fn interventions(&self, now: i64) -> Vec<Intervention> {
        let standing = self.suspensions.iter().map(Intervention::from);
        let standing = standing.chain(self.revocations.iter().map(Intervention::from));
        let standing = standing.chain(self.pin.iter().map(Intervention::from));
        // What has ended by itself stays among them for a while.
        let standing = standing.map(|one| match one.until {
            Some(until) if until <= now => one.ended(EndHow::Time, "", now),
            _ => one,
        });
        self.past.ended.iter().cloned().chain(standing).collect()
    }

    /// What ended before then is not all known, in Unix seconds.
    pub fn interventions_since(&self, now: i64) -> i64 {
        // Where nobody has ever done anything, nothing is missing.
        let is_new = self.revision == 0 && self.given == 0 && self.pin.is_none();
        self.past.since.unwrap_or(if is_new { 0 } else { now })
    }
}

// === impl Past ===

impl Past {
    /// What is there is measured once, however many are added.
    fn add(&mut self, ended: impl IntoIterator<Item = Intervention>) {
        let before = self.ended.len();
        self.ended.extend(ended);
        if self.ended.len() > before {
            self.shorten(MAX_BYTES);
        }
    }

    /// What can be read of it.
    fn of(written: Value, now: i64) -> Self {
        let mut past = Self::default();
        let mut is_whole = false;
        if let Value::Object(mut fields) = written {
            let since = fields.remove("since").map_or(Ok(None), serde_json::from_value);
            let entries = fields.remove("ended");
            is_whole = since.is_ok() && matches!(entries, Some(Value::Array(_)));
            past.since = since.unwrap_or_default();
            if let Some(Value::Array(entries)) = entries {
                let all = entries.len();
                past.ended = entries.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect();
                is_whole &= past.ended.len() == all;
            }
        }
        if !is_whole {
            past.say_cut(now);
        }
        past
    }

    /// Something of it is not known, and not when it ended.
    fn say_cut(&mut self, now: i64) {
        self.since = self.since.max(Some(now));
    }

    /// Makes so many bytes of room. False: there is not so much.
    pub(super) fn make_room(&mut self, bytes: usize) -> bool {
        let of = self.bytes();
        self.shorten(of.saturating_sub(bytes));
        of.saturating_sub(self.bytes()) >= bytes
    }

    /// Without what nobody here has written.
    pub(super) fn check(&mut self, now: i64) {
        let before = self.ended.len();
        self.ended.retain(|one| one.end.is_some() && one.texts().into_iter().all(is_plain));
        if self.ended.len() < before {
            self.say_cut(now);
        }
        self.shorten(MAX_BYTES);
    }

    /// At most so many bytes.
    fn shorten(&mut self, most: usize) {
        let mut bytes = self.bytes();
        let mut too_many = 0;
        for one in &self.ended {
            if bytes <= most && self.ended.len().saturating_sub(too_many) <= MAX {
                break;
            }
            bytes = bytes.saturating_sub(one.bytes());
            too_many += 1;
        }
        for one in self.ended.drain(..too_many) {
            let end = one.end.map_or(one.at, |end| end.at);
            self.since = self.since.max(Some(end.saturating_add(1)));
        }
    }

    fn bytes(&self) -> usize {
        self.ended.iter().map(Intervention::bytes).sum()
    }
}

// === impl Intervention ===

impl Intervention {
    fn ended(self, how: EndHow, by: &str, now: i64) -> Self {
        let end = match self.until {
            Some(until) if until <= now => End { at: until, how: EndHow::Time, by: None },
            _ => End { at: now, how, by: Some(by.to_owned()) },
        };
        Self { end: Some(end), what: shortened(self.what), ..self }
    }

    /// As JSON in a list.
    fn bytes(&self) -> usize {
        serde_json::to_vec(self).map_or(MAX_BYTES, |text| text.len().saturating_add(1))
    }

    fn texts(&self) -> [&str; 6] {
        let ended_by = self.end.as_ref().and_then(|end| end.by.as_deref()).unwrap_or_default();
        [&self.id, &self.what, &self.reason, &self.ticket, &self.by, ended_by]
    }
}

fn shortened(mut what: String) -> String {
    if what.len() > MAX_WHAT {
        what.truncate(what.floor_char_boundary(MAX_WHAT.saturating_sub(REST.len())));
        what.push_str(REST);
    }
    what
}

fn is_plain(text: &str) -> bool {
    text.len() <= MAX_NAME && !text.chars().any(char::is_control)
}

impl From<&Suspension> for Intervention {
    fn from(one: &Suspension) -> Self {
        Self {
            id: one.id.clone(),
            kind: InterventionKind::Suspended,
            what: one.workload.clone(),
            reason: one.reason.clone(),
            ticket: one.ticket.clone(),
            by: one.by.clone(),
            at: one.at,
            until: Some(one.until),
            end: None,
        }
    }
}

impl From<&Revocation> for Intervention {
    fn from(one: &Revocation) -> Self {
        Self {
            id: one.id.clone(),
            kind: InterventionKind::Revoked,
            what: one.target.without_names_of_tokens(),
            reason: one.reason.clone(),
            ticket: String::new(),
            by: one.by.clone(),
            at: one.at,
            until: Some(one.until),
            end: None,
        }
    }
}

impl From<&Pin> for Intervention {
    fn from(one: &Pin) -> Self {
        Self {
            id: String::new(),
            kind: InterventionKind::Pinned,
            what: format!("rule set {} ({})", one.number, super::short(&one.digest)),
            reason: one.reason.clone(),
            ticket: String::new(),
            by: one.by.clone(),
            at: one.at,
            until: None,
            end: None,
        }
    }
}

// === impl Target ===

impl Target {
    /// For whoever may see that something is revoked, and not whose token.
    pub fn without_names_of_tokens(&self) -> String {
        match self {
            Self::Token { issuer, .. } => format!("a token of {issuer}"),
            Self::Subject { issuer, .. } => format!("a subject of {issuer}"),
            other => other.to_string(),
        }
    }
}

// === impl EndHow ===

impl EndHow {
    /// One of few words.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Time => "its time was over",
            Self::Lifted => "lifted",
            Self::Replaced => "replaced",
        }
    }
}

// === impl InterventionKind ===

impl InterventionKind {
    /// One of few words.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Suspended => "suspended",
            Self::Pinned => "pinned",
        }
    }
}

#[cfg(test)]
mod tests;

//! What a refused caller saw: a problem document, the line of a gRPC error, or a bare reason code, wherever in a text.

use serde::Serialize;
use serde_json::Value;
use tidegate_engine::Reason;

use super::request::RequestReport;

/// What the caller was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Why.
    #[serde(serialize_with = "code")]
    pub reason: Reason,
    /// The id of the decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// The rule, where the caller was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Who answers for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How they are reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
}

/// Why there is nothing of Tidegate in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRefusal {
    /// There is a code that this version does not know.
    UnknownCode(String),
    /// It is Istio's or Envoy's own refusal.
    ByIstio,
    /// Nothing was recognised.
    Nothing,
}

fn code<S: serde::Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.code())
}

// === impl Refusal ===

impl Refusal {
    /// Finds a refusal in what somebody pasted.
    ///
    /// # Errors
    /// See [`NoRefusal`].
    pub fn find(text: &str) -> Result<Self, NoRefusal> {
        let text = text.trim();
        if let Some(reason) = Reason::from_code(text) {
            return Ok(Self { reason, decision: None, rule: None, owner: None, contact: None });
        }
        if let Some(found) = documents(text).find_map(|document| Self::of_document(&document)) {
            return found;
        }
        if let Some(line) = text.lines().find(|line| word(line, "reason").is_some()) {
            return Self::read(|name| word(line, name));
        }
        match text {
            text if text.contains("RBAC: access denied") || text.contains("rbac_access_denied") => {
                Err(NoRefusal::ByIstio)
            }
            text if text.contains("Jwt ") => Err(NoRefusal::ByIstio),
            _ => Err(NoRefusal::Nothing),
        }
    }

    /// `None`: the document says no reason.
    fn of_document(document: &Value) -> Option<Result<Self, NoRefusal>> {
        let member = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
        let of_type = || member("type")?.strip_prefix("urn:tidegate:reason:").map(str::to_owned);
        member("reason").or_else(of_type)?;
        Some(Self::read(|name| if name == "reason" { member(name).or_else(of_type) } else { member(name) }))
    }

    fn read(part: impl Fn(&str) -> Option<String>) -> Result<Self, NoRefusal> {
        let code = part("reason").unwrap_or_default();
        match Reason::from_code(&code) {
            Some(reason) => Ok(Self {
                reason,
                // What was decided, in a record; in a refusal its id.
                decision: part("decision").filter(|id| !matches!(id.as_str(), "Allow" | "Deny")),
                rule: part("rule"),
                owner: part("owner"),
                contact: part("contact"),
            }),
            None => Err(NoRefusal::UnknownCode(code)),
        }
    }
}

/// The request that a record of a decision is about: what `tidegate explain -o json` writes has it as `request`.
pub fn recorded_request(text: &str) -> Option<RequestReport> {
    documents(text).find_map(|document| {
        document.get("reason")?;
        serde_json::from_value(document.get("request")?.clone()).ok()
    })
}

/// JSON objects in a text: from each `{` on, as far as they go.
pub(super) fn documents(text: &str) -> impl Iterator<Item = Value> {
    text.match_indices('{').filter_map(|(at, _)| {
        let mut stream = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        stream.next()?.ok()
    })
}

/// `name=value` in a line, up to the next space.
fn word(line: &str, name: &str) -> Option<String> {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | ',' | ';');
    line.split(is_end).find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_found_wherever_it_is() {
        let body = r##"{"status":403,"type":"urn:tidegate:reason:denied_by_rule","title":"a rule denies this request","reason":"denied_by_rule","decision":"7Q4K-M2XD-91BC","rule":"sales/archive-is-closed","owner":"team-compliance","contact":"#compliance"}"##;
        let curl = format!("HTTP/1.1 403 Forbidden\r\nx-tidegate-decision: 7Q4K-M2XD-91BC\r\n\r\n{body}\n");
        let line = "rpc error: code = PermissionDenied desc = a rule denies this request; reason=denied_by_rule \
                    decision=7Q4K-M2XD-91BC rule=sales/archive-is-closed owner=team-compliance contact=#compliance";
        let python = format!("details = \"{}\"", line.split("desc = ").nth(1).unwrap());
        for text in [body, &curl, line, &python] {
            let refusal = Refusal::find(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
            assert_eq!(refusal.reason, Reason::DeniedBy, "{text}");
            assert_eq!(refusal.decision.as_deref(), Some("7Q4K-M2XD-91BC"), "{text}");
            assert_eq!(refusal.rule.as_deref(), Some("sales/archive-is-closed"), "{text}");
            assert_eq!(refusal.contact.as_deref(), Some("#compliance"), "{text}");
        }
        for reason in Reason::all() {
            assert_eq!(Refusal::find(reason.code()).map(|found| found.reason), Ok(reason));
        }
        let bare = r#"{"type":"urn:tidegate:reason:token_expired"}"#;
        assert_eq!(Refusal::find(bare).map(|found| found.reason.code()), Ok("token_expired"));
    }

    #[test]
    fn what_is_not_tidegates_is_told() {
        for (text, expected) in [
            ("RBAC: access denied", NoRefusal::ByIstio),
            ("Jwt is expired", NoRefusal::ByIstio),
            ("upstream connect error", NoRefusal::Nothing),
            ("{\"a\":1}", NoRefusal::Nothing),
            ("", NoRefusal::Nothing),
            ("reason=too_new", NoRefusal::UnknownCode("too_new".into())),
        ] {
            assert_eq!(Refusal::find(text), Err(expected), "{text}");
        }
    }
}

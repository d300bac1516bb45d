//! From the JSON of the keys section to [`IssuerSetSpec`]. Every member must be there and none besides.

use super::{InvalidKeys, IssuerSetSpec, IssuerSpec, Revoked, RevokedKind, TokenHeader, VERSION, field};
use crate::json::{Object, Value};
use crate::keys::{Algorithm, Jwk, KeyUse};
use crate::pack::PackKind;

/// An object and where it is.
struct Members<'v> {
    object: &'v Object,
    path: String,
}

pub(super) fn section(value: &Value) -> Result<IssuerSetSpec, InvalidKeys> {
    let members = Members { object: object(value, "keys section")?, path: String::new() };
    // First, since another version may have other members.
    let version = members.get("version")?.as_integer().ok_or_else(|| members.wrong("version"))?;
    if version != i64::from(VERSION) {
        return Err(InvalidKeys::Version { found: version });
    }
    members.only(&["version", "issuers"])?;
    let issuers = members.list("issuers", issuer)?;
    Ok(IssuerSetSpec { version: VERSION, issuers })
}

fn issuer(value: &Value, path: String) -> Result<IssuerSpec, InvalidKeys> {
    let members = Members { object: object(value, &path)?, path };
    members.only(&[
        "name",
        "iss",
        "pack",
        "types",
        "audiences",
        "single_audience",
        "require_cnf",
        "algorithms",
        "headers",
        "forward",
        "allow_unbound",
        "max_lifetime_s",
        "skew_s",
        "retire_at",
        "revoked",
        "valid_until",
        "keys",
    ])?;
    Ok(IssuerSpec {
        name: members.text("name")?,
        iss: members.list("iss", text)?,
        pack: PackKind::from_name(&members.text("pack")?).ok_or_else(|| members.wrong("pack"))?,
        types: members.list("types", text)?,
        audiences: members.list("audiences", text)?,
        single_audience: members.boolean("single_audience")?,
        require_cnf: members.boolean("require_cnf")?,
        algorithms: members.list("algorithms", |value, path| {
            value.as_str().and_then(Algorithm::from_name).ok_or_else(|| wrong(&path))
        })?,
        headers: members.list("headers", header)?,
        forward: members.boolean("forward")?,
        allow_unbound: members.boolean("allow_unbound")?,
        max_lifetime_s: members.seconds("max_lifetime_s")?,
        skew_s: members.seconds("skew_s")?,
        retire_at: members.date("retire_at")?,
        revoked: members.list("revoked", revoked)?,
        valid_until: members.date("valid_until")?,
        keys: members.list("keys", |value, path| {
            Jwk::from_json(value, KeyUse::Sig).map_err(|why| InvalidKeys::Key { field: path, why })
        })?,
    })
}

fn header(value: &Value, path: String) -> Result<TokenHeader, InvalidKeys> {
    let members = Members { object: object(value, &path)?, path };
    members.only(&["name", "prefix"])?;
    let prefix = match members.get("prefix")? {
        Value::Null => None,
        Value::String(prefix) => Some(prefix.clone()),
        _ => return Err(members.wrong("prefix")),
    };
    Ok(TokenHeader { name: members.text("name")?, prefix })
}

fn revoked(value: &Value, path: String) -> Result<Revoked, InvalidKeys> {
    let members = Members { object: object(value, &path)?, path };
    members.only(&["kind", "value", "until"])?;
    Ok(Revoked {
        kind: RevokedKind::from_name(&members.text("kind")?).ok_or_else(|| members.wrong("kind"))?,
        value: members.text("value")?,
        until: members.date("until")?,
    })
}

fn text(value: &Value, path: String) -> Result<String, InvalidKeys> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong(&path))
}

fn object<'v>(value: &'v Value, path: &str) -> Result<&'v Object, InvalidKeys> {
    value.as_object().ok_or_else(|| wrong(path))
}

fn wrong(path: &str) -> InvalidKeys {
    field(path, "has another type or value than it must have".to_owned())
}

// === impl Members ===

impl Members<'_> {
    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn wrong(&self, name: &str) -> InvalidKeys {
        wrong(&self.at(name))
    }

    fn only(&self, known: &[&str]) -> Result<(), InvalidKeys> {
        match self.object.iter().find(|(name, _)| !known.contains(name)) {
            Some((name, _)) => Err(field(&self.at(name), "is not known".to_owned())),
            None => Ok(()),
        }
    }

    fn get(&self, name: &str) -> Result<&Value, InvalidKeys> {
        self.object.get(name).ok_or_else(|| field(&self.at(name), "is missing".to_owned()))
    }

    fn text(&self, name: &str) -> Result<String, InvalidKeys> {
        self.get(name)?.as_str().map(str::to_owned).ok_or_else(|| self.wrong(name))
    }

    fn boolean(&self, name: &str) -> Result<bool, InvalidKeys> {
        match self.get(name)? {
            Value::Boolean(boolean) => Ok(*boolean),
            _ => Err(self.wrong(name)),
        }
    }

    fn seconds(&self, name: &str) -> Result<u32, InvalidKeys> {
        let seconds = self.get(name)?.as_integer().and_then(|s| u32::try_from(s).ok());
        seconds.ok_or_else(|| self.wrong(name))
    }

    fn date(&self, name: &str) -> Result<i64, InvalidKeys> {
        self.get(name)?.as_integer().ok_or_else(|| self.wrong(name))
    }

    fn list<T>(
        &self,
        name: &str,
        element: impl Fn(&Value, String) -> Result<T, InvalidKeys>,
    ) -> Result<Vec<T>, InvalidKeys> {
        let elements = self.get(name)?.as_array().ok_or_else(|| self.wrong(name))?;
        elements
            .iter()
            .enumerate()
            .map(|(at, value)| element(value, format!("{}[{at}]", self.at(name))))
            .collect()
    }
}

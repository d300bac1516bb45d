//! Claims that somebody wrote down, as the JSON of a token.

use std::collections::BTreeMap;

use crate::spec::ClaimJson;

/// Sets a claim at a path, making the objects on the way.
pub(super) fn set(claims: &mut BTreeMap<String, ClaimJson>, path: &[String], value: ClaimJson) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        claims.insert(first.clone(), value);
        return;
    }
    let entry = claims.entry(first.clone()).or_insert_with(|| ClaimJson::Map(BTreeMap::new()));
    if !matches!(entry, ClaimJson::Map(_)) {
        *entry = ClaimJson::Map(BTreeMap::new());
    }
    if let ClaimJson::Map(members) = entry {
        set(members, rest, value);
    }
}

/// The claim at a path, if it was said what it is.
pub(super) fn stated<'c>(claims: &'c BTreeMap<String, ClaimJson>, path: &[String]) -> Option<&'c ClaimJson> {
    let (first, rest) = path.split_first()?;
    match (claims.get(first)?, rest) {
        (value, []) => Some(value),
        (ClaimJson::Map(members), rest) => stated(members, rest),
        _ => None,
    }
}

/// Removes the claim at a path; says whether it was there.
pub(super) fn remove(claims: &mut BTreeMap<String, ClaimJson>, path: &[String]) -> bool {
    match path {
        [] => false,
        [only] => claims.remove(only).is_some(),
        [first, rest @ ..] => match claims.get_mut(first) {
            Some(ClaimJson::Map(members)) => remove(members, rest),
            _ => false,
        },
    }
}

/// Lays `over` over `under`; objects are merged, everything else is replaced.
pub(super) fn merge(under: &mut BTreeMap<String, ClaimJson>, over: &BTreeMap<String, ClaimJson>) {
    for (name, value) in over {
        match (under.get_mut(name), value) {
            (Some(ClaimJson::Map(under)), ClaimJson::Map(over)) => merge(under, over),
            _ => {
                under.insert(name.clone(), value.clone());
            }
        }
    }
}

//! "Did you mean": the known name that was most likely meant.

/// The closest known name, if one is close enough to be meant.
pub(crate) fn closest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = plain(written);
    known
        .into_iter()
        .map(|name| {
            let distance = strsim::damerau_levenshtein(&plain, &self::plain(name));
            (distance, name)
        })
        .filter(|(distance, name)| *distance <= name.chars().count().max(3) / 3)
        .min()
        .map(|(_, name)| name)
}

/// Names without what people vary: case, `_` and `-`.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| !matches!(letter, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// `a`, `b` and `c`, in backticks.
pub(crate) fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// The same for lists that may be long.
pub(crate) fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names.split_at_checked(SHOWN) {
        Some((shown, others)) if !others.is_empty() => {
            let shown: Vec<String> = shown.iter().map(|name| format!("`{name}`")).collect();
            format!("{} and {} more", shown.join(", "), others.len())
        }
        _ => list(names.iter().map(String::as_str)),
    }
}

#[cfg(test)]
mod tests {
    use super::{closest, list, some_of};

    #[test]
    fn finds_the_name_that_was_meant_and_no_other() {
        let known = ["serviceAccounts", "namespace", "trustDomain"];
        for (written, expected) in [
            ("serviceaccounts", Some("serviceAccounts")),
            ("service_accounts", Some("serviceAccounts")),
            ("serviceAccount", Some("serviceAccounts")),
            ("namespaces", Some("namespace")),
            ("nmespace", Some("namespace")),
            ("ipBlocks", None),
            ("", None),
        ] {
            assert_eq!(closest(written, known), expected, "{written}");
        }
    }

    #[test]
    fn lists_names_as_people_do() {
        assert_eq!(list(["a"]), "`a`");
        assert_eq!(list(["a", "b", "c"]), "`a`, `b` and `c`");
        let names: Vec<String> = ["a", "b", "c", "d", "e", "f", "g"].map(str::to_owned).to_vec();
        assert_eq!(some_of(&names), "`a`, `b`, `c`, `d`, `e` and 2 more");
        assert_eq!(some_of(&names[..2]), "`a` and `b`");
    }
}

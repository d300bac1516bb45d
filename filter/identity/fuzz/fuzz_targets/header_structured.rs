//! Members of a header: only those of the list are accepted, each once, and only strings.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidegate_identity::jose::Header;
use tidegate_identity_fuzz::{Json, encode};

const KNOWN: [&str; 5] = ["alg", "kid", "typ", "x5t", "x5t#S256"];
const OTHER: [&str; 9] = ["crit", "b64", "zip", "cty", "enc", "jwk", "jku", "x5u", "x5c"];

#[derive(Debug, Arbitrary)]
struct Input {
    members: Vec<(u8, Json)>,
    escaped: bool,
}

fuzz_target!(|input: Input| {
    let names: Vec<_> = input
        .members
        .iter()
        .map(|(at, _)| *KNOWN.iter().chain(&OTHER).nth(usize::from(*at) % 14).expect("one of them"))
        .collect();
    let members: Vec<_> = names
        .iter()
        .zip(&input.members)
        .map(|(name, (_, value))| match input.escaped {
            true => format!("\"\\u{:04x}{}\":{}", u32::from(name.as_bytes()[0]), &name[1..], value.0),
            false => format!("\"{name}\":{}", value.0),
        })
        .collect();
    let text = format!("{{{}}}", members.join(","));
    let read = Header::parse(encode(text.as_bytes()).as_bytes());
    let mut once = names.clone();
    once.sort_unstable();
    once.dedup();
    let known = names.iter().all(|name| KNOWN.contains(name));
    if read.is_ok() {
        let theirs: serde_json::Value = serde_json::from_str(&text).expect("others read it too");
        assert!(known && once.len() == names.len(), "{text}");
        assert!(theirs.as_object().expect("an object").values().all(serde_json::Value::is_string), "{text}");
    }
});

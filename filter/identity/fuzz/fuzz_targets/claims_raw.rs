//! Any text as JSON: what is accepted, `serde_json` accepts and reads alike (but for numbers that no float can hold).
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_identity::json::{Limits, parse};
use tidegate_identity_fuzz::same;

fuzz_target!(|text: &str| {
    let Ok(ours) = parse(text, Limits::TOKEN) else { return };
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(theirs) => assert!(same(&ours, &theirs), "{text}"),
        Err(error) => assert!(error.to_string().contains("number out of range"), "{text}: {error}"),
    }
});

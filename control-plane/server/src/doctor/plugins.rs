//! WasmPlugins and TrafficExtensions.

use serde_json::Value;

use super::{Against, Code, Finding, Object};

/// Ours are known by label, or by what they are configured with.
fn is_ours(object: &Object, wasm: &Value) -> bool {
    let config = &wasm["pluginConfig"];
    object.is_ours()
        || (config["workload"].is_string() && config["peers"].is_string() && config["keys"].is_array())
}

pub(super) fn check(object: &Object, against: &Against<'_>, findings: &mut Vec<Finding>) {
    let (wasm, path) = match object.kind() {
        "WasmPlugin" => (&object.value["spec"], "spec"),
        "TrafficExtension" => (&object.value["spec"]["wasm"], "spec.wasm"),
        _ => return,
    };
    if !wasm.is_object() {
        return;
    }
    let mut say = |code, field: &str, message: String| {
        findings.push(Finding::about(code, object, field, message));
    };
    let strategy = format!("{path}.failStrategy");
    let fails_open = wasm["failStrategy"] == "FAIL_OPEN";
    if !is_ours(object, wasm) {
        if fails_open {
            say(Code::OtherPluginFailsOpen, &strategy, "it fails open".to_owned());
        }
        return;
    }
    if fails_open {
        say(Code::PluginFailsOpen, &strategy, "Tidegate's filter fails open".to_owned());
    }
    let is_pinned = wasm["sha256"].as_str().is_some_and(|sha256| sha256.len() == 64);
    if !is_pinned {
        say(Code::NotPinned, &format!("{path}.sha256"), "the module's SHA-256 is not written".to_owned());
    }
    let spec = &object.value["spec"];
    if spec["phase"] != "AUTHZ" {
        let phase = spec["phase"].as_str().unwrap_or("none");
        say(Code::WrongPhase, "spec.phase", format!("its phase is {phase}"));
    }
    let matches = spec["match"].as_array().map_or(&[][..], Vec::as_slice);
    if spec["targetRefs"].is_null() && matches.is_empty() {
        say(Code::OutboundToo, "spec.match", "it says of no listener that it is meant".to_owned());
    }
    if let Some([current, next @ ..]) = against.keys {
        let known = |id: &str| {
            let keys = wasm["pluginConfig"]["keys"].as_array().map_or(&[][..], Vec::as_slice);
            keys.iter().any(|key| key["id"] == id)
        };
        let field = format!("{path}.pluginConfig.keys");
        if !known(&current.id) {
            say(Code::UnknownKey, &field, format!("the key `{}`, which signs now, is not there", current.id));
        }
        for key in next.iter().filter(|key| !known(&key.id)) {
            say(
                Code::NextKeyUnknown,
                &field,
                format!("the key `{}`, which signs next, is not there", key.id),
            );
        }
    }
}

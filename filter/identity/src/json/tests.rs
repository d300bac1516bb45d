#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{InvalidJson, Limits, Value, parse};

fn read(text: &str) -> Result<Value, InvalidJson> {
    parse(text, Limits::TOKEN)
}

#[test]
fn reads_values() {
    for (text, value) in [
        ("null", Value::Null),
        (" true\n", Value::Boolean(true)),
        ("false", Value::Boolean(false)),
        ("0", Value::Integer(0)),
        ("-1", Value::Integer(-1)),
        ("9223372036854775807", Value::Integer(i64::MAX)),
        ("-9223372036854775808", Value::Integer(i64::MIN)),
        ("9223372036854775808", Value::Number("9223372036854775808".into())),
        ("-0", Value::Number("-0".into())),
        ("1.0", Value::Number("1.0".into())),
        ("1e2", Value::Number("1e2".into())),
        ("-1.5E-3", Value::Number("-1.5E-3".into())),
        ("1e400", Value::Number("1e400".into())),
        ("\"\"", Value::String(String::new())),
        (
            r#""\"\\\/\b\f\n\r\t\u0041\u00e4\ud83d\ude00""#,
            Value::String("\"\\/\u{8}\u{c}\n\r\tAä😀".to_owned()),
        ),
        ("\"\u{e4}\u{1F600}\"", Value::String("ä😀".to_owned())),
        ("[]", Value::Array(Vec::new())),
        ("[ 1 , [ ] ]", Value::Array(vec![Value::Integer(1), Value::Array(Vec::new())])),
    ] {
        assert_eq!(read(text), Ok(value), "{text}");
    }
    let object = read(r#" { "a" : 1 , "" : { "b" : [ null ] } } "#).unwrap();
    let object = object.as_object().unwrap();
    assert_eq!(object.get("a"), Some(&Value::Integer(1)));
    assert_eq!(
        object.get("").and_then(Value::as_object).unwrap().get("b"),
        Some(&Value::Array(vec![Value::Null]))
    );
    assert_eq!(object.get("b"), None);
    assert_eq!(object.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", ""]);
}

#[test]
fn refuses_what_is_not_one_strict_document() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1 \"b\":2}",
        "{1:2}",
        "nul",
        "nulll",
        "True",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".1",
        "1e",
        "1e+",
        "0x1",
        "1 2",
        "{} {}",
        "{}x",
        "\"",
        "\"a",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\ud800\\n\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\\ud800\\ud800\"",
        "\"\n\"",
        "\"\t\"",
        "\"\0\"",
        "\u{feff}{}",
        "{}\u{feff}",
        "// x\n1",
        "/* */1",
        "1,",
        "\u{a0}1",
        "\u{b}1",
    ] {
        assert!(matches!(read(text), Err(InvalidJson::Syntax(_))), "{text:?}: {:?}", read(text));
    }
}

#[test]
fn refuses_duplicates_after_resolving_escapes() {
    for text in [
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"b":2,"\u0061":3}"#,
        r#"{"\ud83d\ude00":1,"😀":2}"#,
        r#"[{"x":{"a":1,"a":2}}]"#,
        r#"{"":1,"":2}"#,
    ] {
        assert!(matches!(read(text), Err(InvalidJson::Duplicate(_))), "{text}");
    }
    // The same name in different objects, and names that differ in case or normalisation.
    assert!(read("{\"a\":{\"a\":1},\"A\":2,\"\u{e4}\":3,\"a\u{308}\":4}").is_ok());
}

#[test]
fn refuses_duplicates_in_large_objects_too() {
    for count in [63, 64, 65, 66, 1_000] {
        let names: Vec<String> = (0..count).map(|name| format!("\"{name}\":0")).collect();
        let read = |more: &str| parse(&format!("{{{}{more}}}", names.join(",")), Limits::KEYS);
        let object = read("").unwrap();
        let order = object.as_object().unwrap().iter().map(|(name, _)| name.parse());
        assert!(order.eq((0..count).map(Ok)), "{count}");
        for name in [0, count / 2, count - 1] {
            let again = read(&format!(",\"{name}\":0"));
            assert!(matches!(again, Err(InvalidJson::Duplicate(_))), "{count} {name}");
        }
    }
}

#[test]
fn bounds_depth_members_and_elements() {
    let limits = Limits { depth: 2, members: 3, elements: 3 };
    for good in ["[[1]]", r#"{"a":{"b":1}}"#, "[1,2,3]", r#"{"a":1,"b":2,"c":3}"#] {
        assert!(parse(good, limits).is_ok(), "{good}");
    }
    for bad in
        ["[[[1]]]", r#"{"a":{"b":{}}}"#, "[1,2,3,4]", r#"[{"a":1,"b":2},{"c":3,"d":4}]"#, "[[1,2],[3]]"]
    {
        assert!(matches!(parse(bad, limits), Err(InvalidJson::TooLarge(_))), "{bad}");
    }
    let deep = "[".repeat(100_000);
    assert!(matches!(read(&deep), Err(InvalidJson::TooLarge(_))));
}

#[test]
fn finds_members_whose_fingerprints_are_alike() {
    // Alike in length, in the first and in the last eight bytes.
    let (one, other, third) = ("beginning-1-the-end!", "beginning-2-the-end!", "beginning-3-the-end!");
    assert_eq!(super::fingerprint(one), super::fingerprint(other));
    let text = format!(r#"{{"{one}":1,"{other}":2,"a":3}}"#);
    let object = read(&text).unwrap();
    let object = object.as_object().unwrap();
    for (name, value) in [(one, 1), (other, 2), ("a", 3)] {
        assert_eq!(object.get(name), Some(&Value::Integer(value)));
    }
    assert_eq!(object.get(third), None);
    assert!(matches!(
        read(&format!(r#"{{"{one}":1,"{other}":2,"{one}":3}}"#)),
        Err(InvalidJson::Duplicate(_))
    ));
}

use super::{FieldValue, Format, MAX_VALUE_BYTES, MAX_VALUES, Scanner, Step};
use crate::model::BodyField;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// What was found, and how many messages there were; `None`: the body could not be read to its end.
type Found = Option<(Vec<FieldValue>, usize)>;

fn read<'p>(format: Format, fields: &[BodyField], pieces: impl IntoIterator<Item = &'p [u8]>) -> Found {
    let wanted: Vec<u16> = (0..).take(fields.len()).collect();
    let mut scanner = Scanner::new(Some(format), fields, &wanted);
    let mut messages = 0;
    for mut piece in pieces {
        loop {
            match scanner.feed(piece) {
                Step::More => break,
                Step::Message(rest) => {
                    messages += 1;
                    piece = rest;
                }
                Step::Broken => {
                    assert!(scanner.values().iter().all(|value| *value == FieldValue::Unknown));
                    assert!(!scanner.finish());
                    return None;
                }
            }
        }
    }
    if !scanner.finish() {
        assert!(scanner.values().iter().all(|value| *value == FieldValue::Unknown));
        return None;
    }
    Some((scanner.values().to_vec(), messages))
}

/// The same, whatever pieces the body comes in.
fn found(format: Format, fields: &[BodyField], body: &[u8]) -> Found {
    let whole = read(format, fields, [body]);
    assert_eq!(read(format, fields, body.chunks(1)), whole, "{:?}", String::from_utf8_lossy(body));
    for at in 0..body.len() {
        let (first, second) = body.split_at(at);
        assert_eq!(read(format, fields, [first, second]), whole, "cut at {at}");
    }
    whole
}

fn texts(values: &[&str]) -> FieldValue {
    FieldValue::Texts(values.iter().map(|&value| value.to_owned()).collect())
}

fn member(path: &[&[&str]]) -> BodyField {
    BodyField::Json(path.iter().map(|names| names.iter().map(|&name| name.to_owned()).collect()).collect())
}

fn json(body: &str) -> Option<[FieldValue; 3]> {
    let fields =
        [member(&[&["topic"]]), member(&[&["env"], &["runAs", "run_as"]]), member(&[&["pools"], &["image"]])];
    let (values, messages) = found(Format::Json, &fields, body.as_bytes())?;
    assert_eq!(messages, 1);
    Some(values.try_into().unwrap())
}

const ABSENT: FieldValue = FieldValue::Absent;
const UNKNOWN: FieldValue = FieldValue::Unknown;

#[test]
fn finds_members_where_they_are() {
    for (body, expected) in [
        ("{}", [ABSENT, ABSENT, ABSENT]),
        (r#"{"topic":"a"}"#, [texts(&["a"]), ABSENT, ABSENT]),
        (" { \"topic\" : \"a\" } \n", [texts(&["a"]), ABSENT, ABSENT]),
        (r#"{"t\u006fpic":"\u0061\/\n\ud83d\ude00"}"#, [texts(&["a/\n\u{1f600}"]), ABSENT, ABSENT]),
        (r#"{"topic":""}"#, [texts(&[""]), ABSENT, ABSENT]),
        (r#"{"topic":null,"env":null}"#, [ABSENT, ABSENT, ABSENT]),
        (r#"{"topic":12.5e+3,"env":{"runAs":true}}"#, [texts(&["12.5e+3"]), texts(&["true"]), ABSENT]),
        (r#"{"env":{"run_as":"x","topic":"y"},"x":{"topic":"z"}}"#, [ABSENT, texts(&["x"]), ABSENT]),
        (r#"{"pools":[{"image":"a"},{},{"image":"b"},{"image":"a"}]}"#, [ABSENT, ABSENT, texts(&["a", "b"])]),
        (r#"{"topic":["a",["b"],[]]}"#, [texts(&["a", "b"]), ABSENT, ABSENT]),
        (r#"{"other":[1,{"topic":"x"},[[]],{}],"topic":"a"}"#, [texts(&["a"]), ABSENT, ABSENT]),
        // Of another type than it should be.
        (r#"{"topic":{"x":1}}"#, [UNKNOWN, ABSENT, ABSENT]),
        (r#"{"env":"x","pools":[3]}"#, [ABSENT, UNKNOWN, UNKNOWN]),
    ] {
        assert_eq!(json(body), Some(expected), "{body}");
    }
}

#[test]
fn cannot_read_what_some_reader_reads_otherwise() {
    for body in [
        "",
        " ",
        "[]",
        "\"topic\"",
        "{",
        r#"{"topic":"a""#,
        r#"{"topic":"a"}}"#,
        r#"{"topic":"a"} {}"#,
        r#"{"topic":"a",}"#,
        r#"{,"topic":"a"}"#,
        r#"{"topic" "a"}"#,
        r#"{'topic':'a'}"#,
        r#"{topic:"a"}"#,
        r#"{"topic":a}"#,
        r#"{"topic":01}"#,
        r#"{"topic":1.}"#,
        r#"{"topic":+1}"#,
        r#"{"topic":NaN}"#,
        r#"{"topic":"a"/**/}"#,
        "{\"topic\":\"a\nb\"}",
        r#"{"topic":"\x61"}"#,
        r#"{"topic":"\ud83d"}"#,
        r#"{"topic":"\ud83dx"}"#,
        r#"{"topic":"\ud83d\n"}"#,
        r#"{"topic":"\ude00"}"#,
        r#"{"topic":[1}"#,
        r#"{"topic":{]}"#,
        "\u{feff}{}",
        // Twice, under both names, in another case, with a zero that ends it for some.
        r#"{"topic":"a","topic":null}"#,
        r#"{"env":{"runAs":"a","run_as":"b"}}"#,
        r#"{"env":{"runAs":"a"},"env":{}}"#,
        r#"{"Topic":"a"}"#,
        r#"{"env":{"RUNAS":"a"}}"#,
        "{\"topic\\u0000\":\"a\"}",
        // Letters that some fold into others.
        "{\"env\":{\"runA\u{17f}\":\"a\"}}",
        "{\"pools\":{\"\u{131}mage\":\"a\"}}",
        "{\"pools\":{\"\\u0130mage\":\"a\"}}",
    ] {
        assert_eq!(json(body), None, "{body}");
    }
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(64), "]".repeat(64));
    assert_eq!(json(&deep), None);
    // No UTF-8: some readers see the string end elsewhere.
    let fields = [member(&[&["topic"]])];
    for bytes in [
        &b"\xff"[..],
        b"\xc0\xa2",
        b"\xc3",
        b"\xe2\x82",
        b"\xe0\x80\xa2",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf0\x80\x80\xa2",
        b"\x80",
    ] {
        let document = |before: &[u8], after: &[u8]| [before, bytes, after].concat();
        for body in [
            document(b"{\"topic\":\"", b"\"}"),
            document(b"{\"x\":\"", b"\",\"topic\":\"a\"}"),
            document(b"{\"", b"\":1}"),
        ] {
            assert_eq!(found(Format::Json, &fields, &body), None, "{bytes:x?}");
        }
    }
    let whole = "{\"x\":\"\u{e9}\u{20ac}\u{d7ff}\u{1f600}\u{10ffff}\",\"topic\":\"\u{e9}\"}";
    assert_eq!(found(Format::Json, &fields, whole.as_bytes()), Some((vec![texts(&["\u{e9}"])], 1)));
}

#[test]
fn does_not_tell_values_that_are_too_long_or_too_many() {
    // In few pieces: these are long.
    let fields = [member(&[&["topic"]])];
    let json = |body: String| {
        let pieces = body.as_bytes().chunks(1000);
        read(Format::Json, &fields, pieces).map(|(values, _)| values)
    };
    let long = |length: usize| json(format!(r#"{{"topic":"{}"}}"#, "a".repeat(length))).unwrap();
    assert!(matches!(&*long(MAX_VALUE_BYTES), [FieldValue::Texts(_)]));
    assert_eq!(long(MAX_VALUE_BYTES + 1), [UNKNOWN]);
    let many = |count: usize| {
        let values: Vec<String> = (0..count).map(|value| value.to_string()).collect();
        json(format!(r#"{{"topic":[{}]}}"#, values.join(","))).unwrap()
    };
    assert!(matches!(&*many(MAX_VALUES), [FieldValue::Texts(_)]));
    assert_eq!(json(r#"{"topic":"a\u0000b"}"#.to_owned()), Some(vec![UNKNOWN]));
    assert_eq!(many(MAX_VALUES + 1), [UNKNOWN]);
    // All values together.
    let value = |at: usize| format!("\"{at:02}{}\"", "a".repeat(MAX_VALUE_BYTES - 2));
    let together = |count: usize| {
        json(format!(r#"{{"topic":[{}]}}"#, (0..count).map(value).collect::<Vec<_>>().join(",")))
    };
    assert!(matches!(together(8).as_deref(), Some([FieldValue::Texts(_)])));
    assert_eq!(together(9), None);
}

/// A field of a message: key, then length and content, or a varint.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    [varint(u64::from(number << 3 | 2)), varint(u64::try_from(content.len()).unwrap()), content.to_vec()]
        .concat()
}

fn number(field: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(field << 3)), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn grpc(body: &[u8]) -> Option<([FieldValue; 3], usize)> {
    let fields = [vec![1], vec![2, 6], vec![2, 5, 10]].map(BodyField::Protobuf);
    let (values, messages) = found(Format::Grpc, &fields, body)?;
    Some((values.try_into().unwrap(), messages))
}

#[test]
fn finds_fields_of_messages() {
    let one = |parts: &[Vec<u8>]| {
        grpc(&frame(&parts.concat())).map(|(values, messages)| {
            assert_eq!(messages, 1);
            values
        })
    };
    assert_eq!(one(&[]), Some([ABSENT, ABSENT, ABSENT]));
    assert_eq!(one(&[field(1, b"a")]), Some([texts(&["a"]), ABSENT, ABSENT]));
    assert_eq!(one(&[field(1, b"")]), Some([texts(&[""]), ABSENT, ABSENT]));
    // The last one wins for most readers; both are told.
    assert_eq!(
        one(&[field(1, b"a"), field(3, b"x"), field(1, b"b")]),
        Some([texts(&["a", "b"]), ABSENT, ABSENT])
    );
    let inner = [field(5, &[field(9, b"x"), field(10, b"run")].concat()), field(6, b"table")].concat();
    assert_eq!(one(&[field(7, b"z"), field(2, &inner)]), Some([ABSENT, texts(&["table"]), texts(&["run"])]));
    // A message in two parts is merged.
    assert_eq!(
        one(&[field(2, &field(6, b"a")), field(2, b""), field(2, &field(5, &field(10, b"b")))]),
        Some([ABSENT, texts(&["a"]), texts(&["b"])])
    );
    // The number of a field inside another message is another field.
    assert_eq!(one(&[field(2, &field(1, b"a")), field(3, &field(6, b"a"))]), Some([ABSENT, ABSENT, ABSENT]));
    // Of another type than it should be.
    // A number is no text, and no text is a number.
    assert_eq!(one(&[number(1, 300)]), Some([texts(&["#300"]), ABSENT, ABSENT]));
    assert_eq!(one(&[field(1, b"#300")]), Some([UNKNOWN, ABSENT, ABSENT]));
    assert_eq!(one(&[number(1, (1 << 32) + 5)]), Some([UNKNOWN, ABSENT, ABSENT]));
    assert_eq!(one(&[number(2, 1)]), Some([ABSENT, UNKNOWN, UNKNOWN]));
    assert_eq!(one(&[vec![1 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0]]), Some([UNKNOWN, ABSENT, ABSENT]));
    assert_eq!(one(&[vec![3 << 3 | 5, 0, 0, 0, 0], field(1, b"a")]), Some([texts(&["a"]), ABSENT, ABSENT]));
    assert_eq!(one(&[field(1, b"\xff")]), Some([UNKNOWN, ABSENT, ABSENT]));
    // Some readers end it there.
    assert_eq!(one(&[field(1, b"a\0")]), Some([UNKNOWN, ABSENT, ABSENT]));
    assert_eq!(one(&[field(1, &[b'a'; MAX_VALUE_BYTES + 1])]), Some([UNKNOWN, ABSENT, ABSENT]));
    // A longer spelling of the same number.
    assert_eq!(one(&[vec![0x8a, 0x80, 0, 1, b'a']]), Some([texts(&["a"]), ABSENT, ABSENT]));
}

#[test]
fn reads_every_message_of_a_stream() {
    let stream = [frame(&field(1, b"a")), frame(&[]), frame(&field(1, b"b"))].concat();
    assert_eq!(grpc(&stream), Some(([texts(&["a", "b"]), ABSENT, ABSENT], 3)));
    assert_eq!(grpc(b""), Some(([ABSENT, ABSENT, ABSENT], 0)));
    // A message is told before the next one is read.
    let fields = [BodyField::Protobuf(vec![1])];
    let mut scanner = Scanner::new(Some(Format::Grpc), &fields, &[0]);
    let Step::Message(rest) = scanner.feed(&stream) else { panic!("no message") };
    assert_eq!(scanner.values(), [texts(&["a"])]);
    assert!(matches!(scanner.feed(rest), Step::Message(_)));
}

#[test]
fn cannot_read_broken_messages() {
    for message in [
        vec![0],                   // field 0
        vec![1 << 3 | 3],          // a group
        vec![1 << 3 | 4],          // its end
        vec![1 << 3 | 6],          // no wire type
        vec![1 << 3 | 2],          // no length
        vec![1 << 3 | 2, 2, b'a'], // longer than the message
        vec![2 << 3 | 2, 3, 6 << 3 | 2, 2, b'a'],
        vec![2 << 3 | 2, 2, 6 << 3 | 2, 1, b'a'], // longer than the message around
        vec![2 << 3 | 2, 1, 6 << 3],              // ends within a field
        [vec![1 << 3], vec![0xff; 10], vec![1]].concat(),
        [vec![1 << 3], vec![0xff; 9], vec![2]].concat(),
    ] {
        assert_eq!(grpc(&frame(&message)), None, "{message:?}");
    }
    // Compressed, cut off, and with something behind.
    assert_eq!(grpc(&[1, 0, 0, 0, 0]), None);
    assert_eq!(grpc(&frame(&field(1, b"a"))[..6]), None);
    assert_eq!(grpc(&[frame(&field(1, b"a")), vec![0]].concat()), None);
}

#[test]
fn a_body_of_an_unknown_format_says_nothing() {
    let fields = [member(&[&["topic"]]), BodyField::Protobuf(vec![1])];
    let mut scanner = Scanner::new(None, &fields, &[0, 1]);
    assert_eq!(scanner.feed(b"{}"), Step::Broken);
    assert_eq!(scanner.values(), [UNKNOWN, UNKNOWN]);
    // A field of the other format is not there to be found, nor one that nobody wants.
    let mut scanner = Scanner::new(Some(Format::Json), &fields, &[1]);
    assert!(matches!(scanner.feed(b"{\"topic\":\"a\"}"), Step::Message(b"")));
    assert!(scanner.finish());
    assert_eq!(scanner.values(), [UNKNOWN, UNKNOWN]);
    for (content_type, format) in [
        ("application/json", Some(Format::Json)),
        ("Application/JSON; charset=UTF-8", Some(Format::Json)),
        ("application/json; charset=utf-16", None),
        ("application/json; charset=utf-8; charset=utf-16", None),
        ("application/grpc", Some(Format::Grpc)),
        ("application/grpc+proto", Some(Format::Grpc)),
        ("application/grpc+json", None),
        ("application/grpc-web", None),
        ("application/x-protobuf", None),
        ("text/plain", None),
        ("", None),
    ] {
        assert_eq!(Format::of(content_type.as_bytes()), format, "{content_type}");
    }
}

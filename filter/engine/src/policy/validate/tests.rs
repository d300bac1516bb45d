use super::*;
use crate::encode::{encode, section};
use crate::model::{
    ClaimRef, Condition, Disclosure, Effect, FromModel, IssuerModel, Lease, Mode, Offset, Operand,
    OperationModel, PathPattern, Pattern, PeerModel, PolicyModel, Relation, RuleModel, Schedule,
    SegmentPattern, Test, TextTest, Window, Zone,
};

fn texts(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|position| format!("{prefix}-{position}")).collect()
}

/// `count` rules, each of its own namespace, that all list the same accounts, paths and claim values.
fn sharing(count: usize, listed: usize) -> PolicyModel {
    let rule = |position: usize| {
        let claim = Condition::Claim(ClaimRef { issuer: 0, slot: 0 }, Test::OneOf(texts("value", listed)));
        let from = FromModel {
            peer: PeerModel::Mesh {
                trust_domain: "prod.example".into(),
                namespace: format!("namespace-{position}"),
                service_accounts: Some(texts("account", listed)),
            },
            issuers: vec![0],
            condition: Condition::All(vec![claim, Condition::True]),
        };
        let path = |text| PathPattern { segments: vec![SegmentPattern::Literal(text)] };
        let operation = OperationModel {
            methods: Some(vec![format!("METHOD-{position}")]),
            paths: Some(texts("path", listed).into_iter().map(path).collect()),
            ..OperationModel::default()
        };
        RuleModel {
            id: format!("sales/rule-{position}"),
            // The index lists no accounts of a Deny.
            effect: Effect::Deny,
            mode: Mode::Enforce,
            owner: String::new(),
            contact: String::new(),
            disclosure: Disclosure::Full,
            audit: Default::default(),
            lease: Lease::default(),
            revokes: false,
            from: vec![from],
            to: Some(vec![operation]),
        }
    };
    PolicyModel {
        issuers: vec![IssuerModel { name: "a".into(), slots: vec![vec!["x".into()]] }],
        directories: vec!["d".into()],
        rules: (0..count).map(|at| rule(at).into()).collect(),
        ..PolicyModel::default()
    }
}

/// A section's parts, to be changed.
struct Parts {
    tables: Vec<Vec<u32>>,
    packed: Vec<Vec<u32>>,
    text: Vec<u8>,
}

fn records<const FIELDS: usize>(policy: &PolicySet, table: Packed) -> Vec<u32> {
    (0..word(policy.packed_count(table))).flat_map(|record| policy.packed::<FIELDS>(table, record)).collect()
}

// === impl Parts ===

impl Parts {
    fn of(model: &PolicyModel) -> Self {
        let policy = PolicySet::decode(&encode(model).unwrap()).unwrap();
        let tables = Table::ALL.iter().map(|table| policy.table(*table).to_vec()).collect();
        let packed = Packed::ALL.map(|table| match table.fields() {
            1 => records::<1>(&policy, table),
            2 => records::<2>(&policy, table),
            3 => records::<3>(&policy, table),
            4 => records::<4>(&policy, table),
            _ => records::<5>(&policy, table),
        });
        Self { tables, packed: packed.into(), text: policy.text().to_vec() }
    }

    fn table(&mut self, table: Table) -> &mut Vec<u32> {
        &mut self.tables[table.position()]
    }

    fn packed(&mut self, table: Packed) -> &mut Vec<u32> {
        &mut self.packed[table.position()]
    }

    /// Appends a record or run; returns where it is, in words.
    fn add(&mut self, table: Table, words: &[u32]) -> usize {
        let at = self.table(table).len();
        self.table(table).extend_from_slice(words);
        at
    }

    /// Changes one word.
    fn set(mut self, table: Table, word: usize, value: u32) -> Self {
        self.table(table)[word] = value;
        self
    }

    /// Changes one field.
    fn put(mut self, table: Packed, field: usize, value: u32) -> Self {
        self.packed(table)[field] = value;
        self
    }

    fn decoded(&self) -> Result<PolicySet, InvalidRules> {
        PolicySet::decode(&section(&self.tables, &self.packed, &self.text))
    }

    fn refusal(&self) -> String {
        self.decoded().err().map_or_else(|| "accepted".to_owned(), |error| error.to_string())
    }
}

fn small() -> Parts {
    Parts::of(&sharing(2, 3))
}

/// How many records and list items decoding looks at, and how many words there are.
fn work(parts: &Parts) -> (usize, usize) {
    let policy = parts.decoded().unwrap();
    let records: usize = Packed::ALL.iter().map(|table| policy.packed_count(*table)).sum();
    let strings = policy.text().len() / 4;
    (validate(&policy).unwrap().looked_at, policy.words.len() + records + strings)
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn a_long_list_that_many_records_share_is_looked_through_once() {
    let (rules, listed) = (100, 200);
    let (looked_at, words) = work(&Parts::of(&sharing(rules, listed)));
    assert!(looked_at <= words, "{looked_at} looks at {words} words");
    // Three lists for each rule would be more than that.
    assert!(3 * rules * listed > 3 * words, "{words} words");
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn conditions_that_share_their_children_are_measured_once() {
    let mut parts = small();
    let children = 1000;
    let truth = parts.add(Table::Conditions, &[code::TRUE, 0, 0, 0]) / 4;
    let mut run = vec![word(children)];
    run.extend(vec![word(truth); children]);
    let list = parts.add(Table::Lists, &run);
    for _ in 0..children {
        parts.add(Table::Conditions, &[code::ALL, word(list), 0, 0]);
    }
    let (looked_at, words) = work(&parts);
    assert!(looked_at <= words && children * children > words, "{looked_at} looks at {words} words");
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn a_small_section_with_a_condition_that_takes_years_is_refused() {
    let doubled = |times: u32| {
        let mut parts = small();
        let mut child = parts.add(Table::Conditions, &[code::TRUE, 0, 0, 0]) / 4;
        for _ in 0..times {
            let list = parts.add(Table::Lists, &[2, word(child), word(child)]);
            child = parts.add(Table::Conditions, &[code::ANY, word(list), 0, 0]) / 4;
        }
        parts.refusal()
    };
    assert_eq!(doubled(11), "accepted");
    assert!(doubled(12).ends_with("a condition has too many parts"), "{}", doubled(12));
    assert!(doubled(31).ends_with("a condition has too many parts"));
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn lists_and_postings_are_referred_to_where_they_begin() {
    assert_eq!(small().refusal(), "accepted");
    let mut parts = small();
    let accounts = parts.packed(Packed::Froms)[1];
    assert_eq!(accounts & 1, 1, "a list");
    // The list of accounts, from its second word on: what stands there is an account.
    let inside = parts.put(Packed::Froms, 1, accounts + 2).refusal();
    assert!(inside.ends_with("froms[0] is invalid: it refers to a list that is not there"), "{inside}");
    let mut parts = small();
    let beyond = word(parts.table(Table::Lists).len());
    let beyond = parts.put(Packed::Froms, 1, beyond << 1 | 1).refusal();
    assert!(beyond.ends_with("froms[0] is invalid: it refers to a list that is not there"), "{beyond}");
    let mut parts = small();
    parts.add(Table::Lists, &[2, 0]);
    assert!(parts.refusal().contains("lists["), "{}", parts.refusal());
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn entries_of_the_index_are_all_in_some_bucket_and_point_to_something() {
    let last = |table: Packed, value: u32| {
        let mut parts = small();
        *parts.packed(table).last_mut().unwrap() = value;
        parts.refusal()
    };
    let entries = word(small().packed(Packed::Entries).len() / 2);
    assert_eq!(last(Packed::Starts, entries), "accepted");
    let short = last(Packed::Starts, entries - 1);
    assert_ne!(short, "accepted");
    for wrong in [entries + 1, NONE] {
        let refusal = last(Packed::Starts, wrong);
        assert!(refusal.ends_with("a bucket does not begin where the one before it ends"), "{refusal}");
    }
    for wrong in [2 << 2 | code::TARGET_RULE, code::TARGET_CLAUSE, NONE - 3] {
        let refusal = last(Packed::Entries, wrong);
        assert!(refusal.ends_with("it refers to a record that is not there"), "{wrong} {refusal}");
    }
    assert!(last(Packed::Entries, 3).ends_with("unknown kind of target"));
    let mut parts = small();
    *parts.packed(Packed::Starts) = vec![0, 2];
    *parts.packed(Packed::Entries) = vec![7, 0, 6, 4];
    assert!(parts.refusal().ends_with("a bucket's entries are not in order"), "{}", parts.refusal());
    *parts.packed(Packed::Entries) = vec![7, 0, 7, 4];
    assert_eq!(parts.refusal(), "accepted");
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn paths_end() {
    let mut parts = small();
    let node = word(parts.packed(Packed::Nodes).len() / 2);
    parts.packed(Packed::Nodes).extend([code::SEGMENT_ONE, code::PATH_NODES + node - 1]);
    assert_eq!(parts.refusal(), "accepted");
    let next = parts.packed(Packed::Nodes).len() - 1;
    for next_node in [node, node + 1] {
        parts.packed(Packed::Nodes)[next] = code::PATH_NODES + next_node;
        assert!(parts.refusal().ends_with("what follows does not come before it"), "{}", parts.refusal());
    }
}

/// A list that is good as one thing is not taken for another.
#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn what_is_a_list_of_one_thing_is_not_one_of_another() {
    let mut parts = small();
    let last = word(parts.text.len());
    parts.text.extend_from_slice(b"\x01x");
    let list = word(parts.add(Table::Lists, &[1, last])) << 1 | 1;
    // First as a from's accounts, which are strings, then as a rule's froms, of which there are not so many.
    let parts = parts.put(Packed::Froms, 1, list);
    assert_eq!(parts.refusal(), "accepted");
    let mistaken = parts.put(Packed::Rules, 2, list).refusal();
    assert!(mistaken.ends_with("rules[0] is invalid: it refers to a record that is not there"), "{mistaken}");
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn strings_lie_one_behind_the_other() {
    let with = |text: &[u8]| {
        let mut parts = small();
        parts.text.extend_from_slice(text);
        parts.refusal()
    };
    let long = [&[64 | 36, 1][..], &[b'x'; 100]].concat();
    for good in [&b""[..], b"\0", b"\x01x", b"\x02\xC3\xA9", &long] {
        assert_eq!(with(good), "accepted", "{good:?}");
    }
    // Too short, cut inside of a character, not UTF-8, a length with two spellings or without an end.
    let bad: [&[u8]; 8] = [
        b"\x01",
        b"\x02x",
        b"\x01\xC3\xA9",
        b"\x01\xC3",
        b"\x41\x00x",
        b"\x41",
        b"\x7F\x7F\x7F\x7F\x7F\x01",
        b"\x80",
    ];
    for bad in bad {
        assert!(with(bad).ends_with("text is not UTF-8"), "{bad:?} {}", with(bad));
    }
    let mut parts = small();
    let id = parts.packed(Packed::Rules)[0];
    let inside = parts.put(Packed::Rules, 0, id + 1).refusal();
    assert!(inside.ends_with("rules[0] is invalid: it refers to a string that is not there"), "{inside}");
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn what_a_later_engine_may_mean_is_refused() {
    let flags = |bit: u32| {
        let mut parts = small();
        let flags = parts.packed(Packed::Heads)[0];
        parts.put(Packed::Heads, 0, flags | bit).refusal()
    };
    assert_eq!(flags(code::RULE_KEEP), "accepted");
    let grace = |flags: u32| {
        let parts = small();
        parts.put(Packed::Heads, 0, flags | 1 << code::RULE_GRACE_SHIFT).refusal()
    };
    assert_eq!(grace(0), "accepted");
    // What a Deny has there is no grace.
    assert!(grace(code::RULE_DENY).ends_with("and is no enforced Deny of any operation"));
    assert!(flags(code::RULE_REVOKES << 1).ends_with("unknown flags"));
    for bit in [code::RULE_AUDIT_FULL, code::RULE_AUDIT_REQUIRED] {
        assert_eq!(flags(bit), "accepted");
    }
    assert!(flags(1 << 7).ends_with("unknown flags"), "{}", flags(1 << 7));
    let operator = |operator: u32, b: u32| {
        let mut parts = small();
        parts.add(Table::Conditions, &[operator, 0, b, 0]);
        parts.refusal()
    };
    assert_eq!(operator(code::LISTED_OR_STALE, 0), "accepted");
    let dangling = operator(code::LISTED_OR_STALE, 1);
    assert!(dangling.ends_with("it refers to a record that is not there"), "{dangling}");
    assert!(operator(code::WITHIN + 1, 0).ends_with("unknown operator"));
}

/// A section whose only condition of a from reads each kind of thing that can dangle.
fn reading() -> Parts {
    let mut model = sharing(1, 1);
    let claim = ClaimRef { issuer: 0, slot: 0 };
    let pattern = Pattern {
        source: String::new(),
        classes: vec![0; 256],
        class_count: 1,
        start: 2,
        ends_from: 3,
        transitions: vec![1],
    };
    let zone = Zone { name: String::new(), offsets: vec![Offset { since: 0, seconds: 3600 }], until: 1000 };
    model.rules[0].from[0].condition = Condition::All(vec![
        Condition::Text(Operand::Header("x-env".into()), TextTest::Pattern(pattern)),
        Condition::Text(Operand::Claim(claim), TextTest::OneOf(vec!["a".into()])),
        Condition::Compare(
            Operand::Plus(Box::new(Operand::Claim(claim)), 1),
            Relation::Less,
            Operand::Boolean(true),
        ),
        Condition::Within(Schedule { zone, windows: vec![Window { days: 1, from: 0, to: 1440 }] }),
    ]);
    Parts::of(&model)
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn what_a_condition_reads_is_there_and_whole() {
    assert_eq!(reading().refusal(), "accepted");
    let operand = |kind: u32, a: u32, expected: &str| {
        let mut parts = reading();
        parts.add(Table::Operands, &[kind, a, 0, 0]);
        assert!(parts.refusal().ends_with(expected), "{kind} {a}: {}", parts.refusal());
    };
    operand(0, 0, "unknown kind of operand");
    operand(code::OPERAND_BODY + 1, 0, "unknown kind of operand");
    operand(code::OPERAND_BODY, 0, "no body has this field");
    operand(code::OPERAND_TEXT, 9999, "it refers to a string that is not there");
    operand(code::OPERAND_CLAIM, 1, "it reads a claim without a slot");
    operand(code::OPERAND_BOOLEAN, 2, "it is neither true nor false");
    operand(code::OPERAND_LENGTH, 9999, "it refers to an operand that is not there");
    let mut parts = reading();
    parts.add(Table::Operands, &[code::OPERAND_BODY, 0, 1, 0]);
    assert!(parts.refusal().ends_with("fields of bodies are not numbered in order"), "{}", parts.refusal());
    let mut parts = reading();
    let first = parts.table(Table::Operands).len() / 4;
    for position in 0..4 {
        parts.add(Table::Operands, &[code::OPERAND_LENGTH, word(first + position), 0, 0]);
    }
    assert!(parts.refusal().ends_with("it refers to an operand that is not there"), "{}", parts.refusal());
    let mut parts = reading();
    let mut inner = parts.add(Table::Operands, &[code::OPERAND_NOW, 0, 0, 0]) / 4;
    for _ in 0..4 {
        inner = parts.add(Table::Operands, &[code::OPERAND_LENGTH, word(inner), 0, 0]) / 4;
    }
    assert!(parts.refusal().ends_with("operands are nested too deep"), "{}", parts.refusal());
    // A header's name in upper case: no request has it.
    let mut parts = reading();
    let end = parts.text.len();
    parts.text.extend_from_slice(b"\x01X");
    parts.add(Table::Operands, &[code::OPERAND_HEADER, word(end), 0, 0]);
    assert!(parts.refusal().ends_with("no header has this name"), "{}", parts.refusal());
    let condition = |record: [u32; 4], expected: &str| {
        let mut parts = reading();
        parts.add(Table::Conditions, &record);
        assert!(parts.refusal().ends_with(expected), "{record:?}: {}", parts.refusal());
    };
    condition([code::EQUAL, 0, 9999, 0], "it refers to an operand that is not there");
    condition([code::TEXT_PRESENT, 9999, 0, 0], "it refers to an operand that is not there");
    condition([code::TEXT_ONE_OF, 0, NONE, 0], "a list is missing");
    condition([code::TEXT_PREFIX, 0, 9999, 0], "it refers to a string that is not there");
    condition([code::TEXT_PATTERN, 0, 1, 0], "it refers to an automaton that is not there");
    condition([code::WITHIN, 1, 0, 0], "it refers to a time zone that is not there");
    condition([code::WITHIN, 0, NONE, 0], "a list is missing");
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn an_operation_reads_no_claims() {
    let mut parts = reading();
    assert_eq!(parts.packed(Packed::Operations)[2], NONE);
    let condition = parts.packed(Packed::Demands)[2];
    let refusal = parts.put(Packed::Operations, 2, condition).refusal();
    assert!(refusal.ends_with("it reads a claim, and demands no token"), "{refusal}");
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn automata_zones_and_windows_are_what_they_say() {
    // Words of the run: its length, sizes, bounds, 64 words of classes, transitions.
    for (at, value, expected) in [
        (0, 1, "an automaton is cut off"),
        (1, 0x0001_0001, "an automaton has no states or classes"),
        (1, 0x0000_0003, "an automaton has no states or classes"),
        (1, 0x0101_0003, "an automaton has no states or classes"),
        (1, 0x0001_0005, "an automaton has another size than it says"),
        (2, 0x0003_0003, "an automaton refers to a state that is not there"),
        (2, 0x0001_0002, "an automaton refers to a state that is not there"),
        (2, 0x0004_0002, "an automaton refers to a state that is not there"),
        (3, 1, "an automaton refers to a class that is not there"),
        (67, 3, "an automaton refers to a state that is not there"),
        (67, 0x0001_0001, "something follows an automaton"),
    ] {
        let refusal = reading().set(Table::Automata, at, value).refusal();
        let cut = at == 0 && refusal.contains("automata[");
        assert!(cut || refusal.ends_with(expected), "{at} {value:x}: {refusal}");
    }
    // Words of the run: its length, until, since, seconds.
    for (at, value, expected) in [
        (0, 4, "a time zone has no offsets"),
        (1, 0, "a time zone's offsets are not in the order of time"),
        (5, 86_400, "a time zone's offset is a day or more"),
        (5, 86_400_u32.wrapping_neg(), "a time zone's offset is a day or more"),
    ] {
        let refusal = reading().set(Table::Zones, at, value).refusal();
        let cut = at == 0 && refusal.contains("zones[");
        assert!(cut || refusal.ends_with(expected), "{at} {value:x}: {refusal}");
    }
    for window in [0, 1, 0x80 | 1 << 20, 1 | 5 << 8 | 5 << 20, 1 | 1441 << 20] {
        let mut parts = reading();
        let list = parts.add(Table::Lists, &[1, window]);
        parts.add(Table::Conditions, &[code::WITHIN, 0, word(list), 0]);
        assert!(parts.refusal().ends_with("a window has no time in it"), "{window:x}: {}", parts.refusal());
    }
}

//! Rules with everything that the Fence has words for, and requests about them.

use tidegate_tests::raw::Random;

/// Rules with everything that the Fence has words for, at these ports.
pub fn rules(ports: &[u16], method: &str) -> String {
    let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let rule = |name: &str, effect: &str, from: &str, to: &str| {
        format!(
            "---\nkind: AccessRule\nmetadata: {{name: {name}, namespace: sales}}\nspec: {{owner: a, effect: {effect}, \
             mode: Enforce, from: [{from}], to: [{{http: {to}}}]}}\n"
        )
    };
    let mut all = format!(
        "kind: Guard\nmetadata: {{name: sales, namespace: sales}}\nspec: {{mode: Enforce, ports: [{ports}], audience: a}}\n"
    );
    for (name, effect, from, to) in [
        (
            "a",
            "Allow",
            "{peer: {namespace: etl, serviceAccounts: [orders-worker]}}",
            "{methods: [POST], paths: ['/v1/orders/{id}', '/v1/topics/x:publish', '/v1/a%20b']}",
        ),
        (
            "b",
            "Allow",
            "{peer: {namespace: ops}}",
            &format!(
                "{{methods: [{method}], paths: ['/v1/{{**}}', '/v2/orders-*', '/v3/{{a}}/lines', '/v3/{{a}}/']}}"
            ),
        ),
        (
            "c",
            "Allow",
            "{anyMesh: true}",
            "{methods: [GET], paths: ['/', '/pub/{**}'], hosts: [orders.sales.example]}",
        ),
        (
            "d",
            "Allow",
            "{anyMesh: true}",
            "{methods: [GET], paths: ['/any/{x}/{**}'], hosts: ['*.sales.example'], headers: [{name: x-env, prefix: pr}]}",
        ),
        ("e", "Deny", "{anyMesh: true}", "{methods: [DELETE, PUT], paths: ['/v1/{a}', '/v1/admin/{**}']}"),
        (
            "f",
            "Deny",
            "{peer: {namespace: ops, serviceAccounts: [guest]}}",
            "{paths: ['/v1/orders', '/v1/{a}/x/{**}']}",
        ),
        ("g", "Deny", "{anyone: true}", "{hosts: ['*.internal.example', internal.example]}"),
    ] {
        all.push_str(&rule(name, effect, from, to));
    }
    all
}

/// A request at the service.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The peer, as cases name it.
    pub peer: &'static str,
    /// As sent.
    pub method: &'static str,
    /// As sent.
    pub host: &'static str,
    /// As sent.
    pub path: &'static str,
    /// Further headers.
    pub headers: &'static [(&'static str, &'static str)],
}

const PEERS: [&str; 6] = [
    "etl/orders-worker",
    "etl/other",
    "ops/admin",
    "ops/guest",
    "nobody/x",
    "spiffe://dev.example/ns/ops/sa/admin",
];
const AIMED: [(&str, &str); 3] = [("etl/orders-worker", "POST"), ("ops/admin", "GET"), ("nobody/x", "GET")];
const METHODS: [&str; 5] = ["GET", "POST", "DELETE", "PUT", "get"];
const HOSTS: [&str; 8] = [
    "orders.sales.example",
    "orders.sales.example",
    "ORDERS.sales.example:8443",
    "orders.sales.example.",
    "a.b.sales.example:80",
    "internal.example:1",
    "x.internal.example",
    "orders.sales.example:x",
];
const PATHS: [&str; 36] = [
    "/",
    "/?a=/v1",
    "/pub",
    "/pub/",
    "/pub/a/b",
    "/public",
    "/v1",
    "/v1/",
    "/v1/orders",
    "/v1/orders/",
    "/v1/orders/7",
    "/v1/orders/7?x=/../y",
    "/v1/%6frders/7",
    "/v1/%6Frders/%37",
    "/v1/orders/7/",
    "/v1/orders/a%20b",
    "/v1/orders/a%2Fb",
    "/v1/orders/a;b",
    "/v1/orders//7",
    "/v1/orders/./7",
    "/v1/orders/../orders/7",
    "/v1/topics/x:publish",
    "/v1/topics/x%3Apublish",
    "/v1/topics/x%3apublish",
    "/v1/topics/%78:publish",
    "/v1/a%20b",
    "/v1/a/x/y",
    "/v1/admin/a/b",
    "/v2/orders-7",
    "/v2/orders-7/x",
    "/v2/orders%2d7",
    "/v3/a/lines",
    "/v3/a/%6cines",
    "/v3/a%40b/lines",
    "/v3/a/",
    "/any/a:b/c",
];
const HEADERS: [&[(&str, &str)]; 5] = [
    &[],
    &[("x-env", "prod")],
    &[("x-env", "test")],
    &[("x-env", "")],
    &[("x-http-method-override", "DELETE")],
];

/// So many of them, by peer.
pub fn by_chance(count: u64) -> Vec<Sent> {
    fn pick<T: Copy>(random: &mut Random, all: &[T]) -> T {
        let at = random.below(all.len() as u64);
        all[usize::try_from(at).unwrap_or(0)]
    }
    let mut random = Random(7);
    let mut all: Vec<Sent> = (0..count)
        .map(|number| {
            let mut sent = Sent {
                peer: pick(&mut random, &PEERS),
                method: pick(&mut random, &METHODS),
                host: pick(&mut random, &HOSTS),
                path: pick(&mut random, &PATHS),
                headers: pick(&mut random, &HEADERS),
            };
            // Every other one is aimed: by chance alone, few are allowed.
            if number % 2 == 0 {
                sent.host = pick(&mut random, &HOSTS[..5]);
                (sent.peer, sent.method) = pick(&mut random, &AIMED);
                sent.headers = HEADERS[1];
            }
            sent
        })
        .collect();
    // One connection for each peer and chain.
    all.sort_by_key(|sent| sent.peer);
    all
}

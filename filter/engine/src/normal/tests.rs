use super::*;

fn shown(raw: &str) -> String {
    let path = path(raw.as_bytes());
    assert!(!path.ambiguous(), "{raw} is ambiguous");
    path.display().to_string()
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn equivalent_spellings_of_a_path_read_the_same() {
    assert_eq!(shown("/v1/orders?x=/../y#z"), "/v1/orders");
    assert_eq!(shown("/v1/%6Frders"), "/v1/orders");
    assert_eq!(shown("/v1/a%3ab%40c"), "/v1/a:b@c");
    assert_eq!(shown("/v1/%c3%a9%20x"), "/v1/%C3%A9%20x");
    assert_eq!(shown("/"), "/");
    assert_eq!(shown("/v1/"), "/v1/");
    assert_eq!(path(b"/").segments().count(), 0);
    assert_eq!(path(b"/a/b/").segments().collect::<Vec<_>>(), ["a", "b"]);
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn what_a_server_may_read_otherwise_is_ambiguous() {
    for raw in [
        "",
        "*",
        "v1/orders",
        "//",
        "//v1",
        "/v1//orders",
        "/v1/orders//",
        "/v1/./orders",
        "/v1/../admin",
        "/v1/%2e%2e/admin",
        "/v1/%2E/admin",
        "/v1%2forders",
        "/v1%2Forders",
        "/v1%5cadmin",
        "/v1\\admin",
        "/v1/%252e",
        "/v1/%00",
        "/v1/%0d%0a",
        "/v1/%",
        "/v1/%4",
        "/v1/%zz",
        "/v1;x/orders",
        "/v1%3bx",
        "/v1/a#b",
        "/v1/a b",
        "/v1/\"",
        "/v1/\u{e9}",
        "/v1/%3f",
        "http://host/v1",
        "/%c0%ae%c0%ae/x",
        "/%c0%af",
        "/%85",
        "/admin.",
        "/v1/admin%20/x",
    ] {
        assert!(path(raw.as_bytes()).ambiguous(), "{raw:?} is taken as {}", path(raw.as_bytes()).display());
    }
    assert!(path(b"/v1/\xff").ambiguous());
    assert!(path(b"/v1/\x7f").ambiguous());
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn encoded_slashes_are_data_or_separate_and_nothing_else_may_be_odd() {
    for (raw, data, separated) in [
        ("/b/lake/o/raw%2F2026%2fa.csv?x", "/b/lake/o/raw%2F2026%2Fa.csv", "/b/lake/o/raw/2026/a.csv"),
        ("/v1%2F%6frders/", "/v1%2Forders/", "/v1/orders/"),
    ] {
        let read = path(raw.as_bytes());
        assert!(read.ambiguous(), "{raw}");
        let (kept, split) = read.readings().unwrap();
        assert_eq!((kept.text(), split.text()), (data, separated), "{raw}");
        assert!(!kept.ambiguous() && kept.keeps_slashes() && !split.ambiguous() && !split.keeps_slashes());
        assert_eq!(split, path(separated.as_bytes()));
        assert!(kept.readings().is_none() && split.readings().is_none());
    }
    for raw in [
        "/v1/orders",
        "/v1%2F",
        "/%2Fv1",
        "/v1%2F%2Fx",
        "/v1%2F..%2Fx",
        "/v1%2F.%2Fx",
        "/v1%2F%2e%2e%2Fx",
        "/v1%2Fx.",
        "/v1%2Fx%20%2Fy",
        "/v1%2F../x",
        "/v1%2Fx;y",
        "/v1%2Fx%5Cy",
        "/v1%252Fx",
        "/v1%2Fx//y",
        "/v1%2Fx%C0%AFy",
        "v1%2Fx",
    ] {
        assert!(path(raw.as_bytes()).readings().is_none(), "{raw}");
    }
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn hosts_lose_case_port_and_trailing_dot() {
    for (raw, expected) in [
        ("orders.sales.example", "orders.sales.example"),
        ("Orders.Sales.Example:8443", "orders.sales.example"),
        ("orders.", "orders"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
    ] {
        assert_eq!(host(raw.as_bytes()).as_deref(), Some(expected), "{raw}");
    }
    for raw in [
        "", ":80", "a b", "a/b", "a@b", "a:b", "a:80:80", "a:", "a:123456", "a..b", ".a", "a..", "[", "[]",
        "[::1", "[::1]x", "[zz]", "a,b", "a\u{e9}",
    ] {
        assert_eq!(host(raw.as_bytes()), None, "{raw:?}");
    }
    assert_eq!(host(b"a\xff"), None);
}

fn facts(headers: &[(&str, &str)]) -> HeaderFacts {
    header_facts(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn headers_that_override_or_repeat_are_noticed() {
    assert_eq!(facts(&[("accept", "a"), ("accept", "b"), ("x-request-id", "1")]), HeaderFacts::default());
    let overriding = [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "x-original-uri",
    ];
    for name in overriding {
        assert!(facts(&[(name, "PUT")]).overrides, "{name}");
        assert!(facts(&[(&name.replace('-', "_"), "PUT")]).overrides, "{name}");
        assert!(facts(&[(&name.replacen('-', "_", 1), "PUT")]).overrides, "{name}");
    }
    assert!(facts(&[("content-type", "a/b,c/d")]).duplicates, "joined by Envoy");
    assert!(facts(&[("authorization", "Bearer a,Bearer b")]).duplicates, "joined by Envoy");
    assert!(!facts(&[("authorization", "AWS4-HMAC-SHA256 Credential=a, Signature=b")]).duplicates);
    assert!(facts(&[("content_type", "a/b")]).duplicates, "the other spelling");
    assert!(
        is_own_header(b"x-tidegate-")
            && is_own_header(b"x_tidegate-decision")
            && is_own_header(b"x_tidegate_a")
    );
    assert!(!is_own_header(b"x-tidegat") && !is_own_header(b"x-tidegates"));
    for name in [":method", ":path", ":authority", "host", "content-type", "authorization", "content-length"]
    {
        assert!(!facts(&[(name, "a")]).duplicates, "{name}");
        assert!(facts(&[(name, "a"), (name, "a")]).duplicates, "{name}");
    }
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn only_grpc_content_types_are_grpc() {
    for (value, expected) in [
        ("application/grpc", true),
        ("Application/gRPC+proto", true),
        ("application/grpc;charset=x", true),
        ("application/grpc-web", false),
        ("application/grpcx", false),
        ("application/json", false),
        ("", false),
    ] {
        assert_eq!(facts(&[("content-type", value)]).grpc, expected, "{value}");
    }
    assert!(!facts(&[("content-type", "application/grpc"), ("content-type", "application/grpc")]).grpc);
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn methods_are_tokens() {
    for good in ["GET", "M-SEARCH", "VERSION-CONTROL"] {
        assert!(is_method(good.as_bytes()), "{good}");
    }
    for bad in ["", "get", "Delete", "GET ", "G\u{e9}T", "A/B"] {
        assert!(!is_method(bad.as_bytes()), "{bad:?}");
    }
}

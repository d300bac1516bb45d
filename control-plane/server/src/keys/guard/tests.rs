use super::*;

fn closed() -> AddressGuard {
    AddressGuard::default()
}

fn loopback() -> AddressGuard {
    AddressGuard::new(true, [])
}

fn networks(allowed: &[&str]) -> AddressGuard {
    AddressGuard::new(false, allowed.iter().map(|network| network.parse().unwrap()))
}

#[test]
fn special_addresses_are_refused_in_every_spelling() {
    for address in [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:a9fe:a9fe",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:a9fe:a9fe::1",
        "2002:7f00:1::",
        "2001::1",
        "2001:db8::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "100::1",
    ] {
        assert!(!closed().allows(address.parse().unwrap()), "{address}");
    }
}

#[test]
fn public_addresses_pass() {
    for address in [
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.0.1",
        "172.32.0.1",
        "198.17.0.1",
        "198.20.0.1",
        "168.63.129.15",
        "2001:4860:4860::8888",
        "2606:4700::1111",
        "64:ff9b::808:808",
    ] {
        assert!(closed().allows(address.parse().unwrap()), "{address}");
    }
}

#[test]
fn allowing_loopback_allows_nothing_else() {
    for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        assert!(loopback().allows(address.parse().unwrap()), "{address}");
    }
    for address in ["10.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0", "::"] {
        assert!(!loopback().allows(address.parse().unwrap()), "{address}");
    }
}

#[tokio::test]
async fn a_name_that_resolves_to_loopback_only_is_refused() {
    let resolve = |guard: AddressGuard| guard.resolve("localhost".parse().unwrap());
    let error = resolve(closed()).await.err().unwrap().to_string();
    assert!(error.contains("`localhost`") && error.contains("loopback"), "{error}");
    assert!(resolve(loopback()).await.unwrap().all(|address| address.ip().is_loopback()));
}

#[test]
fn an_allowed_network_lets_in_its_addresses_however_they_are_written() {
    let guard = networks(&["10.20.0.0/16", "fd12:3456::/32"]);
    for address in
        ["10.20.0.1", "10.20.255.255", "::ffff:10.20.0.1", "64:ff9b::a14:1", "fd12:3456::1", "8.8.8.8"]
    {
        assert!(guard.allows(address.parse().unwrap()), "{address}");
    }
    for address in ["10.21.0.1", "192.168.0.1", "127.0.0.1", "::1", "fd12:3457::1", "::ffff:10.21.0.1"] {
        assert!(!guard.allows(address.parse().unwrap()), "{address}");
    }
}

#[test]
fn metadata_services_stay_refused_when_every_private_network_is_allowed() {
    let guard = networks(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]);
    assert!(guard.allows("100.100.100.201".parse().unwrap()));
    for address in [
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
        "fe80::a9fe:a9fe",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ] {
        assert!(!guard.allows(address.parse().unwrap()), "{address}");
    }
}

#[test]
fn a_refusal_says_what_would_let_the_address_in_and_what_nothing_lets_in() {
    let refusal = |address: &str| {
        let address: Ipv4Addr = address.parse().unwrap();
        closed().check_literal(&Host::Ipv4(address)).unwrap_err().to_string()
    };
    assert!(refusal("10.20.30.40").contains("--allow-issuer-network 10.20.30.0/24"));
    assert!(refusal("127.0.0.1").contains("--allow-issuer-loopback"));
    for never in ["169.254.169.254", "224.0.0.1"] {
        let told = refusal(never);
        assert!(told.contains("never asked") && !told.contains("--allow"), "{told}");
    }
    assert!(closed().check_literal(&Host::Ipv4(Ipv4Addr::new(8, 8, 8, 8))).is_ok());
}

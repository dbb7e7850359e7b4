//! The Host that a request names, checked before anything else and on every route.

use serde_json::json;

use super::answer::Answer;
use super::browser::Browser;
use super::http::Connection;
use super::site::{PUBLIC_HOST, Profile, Site};

fn whoami(site: &Site, host: &str) -> Answer {
    site.ask(&site.request("GET", "/whoami").set("Host", host))
}

#[track_caller]
fn is_misdirected(site: &Site, host: &str) {
    let answer = whoami(site, host);
    assert_eq!(answer.status, 421, "{:?}: Host {host:?}: {answer:?}", site.profile);
    answer.refused(421, "host");
}

/// Well-formed names that no profile knows without being told.
fn unknown(port: &str) -> Vec<String> {
    let names = [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil-localhost",
        "localhost.",
        "127.0.0.1.",
        "app.localhost",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.1",
        "127.0.0.2",
        "0.0.0.0",
        "[::]",
        "[::ffff:127.0.0.1]",
        "10.0.0.1",
    ];
    names.iter().map(|name| format!("{name}:{port}")).collect()
}

/// What is no host at all.
fn malformed(port: &str) -> Vec<String> {
    let whole = [
        "",
        ":",
        "a b",
        "[::1",
        "[::1]x",
        "::1",
        "localhost:port",
        "localhost:-1",
        "localhost:99999999",
        "localhost:1:2",
        "local\thost",
        "<script>",
        "\"localhost\"",
    ];
    let with_port =
        ["user@127.0.0.1", "http://127.0.0.1", "127.0.0.1,evil.example", "127.0.0.1/", "évil", "\\127.0.0.1"];
    let with_port = with_port.iter().map(|name| format!("{name}:{port}"));
    whole.iter().map(ToString::to_string).chain(with_port).chain([format!("127.0.0.1:{port}/whoami")]).collect()
}

#[test]
fn names_that_nobody_allowed_are_misdirected() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        for host in unknown(site.port()) {
            is_misdirected(&site, &host);
        }
        let port: u16 = site.port().parse().unwrap();
        for host in [format!("127.0.0.1:{}", port ^ 1), format!("localhost:{}", port ^ 1), "127.0.0.1".into()] {
            is_misdirected(&site, &host);
        }
        whoami(&site, site.host()).expect(200);
    }
}

#[test]
fn a_host_that_is_none_is_a_bad_request() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        for host in malformed(site.port()) {
            let answer = whoami(&site, &host);
            assert_eq!(answer.status, 400, "{profile:?}: Host {host:?}: {answer:?}");
            answer.sets_no_cookie();
        }
        let none = site.request("GET", "/whoami").without("Host");
        site.ask(&none.clone()).refused(400, "host");
        for [first, second] in
            [[site.host(), site.host()], [site.host(), "evil.example"], ["evil.example", site.host()]]
        {
            site.ask(&none.clone().with("Host", first).with("Host", second)).refused(400, "host");
        }
    }
}

#[test]
fn each_profile_knows_its_own_names() {
    for profile in [Profile::Localhost, Profile::Development] {
        let site = Site::new(profile);
        for name in ["127.0.0.1", "localhost", "[::1]"] {
            whoami(&site, &format!("{name}:{}", site.port())).expect(200);
        }
        for name in ["127.0.0.1", "localhost", "[::1]", PUBLIC_HOST] {
            is_misdirected(&site, name);
        }
    }
    let site = Site::with(Profile::Lan, &["--allow-host", "nas.example:8080", "--allow-host", "nas.example"]);
    whoami(&site, &site.address).expect(200);
    whoami(&site, "nas.example:8080").expect(200);
    whoami(&site, "nas.example").expect(200);
    for name in ["localhost", "[::1]"] {
        is_misdirected(&site, &format!("{name}:{}", site.port()));
    }
    for host in ["nas.example:8081", "sub.nas.example:8080", "nas.example.:8080", "localhost"] {
        is_misdirected(&site, host);
    }
    let site = Site::with(Profile::Https, &["--allow-host", PUBLIC_HOST, "--allow-host", "app.example:8443"]);
    whoami(&site, PUBLIC_HOST).expect(200);
    whoami(&site, "app.example:8443").expect(200);
    for host in [&*site.address, "app.example:8444", "www.app.example", "example", "app.example.evil.example"] {
        is_misdirected(&site, host);
    }
}

#[test]
fn a_host_given_for_one_port_is_not_allowed_on_another() {
    let site = Site::with(Profile::Https, &["--allow-host", "app.example:8443"]);
    // Without a port the name stands for the port of the scheme.
    is_misdirected(&site, PUBLIC_HOST);
    whoami(&site, "app.example:8443").expect(200);
}

#[test]
fn no_route_is_exempt() {
    for profile in [Profile::Localhost, Profile::Https] {
        let site = Site::new(profile);
        let mut ada = Browser::signed_in(&site, "ada");
        let assets = super::page::assets(&ada.get("/").text());
        let routes = [
            "/",
            "/whoami",
            "/get?key=a",
            "/sessions",
            "/export?format=json",
            "/live",
            "/healthz",
            "/nowhere",
            "/login",
        ];
        for target in routes.into_iter().chain(assets.iter().map(|asset| &**asset)) {
            for method in ["GET", "HEAD", "POST", "OPTIONS", "DELETE"] {
                let request = ada.request(method, target).set("Host", "evil.example");
                let answer = ada.send(&request).expect(421).sets_no_cookie();
                assert!(method == "HEAD" || answer.json()["error"] == "host", "{answer:?}");
            }
        }
        for target in ["/login", "/logout", "/visit", "/set", "/slow", "/elevate", "/sessions/revoke", "/nowhere"] {
            let request = ada.unsafe_request(target).set("Host", "evil.example").set("Origin", "http://evil.example");
            ada.send(&request.json(&json!({ "all": true }))).refused(421, "host");
        }
        ada.is("ada", 0);
    }
}

#[test]
fn an_absolute_target_must_agree_with_host() {
    let site = Site::new(Profile::Development);
    let (host, port) = (site.host(), site.port());
    let ask = |target: &str, host: &str| site.ask(&site.request("GET", target).set("Host", host));
    ask(&format!("http://{host}/whoami"), host).expect(200);
    for (target, host) in [
        ("http://evil.example/whoami".to_owned(), host.to_owned()),
        (format!("http://{host}/whoami"), "evil.example".into()),
        (format!("http://localhost:{port}/whoami"), host.into()),
        ("http://127.0.0.1/whoami".into(), host.into()),
    ] {
        let answer = ask(&target, &host);
        assert_eq!(answer.status, 400, "{target} with Host {host}: {answer:?}");
    }
    ask("http://evil.example/whoami", "evil.example").refused(421, "host");
    let user = ask(&format!("http://user@{host}/whoami"), host);
    assert!(user.status == 400, "{user:?}");
    let bare = site.request("GET", &format!("http://{host}/whoami")).without("Host");
    assert_eq!(site.ask(&bare).status, 400, "a target does not replace Host");
}

#[test]
fn targets_that_are_no_path_reach_no_route() {
    let site = Site::new(Profile::Development);
    for line in [
        format!("OPTIONS * HTTP/1.1\r\nHost: {}\r\n\r\n", site.host()),
        format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", site.host()),
        format!("GET whoami HTTP/1.1\r\nHost: {}\r\n\r\n", site.host()),
        format!("GET //whoami HTTP/1.1\r\nHost: {}\r\n\r\n", site.host()),
        format!("GET /./whoami HTTP/1.1\r\nHost: {}\r\n\r\n", site.host()),
    ] {
        let mut connection = Connection::open(&site.address);
        connection.send(line.as_bytes()).unwrap();
        let answer = connection.receive(false).unwrap();
        answer.hold("GET");
        assert!((400..500).contains(&answer.status), "{line:?}: {answer:?}");
    }
}

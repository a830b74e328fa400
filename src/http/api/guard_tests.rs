//! Who is let in.

use super::*;
use hyper::header::{HeaderMap, TRANSFER_ENCODING};

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn guard(address: &str, host: &[&str], origin: &[&str]) -> Guard {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Guard::new([address.parse().unwrap()], owned(host), owned(origin))
}

#[test]
fn on_loopback_only_our_own_names_are_accepted() {
    let guard = guard("127.0.0.1", &["handler.test"], &[]);
    let table = [
        ("localhost:8000", true),
        ("LOCALHOST", true),
        ("127.0.0.1:8000", true),
        ("127.9.9.9", true),
        ("[::1]:8000", true),
        ("a.localhost:8000", true),
        ("handler.test:8001", true),
        ("evil.test", false),
        ("localhost.evil.test", false),
        ("127.0.0.1.evil.test", false),
        ("192.168.0.1", false),
        ("", false),
        ("[::1].evil.test", false),
        ("localhost:80@evil.test", false),
        ("localhost.:8000", true),
    ];
    for (host, is_ours) in table {
        let checked = guard.check_host(
            &Uri::from_static("/"),
            &Headers::of(&headers(&[("host", host)])),
        );
        assert_eq!(checked.is_ok(), is_ours, "{host}");
    }
    let absolute = Uri::from_static("http://evil.test/");
    assert!(
        guard
            .check_host(&absolute, &Headers::of(&headers(&[("host", "localhost")])))
            .is_err()
    );
}

#[test]
fn elsewhere_names_are_checked_only_when_some_are_given() {
    let evil = headers(&[("host", "any.test")]);
    let evil = Headers::of(&evil);
    let uri = Uri::from_static("/");
    assert!(guard("0.0.0.0", &[], &[]).check_host(&uri, &evil).is_ok());
    assert!(
        guard("0.0.0.0", &["a.test"], &[])
            .check_host(&uri, &evil)
            .is_err()
    );
}

#[test]
fn pages_of_other_sites_are_refused() {
    let guard = guard("127.0.0.1", &[], &["https://app.test"]);
    let host = ("host", "localhost:8000");
    let table = [
        (vec![host], true),
        (vec![host, ("origin", "http://localhost:8000")], true),
        (vec![host, ("origin", "http://localhost:3000")], false),
        (vec![host, ("origin", "https://evil.test")], false),
        (vec![host, ("origin", "null")], false),
        (vec![host, ("origin", "https://app.test")], true),
        (
            vec![
                host,
                ("origin", "https://app.test"),
                ("sec-fetch-site", "cross-site"),
            ],
            true,
        ),
        (vec![host, ("sec-fetch-site", "cross-site")], false),
        (vec![host, ("sec-fetch-site", "same-site")], false),
        (vec![host, ("sec-fetch-site", "same-origin")], true),
        (vec![host, ("sec-fetch-site", "none")], true),
        (
            vec![
                host,
                ("origin", "https://localhost"),
                ("sec-fetch-site", "same-origin"),
            ],
            true,
        ),
        (
            vec![("host", "localhost"), ("origin", "http://localhost:80")],
            true,
        ),
        (
            vec![("host", "localhost:80"), ("origin", "http://localhost")],
            true,
        ),
        (
            vec![("host", "localhost:443"), ("origin", "https://LOCALHOST")],
            true,
        ),
        (
            vec![("host", "localhost:443"), ("origin", "http://localhost")],
            false,
        ),
    ];
    for (pairs, is_allowed) in table {
        let checked = guard.check_origin(&Uri::from_static("/"), &Headers::of(&headers(&pairs)));
        assert_eq!(checked.is_ok(), is_allowed, "{pairs:?}");
    }
}

#[test]
fn a_target_is_a_path_or_in_http() {
    for (target, is_right) in [
        ("/", true),
        ("/a?b=://c", true),
        ("*", true),
        ("a.test:80", true),
        ("http://a.test/", true),
        ("HTTPS://a.test", true),
        ("://a.test/", false),
        ("ftp://a.test/", false),
        ("httpx://a.test/", false),
        ("http://u@a.test/", false),
        ("http://a.test:/", true),
    ] {
        let uri = target.parse().unwrap();
        assert_eq!(Guard::check_target(&uri).is_ok(), is_right, "{target}");
    }
}

#[test]
fn a_coding_other_than_chunked_is_refused() {
    for (codings, is_right) in [
        (&[][..], true),
        (&["chunked"], true),
        (&["Chunked "], true),
        (&["gzip, chunked"], false),
        (&["chunked, chunked"], false),
        (&["chunked,"], false),
        (&["chunked", "chunked"], false),
        (&["identity"], false),
        (&[""], false),
    ] {
        let mut headers = headers(&[("host", "a")]);
        for coding in codings {
            headers.append(TRANSFER_ENCODING, HeaderValue::from_static(coding));
        }
        let checked = Guard::check_head(Version::HTTP_11, &Headers::of(&headers));
        assert_eq!(checked.is_ok(), is_right, "{codings:?}");
    }
}

#[test]
fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
    for (host, is_right) in [
        ("", true),
        ("a", true),
        ("a.test:80", true),
        ("A_b-c.test.", true),
        ("a:", true),
        ("127.0.0.1:65535", true),
        ("[::1]", true),
        ("[::1]:8000", true),
        ("%c3%a9.test", true),
        ("a, b", false),
        ("a,b", false),
        ("local host", false),
        ("u@h", false),
        ("u:p@h", false),
        ("h/x", false),
        ("h?x", false),
        ("h#x", false),
        ("h:abc", false),
        ("h:99999", false),
        ("h:80:80", false),
        ("h:+80", false),
        ("[::1", false),
        ("[::1]x", false),
        ("[]", false),
        ("[1.2.3.4]", false),
        ("::1", false),
        ("%zz", false),
        ("%4", false),
        ("<script>", false),
        ("\"h\"", false),
        ("h\\x", false),
        ("é.test", false),
        ("h\tx", false),
    ] {
        assert_eq!(is_host(host.as_bytes()), is_right, "{host:?}");
    }
}

#[test]
fn exactly_one_host_is_required() {
    let one = headers(&[("host", "a")]);
    let two = headers(&[("host", "a"), ("host", "a")]);
    let none = headers(&[]);
    let [one, two, none] = [&one, &two, &none].map(Headers::of);
    assert!(Guard::check_head(Version::HTTP_11, &one).is_ok());
    assert!(Guard::check_head(Version::HTTP_11, &two).is_err());
    assert!(Guard::check_head(Version::HTTP_11, &none).is_err());
    assert!(Guard::check_head(Version::HTTP_10, &none).is_ok());
}

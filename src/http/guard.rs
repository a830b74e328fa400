//! Who may call: keeps pages of other sites, open in a browser on the same machine, away.
//!
//! A JSON body needs no content-type here, so a browser sends it without a preflight; that a page
//! cannot read the answer does not help when the call alone does harm. Two things are checked: a
//! browser's own words on where a request comes from (`Origin`, `Sec-Fetch-Site`), and, against
//! DNS rebinding, that `Host` is a name of ours.

use super::head::{Head, Rare};
use crate::error::Failure;
use hyper::header::HeaderValue;
use hyper::{Uri, Version};
use std::net::IpAddr;

/// The rules of one worker.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Whether only known host names are accepted.
    checks_host: bool,
    allowed_hosts: Vec<String>,
    allowed_origins: Vec<String>,
}

impl Guard {
    /// Rules for a worker that listens on these addresses. `Host` is checked when all of them are
    /// loopback, or when names are given. Names and origins are lower case.
    pub fn new(
        addresses: impl IntoIterator<Item = IpAddr>,
        allowed_hosts: Vec<String>,
        allowed_origins: Vec<String>,
    ) -> Guard {
        let is_loopback_only = addresses.into_iter().all(|address| address.is_loopback());
        Guard {
            checks_host: is_loopback_only || !allowed_hosts.is_empty(),
            allowed_hosts,
            allowed_origins,
        }
    }

    /// Refuses a head that HTTP/1.1 forbids and hyper lets pass: none or several `Host`, or a
    /// coding of the body that is not understood. hyper takes a body for chunked when that is the
    /// last coding of several; what is inside would be a body that nobody sent.
    pub(super) fn check_head(version: Version, head: &Head<'_>) -> Result<(), Failure> {
        let hosts = head.hosts();
        if hosts > 1 || (hosts == 0 && version == Version::HTTP_11) {
            return Err(Failure::bad_request("exactly one Host header is required"));
        }
        if head.host().is_some_and(|host| host.to_str().is_err()) {
            return Err(Failure::bad_request("the Host header is not a host"));
        }
        let is_chunked = |coding: &HeaderValue| {
            let coding = coding.as_bytes().trim_ascii();
            coding.eq_ignore_ascii_case(b"chunked")
        };
        let mut codings = head.get_all(Rare::TransferEncoding);
        if !codings.next().is_none_or(is_chunked) || codings.next().is_some() {
            return Err(Failure::bad_request(
                "the only transfer-encoding understood is chunked",
            ));
        }
        Ok(())
    }

    /// Refuses a target that is no path and no address in HTTP, such as `://host/`: the parser
    /// takes its end for a path.
    pub(super) fn check_target(uri: &Uri) -> Result<(), Failure> {
        let is_ours = |scheme: &str| {
            scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
        };
        if uri.scheme_str().is_none_or(is_ours) {
            return Ok(());
        }
        Err(Failure::bad_request("the request's target is not in HTTP"))
    }

    /// Refuses a request whose `Host` is not a name of ours.
    pub(super) fn check_host(&self, uri: &Uri, head: &Head<'_>) -> Result<(), Failure> {
        let Some(host) = authority(uri, head).filter(|_| self.checks_host) else {
            return Ok(());
        };
        let name = host_name(host);
        let is_name = |allowed: &String| allowed.eq_ignore_ascii_case(name);
        if is_loopback_name(name) || self.allowed_hosts.iter().any(is_name) {
            return Ok(());
        }
        Err(Failure::Forbidden(format!(
            "the host {name:?} is not a name of this worker; --allow-host accepts it"
        )))
    }

    /// Refuses a request that a browser marks as coming from another site.
    pub(super) fn check_origin(&self, uri: &Uri, head: &Head<'_>) -> Result<(), Failure> {
        for origin in head.get_all(Rare::Origin) {
            let origin = String::from_utf8_lossy(origin.as_bytes()).to_lowercase();
            if self.allowed_origins.contains(&origin) {
                return Ok(());
            }
            let host = authority(uri, head).unwrap_or_default();
            let is_ours = origin
                .split_once("://")
                .is_some_and(|(_, from)| from.eq_ignore_ascii_case(host));
            if !is_ours {
                return Err(Failure::Forbidden(format!(
                    "the request comes from a page of {origin:?}; --allow-origin accepts it"
                )));
            }
        }
        match head.get(Rare::SecFetchSite).map(|site| site.as_bytes()) {
            None | Some(b"same-origin" | b"none") => Ok(()),
            Some(_) => Err(Failure::Forbidden(
                "the browser says that the request comes from a page of another site".to_owned(),
            )),
        }
    }
}

/// `host[:port]` that the request is for, as it was written.
fn authority<'a>(uri: &'a Uri, head: &Head<'a>) -> Option<&'a str> {
    let host = head.host().and_then(|host| host.to_str().ok());
    uri.authority().map(|authority| authority.as_str()).or(host)
}

/// The name in `name`, `name:port`, `[v6]` or `[v6]:port`, without brackets; what has another
/// shape is no name that could be ours.
fn host_name(host: &str) -> &str {
    let (name, rest) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some(split) => split,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || (rest.is_empty() != port.is_empty()) {
        return host;
    }
    name.strip_suffix('.').unwrap_or(name)
}

fn is_loopback_name(name: &str) -> bool {
    let last_label = name.rsplit('.').next().unwrap_or_default();
    let is_address = || {
        name.parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
    };
    last_label.eq_ignore_ascii_case("localhost") || is_address()
}

#[cfg(test)]
mod tests {
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
                &Head::of(&headers(&[("host", host)])),
            );
            assert_eq!(checked.is_ok(), is_ours, "{host}");
        }
        let absolute = Uri::from_static("http://evil.test/");
        assert!(
            guard
                .check_host(&absolute, &Head::of(&headers(&[("host", "localhost")])))
                .is_err()
        );
    }

    #[test]
    fn elsewhere_names_are_checked_only_when_some_are_given() {
        let evil = headers(&[("host", "any.test")]);
        let evil = Head::of(&evil);
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
        ];
        for (pairs, is_allowed) in table {
            let checked = guard.check_origin(&Uri::from_static("/"), &Head::of(&headers(&pairs)));
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
            let checked = Guard::check_head(Version::HTTP_11, &Head::of(&headers));
            assert_eq!(checked.is_ok(), is_right, "{codings:?}");
        }
    }

    #[test]
    fn exactly_one_host_is_required() {
        let one = headers(&[("host", "a")]);
        let two = headers(&[("host", "a"), ("host", "a")]);
        let none = headers(&[]);
        let [one, two, none] = [&one, &two, &none].map(Head::of);
        assert!(Guard::check_head(Version::HTTP_11, &one).is_ok());
        assert!(Guard::check_head(Version::HTTP_11, &two).is_err());
        assert!(Guard::check_head(Version::HTTP_11, &none).is_err());
        assert!(Guard::check_head(Version::HTTP_10, &none).is_ok());
    }
}

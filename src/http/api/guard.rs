//! The guard against pages of other sites, open in a browser on the same machine, and against heads
//! that can be read in two ways.
//!
//! A JSON body needs no content-type here, so a browser sends it without a preflight; a page that
//! cannot read the answer may still do harm by the call. Two things are checked: a browser's own
//! statement of a request's origin (`Origin`, `Sec-Fetch-Site`), and, against DNS rebinding, that
//! `Host` is a name of this worker.

use super::headers::{Headers, RareHeader};
use crate::error::RequestFailure;
use hyper::header::HeaderValue;
use hyper::{Uri, Version};
use std::net::{IpAddr, Ipv6Addr};

/// The rules of one worker.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    /// Whether only known host names are accepted.
    checks_host: bool,
    allowed_hosts: Vec<String>,
    allowed_origins: Vec<String>,
}

impl Guard {
    /// Rules for a worker that listens on these addresses. `Host` is checked when all of them are
    /// loopback, or when names are given. Names and origins are lower case.
    pub(super) fn new(
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

    /// Refuses a head that HTTP/1.1 forbids and hyper lets pass: none or several `Host`, or an
    /// unknown coding of the body. hyper takes a body for chunked when that is the last coding of
    /// several; its content would be a body that was never sent.
    pub(super) fn check_head(version: Version, head: &Headers<'_>) -> Result<(), RequestFailure> {
        let hosts = head.hosts();
        if hosts > 1 || (hosts == 0 && version == Version::HTTP_11) {
            return Err(RequestFailure::bad_request(
                "exactly one Host header is required",
            ));
        }
        if head.host().is_some_and(|host| !is_host(host.as_bytes())) {
            return Err(RequestFailure::bad_request(
                "the Host header is not a host, expected e.g. example.org or 127.0.0.1:8000",
            ));
        }
        let is_chunked = |coding: &HeaderValue| {
            let coding = coding.as_bytes().trim_ascii();
            coding.eq_ignore_ascii_case(b"chunked")
        };
        let mut codings = head.get_all(RareHeader::TransferEncoding);
        if !codings.next().is_none_or(is_chunked) || codings.next().is_some() {
            return Err(RequestFailure::bad_request(
                "the only transfer-encoding understood is chunked",
            ));
        }
        Ok(())
    }

    /// Refuses a target that is neither a path nor an address in HTTP, such as `://host/`: the
    /// parser takes its end for a path. (The parser leaves out a fragment, which is never seen
    /// here.)
    pub(super) fn check_target(uri: &Uri) -> Result<(), RequestFailure> {
        let host = uri.authority().map(|authority| authority.as_str());
        if host.is_some_and(|host| !is_host(host.as_bytes())) {
            return Err(RequestFailure::bad_request(
                "the request's target has no valid host",
            ));
        }
        let is_ours = |scheme: &str| {
            scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
        };
        if uri.scheme_str().is_none_or(is_ours) {
            return Ok(());
        }
        Err(RequestFailure::bad_request(
            "the request's target is not in HTTP",
        ))
    }

    /// Refuses a request whose `Host` is not a name of this worker.
    pub(super) fn check_host(&self, uri: &Uri, head: &Headers<'_>) -> Result<(), RequestFailure> {
        let Some(host) = authority(uri, head).filter(|_| self.checks_host) else {
            return Ok(());
        };
        let name = host_name(host);
        let is_name = |allowed: &String| allowed.eq_ignore_ascii_case(name);
        if is_loopback_name(name) || self.allowed_hosts.iter().any(is_name) {
            return Ok(());
        }
        Err(RequestFailure::Forbidden(format!(
            "the host {name:?} is not a name of this worker; --allow-host accepts it"
        )))
    }

    /// Refuses a request that a browser marks as coming from another site.
    pub(super) fn check_origin(&self, uri: &Uri, head: &Headers<'_>) -> Result<(), RequestFailure> {
        let site = head
            .get(RareHeader::SecFetchSite)
            .map(HeaderValue::as_bytes);
        // Only a browser sets it, and no page can forge it. Behind a proxy that ends TLS, scheme
        // and port of the origin differ from the scheme and port that this worker knows.
        if site == Some(b"same-origin") {
            return Ok(());
        }
        for origin in head.get_all(RareHeader::Origin) {
            let origin = String::from_utf8_lossy(origin.as_bytes()).to_lowercase();
            if self.allowed_origins.contains(&origin) {
                return Ok(());
            }
            let host = authority(uri, head).unwrap_or_default();
            let is_ours = origin
                .split_once("://")
                .is_some_and(|(scheme, from)| is_same(scheme, from, host));
            if !is_ours {
                return Err(RequestFailure::Forbidden(format!(
                    "the request comes from a page of {origin:?}; --allow-origin accepts it"
                )));
            }
        }
        match site {
            None | Some(b"none") => Ok(()),
            Some(_) => Err(RequestFailure::Forbidden(
                "the browser says that the request comes from a page of another site".to_owned(),
            )),
        }
    }
}

/// Whether this is a host with or without a port (RFC 9110, section 7.2). The name may be empty, as
/// there. A comma, which RFC 3986 allows, is refused: `a,b` is two hosts put together.
fn is_host(host: &[u8]) -> bool {
    let is_port = |port: &[u8]| {
        let digits = port.strip_prefix(b":").unwrap_or(port);
        let text = std::str::from_utf8(digits).unwrap_or_default();
        port.is_empty()
            || (digits.len() < port.len() && digits.iter().all(u8::is_ascii_digit))
                && (text.is_empty() || text.parse::<u16>().is_ok())
    };
    if let Some(rest) = host.strip_prefix(b"[") {
        let end = rest.iter().position(|byte| *byte == b']');
        return end.is_some_and(|end| {
            let address = std::str::from_utf8(&rest[..end]).unwrap_or_default();
            address.parse::<Ipv6Addr>().is_ok() && is_port(&rest[end + 1..])
        });
    }
    let end = host.iter().position(|byte| *byte == b':');
    let (name, port) = host.split_at(end.unwrap_or(host.len()));
    let mut left = name;
    while let Some((first, rest)) = left.split_first() {
        let is_escape = |digits: &&[u8]| digits.iter().all(u8::is_ascii_hexdigit);
        left = match first {
            b'%' => match rest.get(..2).filter(is_escape) {
                Some(_) => &rest[2..],
                None => return false,
            },
            byte if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(byte) => rest,
            _ => return false,
        };
    }
    is_port(port)
}

/// Whether an origin's host is this host. A port that is left out is the scheme's own.
fn is_same(scheme: &str, from: &str, host: &str) -> bool {
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let bare = |host: &'_ str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    bare(from) == bare(host)
}

/// `host[:port]` of the request's target, as it was written.
fn authority<'a>(uri: &'a Uri, head: &Headers<'a>) -> Option<&'a str> {
    let host = head.host().and_then(|host| host.to_str().ok());
    uri.authority().map(|authority| authority.as_str()).or(host)
}

/// The name in `name`, `name:port`, `[v6]` or `[v6]:port`, without brackets; other
/// shapes as they are.
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
#[path = "guard_tests.rs"]
mod tests;

//! The headers that the worker reads, found in one pass over the head: most requests have few of
//! them, and a look-up of a header that is missing costs as much as one that is there.

use hyper::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    TRANSFER_ENCODING,
};

/// A header that the worker reads and that most requests do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownHeader {
    CallId,
    ContentEncoding,
    Origin,
    RequestId,
    SecFetchSite,
    Timeout,
    TimeoutMs,
    Traceparent,
    Tracestate,
    TransferEncoding,
}

impl KnownHeader {
    fn called(name: &HeaderName) -> Option<KnownHeader> {
        match name.as_str() {
            "x-call-id" => Some(KnownHeader::CallId),
            "content-encoding" => Some(KnownHeader::ContentEncoding),
            "origin" => Some(KnownHeader::Origin),
            "x-request-id" => Some(KnownHeader::RequestId),
            "sec-fetch-site" => Some(KnownHeader::SecFetchSite),
            "x-timeout" => Some(KnownHeader::Timeout),
            "x-faas-timeout-ms" => Some(KnownHeader::TimeoutMs),
            "traceparent" => Some(KnownHeader::Traceparent),
            "tracestate" => Some(KnownHeader::Tracestate),
            "transfer-encoding" => Some(KnownHeader::TransferEncoding),
            _ => None,
        }
    }

    fn name(self) -> HeaderName {
        match self {
            KnownHeader::CallId => HeaderName::from_static("x-call-id"),
            KnownHeader::ContentEncoding => CONTENT_ENCODING,
            KnownHeader::Origin => ORIGIN,
            KnownHeader::RequestId => super::REQUEST_ID,
            KnownHeader::SecFetchSite => HeaderName::from_static("sec-fetch-site"),
            KnownHeader::Timeout => HeaderName::from_static("x-timeout"),
            KnownHeader::TimeoutMs => HeaderName::from_static("x-faas-timeout-ms"),
            KnownHeader::Traceparent => HeaderName::from_static("traceparent"),
            KnownHeader::Tracestate => HeaderName::from_static("tracestate"),
            KnownHeader::TransferEncoding => TRANSFER_ENCODING,
        }
    }

    fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// The headers of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Headers<'a> {
    all: &'a HeaderMap,
    hosts: usize,
    host: Option<&'a HeaderValue>,
    content_type: Option<&'a HeaderValue>,
    /// One bit for each [`KnownHeader`] that is present.
    rare: u16,
}

impl<'a> Headers<'a> {
    pub(super) fn of(all: &'a HeaderMap) -> Headers<'a> {
        let mut head = Headers {
            all,
            hosts: 0,
            host: None,
            content_type: None,
            rare: 0,
        };
        for (name, value) in all {
            if *name == HOST {
                head.hosts += 1;
                head.host = head.host.or(Some(value));
            } else if *name == CONTENT_TYPE {
                head.content_type = head.content_type.or(Some(value));
            } else if let Some(rare) = KnownHeader::called(name) {
                head.rare |= rare.bit();
            }
        }
        head
    }

    pub(super) fn all(&self) -> &'a HeaderMap {
        self.all
    }

    /// Number of `Host` headers.
    pub(super) fn hosts(&self) -> usize {
        self.hosts
    }

    pub(super) fn host(&self) -> Option<&'a HeaderValue> {
        self.host
    }

    pub(super) fn content_type(&self) -> Option<&'a HeaderValue> {
        self.content_type
    }

    pub(super) fn get(&self, rare: KnownHeader) -> Option<&'a HeaderValue> {
        self.get_all(rare).next()
    }

    /// All values of the header, in the order in which they came.
    pub(super) fn get_all(&self, rare: KnownHeader) -> impl Iterator<Item = &'a HeaderValue> {
        let is_there = self.rare & rare.bit() != 0;
        let values = is_there.then(|| self.all.get_all(rare.name()));
        values.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_is_found_and_nothing_else() {
        let all = [
            KnownHeader::CallId,
            KnownHeader::ContentEncoding,
            KnownHeader::Origin,
            KnownHeader::RequestId,
            KnownHeader::SecFetchSite,
            KnownHeader::Timeout,
            KnownHeader::TimeoutMs,
            KnownHeader::Traceparent,
            KnownHeader::Tracestate,
            KnownHeader::TransferEncoding,
        ];
        for rare in all {
            let mut headers = HeaderMap::new();
            headers.append(HOST, HeaderValue::from_static("a"));
            headers.append(rare.name(), HeaderValue::from_static("1"));
            headers.append(rare.name(), HeaderValue::from_static("2"));
            headers.append(HOST, HeaderValue::from_static("b"));
            let head = Headers::of(&headers);
            assert_eq!((head.hosts(), head.content_type()), (2, None));
            assert_eq!(head.host(), Some(&HeaderValue::from_static("a")));
            for other in all {
                let values: Vec<_> = head.get_all(other).collect();
                let expected: &[&str] = if other == rare { &["1", "2"] } else { &[] };
                assert_eq!(values, expected, "{other:?}");
            }
        }
    }
}

//! The headers that the worker reads, found in one pass over the head: most requests have few of
//! them, and a look-up of a header that is missing costs as much as one that is there.

use hyper::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    TRANSFER_ENCODING,
};

/// A header that the worker reads and that most requests do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RareHeader {
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

impl RareHeader {
    fn called(name: &HeaderName) -> Option<RareHeader> {
        match name.as_str() {
            "x-call-id" => Some(RareHeader::CallId),
            "content-encoding" => Some(RareHeader::ContentEncoding),
            "origin" => Some(RareHeader::Origin),
            "x-request-id" => Some(RareHeader::RequestId),
            "sec-fetch-site" => Some(RareHeader::SecFetchSite),
            "x-timeout" => Some(RareHeader::Timeout),
            "x-faas-timeout-ms" => Some(RareHeader::TimeoutMs),
            "traceparent" => Some(RareHeader::Traceparent),
            "tracestate" => Some(RareHeader::Tracestate),
            "transfer-encoding" => Some(RareHeader::TransferEncoding),
            _ => None,
        }
    }

    fn name(self) -> HeaderName {
        match self {
            RareHeader::CallId => HeaderName::from_static("x-call-id"),
            RareHeader::ContentEncoding => CONTENT_ENCODING,
            RareHeader::Origin => ORIGIN,
            RareHeader::RequestId => super::REQUEST_ID,
            RareHeader::SecFetchSite => HeaderName::from_static("sec-fetch-site"),
            RareHeader::Timeout => HeaderName::from_static("x-timeout"),
            RareHeader::TimeoutMs => HeaderName::from_static("x-faas-timeout-ms"),
            RareHeader::Traceparent => HeaderName::from_static("traceparent"),
            RareHeader::Tracestate => HeaderName::from_static("tracestate"),
            RareHeader::TransferEncoding => TRANSFER_ENCODING,
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
    /// One bit for each [`RareHeader`] that is present.
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
            } else if let Some(rare) = RareHeader::called(name) {
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

    pub(super) fn get(&self, rare: RareHeader) -> Option<&'a HeaderValue> {
        self.get_all(rare).next()
    }

    /// All values of the header, in the order in which they came.
    pub(super) fn get_all(&self, rare: RareHeader) -> impl Iterator<Item = &'a HeaderValue> {
        let is_there = self.rare & rare.bit() != 0;
        let values = is_there.then(|| self.all.get_all(rare.name()));
        values.into_iter().flatten()
    }
}

/// The headers with these names, each with its values as one text.
pub fn passed(headers: &HeaderMap, names: &[String]) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let passed = names.iter().filter_map(|name| {
        let values: Vec<String> = headers.get_all(name).iter().map(text).collect();
        (!values.is_empty()).then(|| (name.clone(), values.join(", ")))
    });
    passed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_is_found_and_nothing_else() {
        let all = [
            RareHeader::CallId,
            RareHeader::ContentEncoding,
            RareHeader::Origin,
            RareHeader::RequestId,
            RareHeader::SecFetchSite,
            RareHeader::Timeout,
            RareHeader::TimeoutMs,
            RareHeader::Traceparent,
            RareHeader::Tracestate,
            RareHeader::TransferEncoding,
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

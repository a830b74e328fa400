//! The headers that the worker looks at, found in one pass: most requests have few of them, and a
//! look-up costs as much where there is nothing to find.

use hyper::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    TRANSFER_ENCODING,
};

/// A header that most requests do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rare {
    ContentEncoding,
    Origin,
    RequestId,
    SecFetchSite,
    TimeoutMs,
    Traceparent,
    TransferEncoding,
}

impl Rare {
    fn called(name: &HeaderName) -> Option<Rare> {
        match name.as_str() {
            "content-encoding" => Some(Rare::ContentEncoding),
            "origin" => Some(Rare::Origin),
            "x-request-id" => Some(Rare::RequestId),
            "sec-fetch-site" => Some(Rare::SecFetchSite),
            "x-faas-timeout-ms" => Some(Rare::TimeoutMs),
            "traceparent" => Some(Rare::Traceparent),
            "transfer-encoding" => Some(Rare::TransferEncoding),
            _ => None,
        }
    }

    fn name(self) -> HeaderName {
        match self {
            Rare::ContentEncoding => CONTENT_ENCODING,
            Rare::Origin => ORIGIN,
            Rare::RequestId => super::REQUEST_ID,
            Rare::SecFetchSite => HeaderName::from_static("sec-fetch-site"),
            Rare::TimeoutMs => HeaderName::from_static("x-faas-timeout-ms"),
            Rare::Traceparent => HeaderName::from_static("traceparent"),
            Rare::TransferEncoding => TRANSFER_ENCODING,
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The headers of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    all: &'a HeaderMap,
    hosts: usize,
    host: Option<&'a HeaderValue>,
    content_type: Option<&'a HeaderValue>,
    /// One bit for each [`Rare`] that is there.
    rare: u8,
}

impl<'a> Head<'a> {
    pub(super) fn of(all: &'a HeaderMap) -> Head<'a> {
        let mut head = Head {
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
            } else if let Some(rare) = Rare::called(name) {
                head.rare |= rare.bit();
            }
        }
        head
    }

    pub(super) fn all(&self) -> &'a HeaderMap {
        self.all
    }

    /// How many `Host` there are.
    pub(super) fn hosts(&self) -> usize {
        self.hosts
    }

    pub(super) fn host(&self) -> Option<&'a HeaderValue> {
        self.host
    }

    pub(super) fn content_type(&self) -> Option<&'a HeaderValue> {
        self.content_type
    }

    pub(super) fn get(&self, rare: Rare) -> Option<&'a HeaderValue> {
        self.get_all(rare).next()
    }

    /// All values of the header, in the order in which they came.
    pub(super) fn get_all(&self, rare: Rare) -> impl Iterator<Item = &'a HeaderValue> {
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
            Rare::ContentEncoding,
            Rare::Origin,
            Rare::RequestId,
            Rare::SecFetchSite,
            Rare::TimeoutMs,
            Rare::Traceparent,
            Rare::TransferEncoding,
        ];
        for rare in all {
            let mut headers = HeaderMap::new();
            headers.append(HOST, HeaderValue::from_static("a"));
            headers.append(rare.name(), HeaderValue::from_static("1"));
            headers.append(rare.name(), HeaderValue::from_static("2"));
            headers.append(HOST, HeaderValue::from_static("b"));
            let head = Head::of(&headers);
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

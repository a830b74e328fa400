//! The caller's trace context: the headers `traceparent` and `tracestate` by the W3C's Trace
//! Context Level 2.
//!
//! Pure. Without an exporter of traces ([`crate::traces`]) the worker takes no part in the trace:
//! both headers go on as they came, and their ids stand in log lines. With one, the parent id that
//! is handed on is that of the worker's own span.

use std::fmt;
use std::sync::Arc;

/// Length of `00-TRACE-SPAN-FLAGS`.
const LENGTH: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;

/// Flags with a meaning: sampled, and random, which says that the trace id was drawn at random.
const KNOWN_FLAGS: u8 = 0b11;

/// The flag of a span that is recorded.
#[cfg(feature = "otlp")]
const SAMPLED: u8 = 0b01;

/// The flag of a trace whose id was drawn at random.
#[cfg(feature = "otlp")]
const RANDOM: u8 = 0b10;

/// A valid trace context. Clones share it.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    /// ASCII, in the form of version 00.
    parent: [u8; LENGTH],
    state: String,
}

impl TraceContext {
    /// Reads a `traceparent`. A version above 00 is read as far as version 00 goes, and becomes
    /// that; flags without a meaning become zero. `None` for an invalid one.
    pub fn parse(text: &str) -> Option<TraceContext> {
        let (known, more) = text.as_bytes().split_first_chunk::<LENGTH>()?;
        let is_separated = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let [version, trace, span, flags] = [0..2, 3..35, 36..52, 53..55].map(|part| &known[part]);
        let is_hexadecimal = |part: &[u8]| {
            part.iter()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_zero = |id: &[u8]| id.iter().all(|digit| *digit == b'0');
        let is_shaped = is_separated
            && [version, trace, span, flags]
                .into_iter()
                .all(is_hexadecimal);
        if !is_shaped || is_zero(trace) || is_zero(span) || version == b"ff" {
            return None;
        }
        let is_ended = match version {
            b"00" => more.is_empty(),
            _ => more.first().is_none_or(|byte| *byte == b'-'),
        };
        let flags = u8::from_str_radix(text.get(53..LENGTH)?, 16).ok()? & KNOWN_FLAGS;
        let mut parent = *known;
        parent[..2].copy_from_slice(b"00");
        parent[53..].copy_from_slice(&[b'0', b'0' + flags]);
        let state = String::new();
        is_ended.then(|| TraceContext(Arc::new(Parts { parent, state })))
    }

    /// The same with a `tracestate`.
    pub fn with_state(self, state: String) -> TraceContext {
        let parent = self.0.parent;
        TraceContext(Arc::new(Parts { parent, state }))
    }

    /// The `traceparent`.
    pub fn traceparent(&self) -> &str {
        self.part(0, LENGTH)
    }

    /// The `tracestate`, if there is one.
    pub fn tracestate(&self) -> Option<&str> {
        Some(&*self.0.state).filter(|state| !state.is_empty())
    }

    /// The id of the trace: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.part(3, 35)
    }

    /// The id of the caller's span: 16 hexadecimal digits.
    pub fn span_id(&self) -> &str {
        self.part(36, 52)
    }

    /// The flags: two hexadecimal digits.
    pub fn flags(&self) -> &str {
        self.part(53, LENGTH)
    }

    /// The context of the first span of a trace, whose id was drawn at random; `None` if an id is
    /// 0.
    #[cfg(feature = "otlp")]
    pub fn new(trace: u128, span: u64, is_sampled: bool) -> Option<TraceContext> {
        let flags = RANDOM | u8::from(is_sampled);
        TraceContext::parse(&format!("00-{trace:032x}-{span:016x}-{flags:02x}"))
    }

    /// The context of a sampled span below this one: the same trace and state, another parent id.
    #[cfg(feature = "otlp")]
    pub fn below(&self, span: u64) -> TraceContext {
        use std::io::Write;
        let mut parent = self.0.parent;
        // Exactly the 16 digits that stand there.
        drop(write!(&mut parent[36..52], "{span:016x}"));
        // Bits of a digit from 0 to 3.
        parent[LENGTH - 1] |= SAMPLED;
        let state = self.0.state.clone();
        TraceContext(Arc::new(Parts { parent, state }))
    }

    /// Whether the caller records its spans.
    #[cfg(feature = "otlp")]
    pub fn is_sampled(&self) -> bool {
        self.0.parent[LENGTH - 1] & SAMPLED != 0
    }

    /// The id of the trace.
    #[cfg(feature = "otlp")]
    pub fn trace_number(&self) -> u128 {
        u128::from_str_radix(self.trace_id(), 16).unwrap_or_default()
    }

    /// The id of the span.
    #[cfg(feature = "otlp")]
    pub fn span_number(&self) -> u64 {
        u64::from_str_radix(self.span_id(), 16).unwrap_or_default()
    }

    fn part(&self, begin: usize, end: usize) -> &str {
        std::str::from_utf8(&self.0.parent[begin..end]).unwrap_or_default()
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.traceparent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn a_traceparent_is_kept_if_it_is_one() {
        let [zero_trace, zero_span] = [32, 16].map(|digits| "0".repeat(digits));
        let valid = format!("00-{TRACE}-{SPAN}-01");
        for (text, kept) in [
            (valid.clone(), Some("01")),
            // Flags: bit 0 is sampled, bit 1 random, the others have no meaning.
            (format!("00-{TRACE}-{SPAN}-00"), Some("00")),
            (format!("00-{TRACE}-{SPAN}-02"), Some("02")),
            (format!("00-{TRACE}-{SPAN}-03"), Some("03")),
            (format!("00-{TRACE}-{SPAN}-ff"), Some("03")),
            (format!("00-{TRACE}-{SPAN}-fc"), Some("00")),
            // A later version may have more.
            (format!("01-{TRACE}-{SPAN}-01"), Some("01")),
            (format!("cc-{TRACE}-{SPAN}-01-more"), Some("01")),
            (format!("cc-{TRACE}-{SPAN}-01-"), Some("01")),
            (format!("fe-{TRACE}-{SPAN}-0b"), Some("03")),
            (format!("cc-{TRACE}-{SPAN}-01.more"), None),
            (format!("cc-{TRACE}-{SPAN}-011"), None),
            (format!("{valid}-more"), None),
            (format!("{valid}-"), None),
            (format!("{valid}x"), None),
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            (format!("ff-{TRACE}-{SPAN}-01-more"), None),
            (valid.to_uppercase(), None),
            (format!("0A-{TRACE}-{SPAN}-01"), None),
            (format!("00-{TRACE}-{SPAN}-0A"), None),
            (format!("00-{TRACE}-{SPAN}-0g"), None),
            (format!("00-{TRACE}-{SPAN}-+1"), None),
            (format!("00-{zero_trace}-{SPAN}-01"), None),
            (format!("00-{TRACE}-{zero_span}-01"), None),
            (format!("00-{}-{SPAN}-01", &TRACE[1..]), None),
            (format!("00-{TRACE}-{}-01", &SPAN[1..]), None),
            (format!("00-{TRACE}0-{}-01", &SPAN[1..]), None),
            (valid[..54].to_owned(), None),
            (valid[1..].to_owned(), None),
            (valid.replace('-', "_"), None),
            (format!(" {}", &valid[1..]), None),
            ("".to_owned(), None),
            ("é".repeat(28), None),
            (format!("{}é", &valid[..54]), None),
        ] {
            let parsed = TraceContext::parse(&text);
            let expected = kept.map(|flags| format!("00-{TRACE}-{SPAN}-{flags}"));
            let found = parsed.as_ref().map(TraceContext::traceparent);
            assert_eq!(found, expected.as_deref(), "{text}");
            if let (Some(trace), Some(flags)) = (parsed, kept) {
                let parts = (trace.trace_id(), trace.span_id(), trace.flags());
                assert_eq!(parts, (TRACE, SPAN, flags));
            }
        }
    }

    #[test]
    fn a_tracestate_is_there_only_if_it_says_something() {
        let context = TraceContext::parse(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!(context.tracestate(), None);
        assert_eq!(context.clone().with_state(String::new()).tracestate(), None);
        let context = context.with_state("a=1,b=2".to_owned());
        assert_eq!(context.tracestate(), Some("a=1,b=2"));
        assert_eq!(context.trace_id(), TRACE);
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn a_span_of_our_own_keeps_the_trace_and_says_that_it_is_recorded() {
        for (flags, kept) in [("00", "01"), ("01", "01"), ("02", "03"), ("03", "03")] {
            let context = TraceContext::parse(&format!("00-{TRACE}-{SPAN}-{flags}")).unwrap();
            let below = context.with_state("a=1".to_owned()).below(0xab);
            let traceparent = format!("00-{TRACE}-00000000000000ab-{kept}");
            assert_eq!(below.traceparent(), traceparent);
            assert_eq!(
                TraceContext::parse(&traceparent).unwrap().traceparent(),
                traceparent
            );
            assert_eq!(below.tracestate(), Some("a=1"));
            assert_eq!((below.span_number(), below.is_sampled()), (0xab, true));
            assert_eq!(format!("{:032x}", below.trace_number()), TRACE);
        }
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn a_trace_of_our_own_is_random() {
        for (is_sampled, flags) in [(true, "03"), (false, "02")] {
            let context = TraceContext::new(1 << 100, 1, is_sampled).unwrap();
            let (trace, span) = (format!("{:032x}", 1_u128 << 100), "0000000000000001");
            assert_eq!(context.traceparent(), format!("00-{trace}-{span}-{flags}"));
            assert_eq!(context.is_sampled(), is_sampled);
        }
        assert_eq!(TraceContext::new(0, 1, true), None);
    }
}

//! Reads the members of a line that is a JSON object.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of a line that the protocol knows, each as its JSON text.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    pub(super) id: Option<&'a str>,
    pub(super) result: Option<&'a str>,
    pub(super) error: Option<&'a str>,
    pub(super) ready: Option<&'a str>,
    pub(super) concurrency: Option<&'a str>,
    pub(super) context: Option<&'a str>,
    /// There is a member that the protocol does not know.
    pub(super) has_others: bool,
    /// There is a member of [`LOGGER_MEMBERS`].
    pub(super) has_loggers: bool,
}

/// The members of a JSON object; the last of duplicate members wins.
pub(super) fn envelope(text: &str) -> Result<Envelope<'_>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let envelope = deserializer.deserialize_map(EnvelopeVisitor)?;
    deserializer.end()?;
    Ok(envelope)
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(key) = map.next_key::<Key>()? {
            let place = match key {
                Key::Id => &mut envelope.id,
                Key::Result => &mut envelope.result,
                Key::Error => &mut envelope.error,
                Key::Ready => &mut envelope.ready,
                Key::Concurrency => &mut envelope.concurrency,
                Key::Context => &mut envelope.context,
                Key::Other | Key::Logger => {
                    envelope.has_others = true;
                    envelope.has_loggers |= key == Key::Logger;
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *place = Some(map.next_value::<&'de RawValue>()?.get());
        }
        Ok(envelope)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Id,
    Result,
    Error,
    Ready,
    Concurrency,
    Context,
    /// A member of loggers, which no reply has.
    Logger,
    Other,
}

/// Members that loggers of many languages write by default, in upper or lower case and with or
/// without an `@`.
const LOGGER_MEMBERS: [&str; 17] = [
    "level",
    "lvl",
    "severity",
    "msg",
    "message",
    "event",
    "time",
    "timestamp",
    "ts",
    "logger",
    "name",
    // Further spellings of the same.
    "levelname",
    "loglevel",
    "log.level",
    "asctime",
    "logger_name",
    "loggername",
];

impl Key {
    fn of(name: &str) -> Key {
        match name {
            "id" => Key::Id,
            "result" => Key::Result,
            "error" => Key::Error,
            "ready" => Key::Ready,
            "concurrency" => Key::Concurrency,
            "context" => Key::Context,
            other => {
                let bare = other.strip_prefix('@').unwrap_or(other);
                let mut members = LOGGER_MEMBERS.iter();
                match members.any(|member| bare.eq_ignore_ascii_case(member)) {
                    true => Key::Logger,
                    false => Key::Other,
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(Key::of(name))
    }
}

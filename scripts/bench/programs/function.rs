//! The function of the comparison in Rust, for a server that has it in the same program: a reading
//! of a device, `id,value,timestamp`. `examples/decode_type_a.rs` is the handler that does the same.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

#[derive(Serialize)]
struct Answer<'a> {
    result: Reading<'a>,
}

#[derive(Serialize)]
struct Reading<'a> {
    handler: &'static str,
    device_id: &'a str,
    metric_value: f64,
    timestamp: i64,
    status: &'static str,
}

/// The body of the answer, or nothing for a body or a payload that the function does not take.
pub(crate) fn answer(body: &[u8]) -> Option<Vec<u8>> {
    let request: Request = serde_json::from_slice(body).ok()?;
    let mut fields = request.payload.split(',');
    let result = Reading {
        handler: "decoder_type_a",
        device_id: fields.next()?,
        metric_value: fields.next()?.parse().ok()?,
        timestamp: fields.next()?.parse().ok()?,
        status: "decoded_successfully",
    };
    serde_json::to_vec(&Answer { result }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_decoded_and_anything_else_is_refused() {
        let decoded = answer(br#"{"payload":"dev-1,42,1678886400"}"#).unwrap();
        let expected = concat!(
            r#"{"result":{"handler":"decoder_type_a","device_id":"dev-1","metric_value":42.0,"#,
            r#""timestamp":1678886400,"status":"decoded_successfully"}}"#
        );
        assert_eq!(String::from_utf8(decoded).unwrap(), expected);
        for body in ["{}", r#"{"payload":"dev-1"}"#, r#"{"payload":"dev-1,x,1"}"#] {
            assert_eq!(answer(body.as_bytes()), None, "{body}");
        }
    }
}

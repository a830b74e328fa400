"""Decoders as they were written for the Python worker: they print every payload to stdout."""


def decode_type_a(payload: str) -> dict:
    print(f"Decoder Type A received: '{payload}'")
    try:
        parts = payload.split(",")
        return {
            "handler": "decoder_type_a",
            "device_id": parts[0],
            "metric_value": float(parts[1]),
            "timestamp": int(parts[2]),
            "status": "decoded_successfully",
        }
    except (IndexError, ValueError):
        return {
            "handler": "decoder_type_a",
            "error": "Invalid data format. Expected 'id,value,timestamp'.",
            "original_data": payload,
            "status": "decoding_failed",
        }


def decode_type_b(payload: str) -> dict:
    print(f"Decoder Type B received: '{payload}'")
    return {
        "handler": "decoder_type_b",
        "reversed_data": payload[::-1],
        "status": "decoded_successfully",
    }

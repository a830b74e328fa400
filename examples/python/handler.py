"""Functions to run with serve.py, for example: serve.py handler.default"""

import asyncio
import json
import math


def default(payload):
    try:
        value = json.loads(payload)
    except ValueError:
        return {
            "handler": "default",
            "original_data": payload,
            "status": "processed_as_string",
        }
    return {"handler": "default", "processed_data": value, "status": "processed_as_json"}


def decode_type_a(payload):
    try:
        device_id, value, timestamp = payload.split(",")[:3]
        value, timestamp = float(value), int(timestamp)
        if not math.isfinite(value):
            raise ValueError("JSON has no such number")
    except ValueError:
        return {
            "handler": "decoder_type_a",
            "error": "Invalid data format. Expected 'id,value,timestamp'.",
            "original_data": payload,
            "status": "decoding_failed",
        }
    return {
        "handler": "decoder_type_a",
        "device_id": device_id,
        "metric_value": value,
        "timestamp": timestamp,
        "status": "decoded_successfully",
    }


def decode_type_b(payload):
    return {
        "handler": "decoder_type_b",
        "reversed_data": payload[::-1],
        "status": "decoded_successfully",
    }


def identity(payload):
    return payload


def null(payload):
    return None


def raises(payload):
    raise ValueError(f"bad reading: {payload}")


async def async_echo(payload):
    await asyncio.sleep(0)
    return {"handler": "async", "echo": payload}

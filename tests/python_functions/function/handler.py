"""The functions of the recorded cases, in the layout of the Python worker."""

import asyncio
import json

from function.decoders import decode_type_a, decode_type_b

__all__ = [
    "async_echo", "decode_type_a", "decode_type_b", "default", "handle", "identity", "null",
    "raises",
]


def handle(payload: str) -> dict:
    print(f"Default handler received: '{payload}'")
    try:
        data = json.loads(payload)
        return {"handler": "default", "processed_data": data, "status": "processed_as_json"}
    except json.JSONDecodeError:
        return {
            "handler": "default",
            "original_data": payload,
            "status": "processed_as_string",
        }


default = handle


def identity(payload: str) -> str:
    return payload


def null(payload: str) -> None:
    print("Null received something")


def raises(payload: str) -> None:
    print("About to fail")
    raise ValueError(f"bad reading: {payload}")


async def async_echo(payload: str) -> dict:
    print(f"Async handler received: '{payload}'")
    await asyncio.sleep(0.001)
    return {"handler": "async", "echo": payload}


def prints(payload: str) -> str:
    print(f"working on {payload}")
    return payload


async def async_prints(payload: str) -> str:
    print(f"working on {payload}")
    await asyncio.sleep(0.002)
    return payload

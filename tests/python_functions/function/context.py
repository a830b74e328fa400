"""Functions that are given the context of their request, and one that looks as if it were."""

import asyncio
import logging

logging.basicConfig(format="%(levelname)s %(request_id)s %(message)s")


def told(payload, context):
    logging.warning("told of %s", payload)
    return {
        "payload": payload,
        "tenant": context.headers.get("x-tenant"),
        "request_id": context.request_id,
        "traceparent": context.traceparent,
        "has_time": 1 < context.time_left() <= 5,
    }


async def told_at_once(payload, context):
    await asyncio.sleep(0.05)
    logging.warning("told at once of %s", payload)
    return [payload, context.request_id]


def own_parameter(payload, factor=2):
    return factor

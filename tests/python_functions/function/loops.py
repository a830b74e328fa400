"""Functions that use the event loop, and a module that does while it is imported."""

import asyncio
import functools

LOOP = asyncio.get_running_loop()
TURNS = 0
MADE = asyncio.run(asyncio.sleep(0, "made"))


async def turn():
    global TURNS
    while True:
        TURNS += 1
        await asyncio.sleep(0.001)


TASK = LOOP.create_task(turn())


async def same(payload):
    return await LOOP.run_in_executor(None, str.upper, payload)


async def turning(payload):
    before = TURNS
    await asyncio.sleep(0.05)
    return TURNS > before


def note(path, text):
    with open(path, "a") as file:
        file.write(text + "\n")


async def note_soon(path):
    await asyncio.sleep(0)
    note(path, "task")


def accept(payload):
    asyncio.get_running_loop().create_task(note_soon(payload))
    asyncio.get_running_loop().call_later(0.05, note, payload, "later")
    return "accepted"


def run_within(payload):
    fresh = asyncio.new_event_loop()
    texts = [MADE, asyncio.run(asyncio.sleep(0, payload))]
    texts.append(fresh.run_until_complete(asyncio.sleep(0, payload)))
    fresh.close()
    return texts + [asyncio.get_event_loop().is_running()]


def task(payload):
    return asyncio.ensure_future(asyncio.sleep(0, payload))


def hide(function):
    @functools.wraps(function)
    def hidden(payload):
        return function(payload)

    hidden.__wrapped__ = None
    return hidden


@hide
async def hidden(payload):
    await asyncio.sleep(0)
    return payload


async def cancel_all(payload):
    if payload == "all":
        for each in asyncio.all_tasks():
            each.cancel()
    await asyncio.sleep(0.05)
    return payload

"""Results, exceptions and state, with classes of the same shape as those of well-known packages."""

import contextvars
import dataclasses
import datetime
import decimal
import enum
import os
import time

THIRD = decimal.Decimal(1) / 3
CALLER = contextvars.ContextVar("caller", default=None)


class Secret:
    def __init__(self, value):
        self._secret_value = value

    def get_secret_value(self):
        return self._secret_value

    def __str__(self):
        return "****"


class SecretText(str):
    def get_secret_value(self):
        return str.__str__(self)

    def __str__(self):
        return "****"


@dataclasses.dataclass
class Account:
    user: str
    password: object


class Thing:
    def __init__(self, **members):
        self.__dict__.update(members)


def secret(payload):
    return {
        "plain": Secret(payload),
        "list": [Secret(payload), (Secret(payload),)],
        "dataclass": Account("u", Secret(payload)),
        "object": Thing(password=Secret(payload)),
        "key": {Secret(payload): 1},
        "text": SecretText(payload),
        "yielded": (Secret(payload) for _ in range(1)),
    }


def secret_alone(payload):
    return Secret(payload)


def secret_in_detail(payload):
    raise HTTPException(404, {"password": Secret(payload)})


def rows(payload):
    for day in (1, 2):
        date = datetime.date(2024, 1, day)
        yield {"day": day, "counts": {date: day}, "more": (row for row in ({date: day},))}


class Url:
    __slots__ = ("text",)

    def __init__(self, text):
        self.text = text

    def unicode_string(self):
        return self.text

    def __str__(self):
        return self.text


class NameEmail:
    __module__ = "pydantic.networks"
    __slots__ = ()

    def __str__(self):
        return "n <e@x.com>"


class State:
    __slots__ = ()


class Device:
    def __init__(self):
        self._sa_instance_state = State()
        self.id = 1
        self.name = "x"


class Old:
    """As a model of pydantic.v1 under FastAPI: its pairs, by the names of its fields."""

    def __iter__(self):
        return iter([("long_name", datetime.date(2024, 1, 2))])

    def dict(self, by_alias=False):
        return {"longName" if by_alias else "long_name": 1}

    __fields__ = {}


class Model:
    def model_dump(self, mode, by_alias):
        return {"mode": mode, "by_alias": by_alias}


class Answer(str, enum.Enum):
    def __new__(cls, text):
        member = str.__new__(cls, text)
        member._value_ = 42
        return member

    MOST = "text"


class Anything(dict):
    """Affirms that it has any member, as many dicts with dots do."""

    __getattr__ = dict.get


def shapes(payload):
    return {
        "url": Url("http://a.b/c"),
        "email": NameEmail(),
        "devices": [Device()],
        "vars": vars(Device()),
        "old": Old(),
        "model": Model(),
        "answer": [Answer.MOST],
        "anything": Anything(a=1),
        "plain": {"_sale": 1, "b": 2},
        "key": {decimal.Decimal("1.5"): decimal.Decimal("2")},
    }


def answer(payload):
    return Answer.MOST


class JSONResponse:
    def __init__(self):
        self.status_code = 201
        self.background = None
        self.body = b'{"a":1}'
        self.raw_headers = [(b"x-a", b"b")]


def response(payload):
    return JSONResponse()


async def stream(payload):
    yield payload


class HTTPException(Exception):
    def __init__(self, status_code, detail=None, headers=None):
        self.status_code, self.detail, self.headers = status_code, detail, headers


class NoStatus(Exception):
    @property
    def status_code(self):
        return self.args[1]


class NoDetail(Exception):
    status_code = 404

    @property
    def detail(self):
        raise SystemExit(1)


class NoText(Exception):
    def __str__(self):
        raise KeyboardInterrupt


def raises(payload):
    if payload == "object":
        raise HTTPException(404, {"code": "E1", "at": [1, None]}, {"retry-after": "7"})
    if payload == "list":
        raise HTTPException(422, [{"when": datetime.date(2024, 1, 2)}])
    if payload == "number":
        raise HTTPException(409, 5)
    if payload == "yielded":
        return late()
    raise {"status": NoStatus, "detail": NoDetail, "text": NoText}[payload](payload)


async def raises_async(payload):
    return raises(payload)


def late():
    yield 1
    raise HTTPException(404, "no such row")


def context(payload):
    before = CALLER.get()
    CALLER.set(payload)
    if payload == "coarse":
        decimal.getcontext().prec = 3
    return [before, str(decimal.Decimal(1) / 3)]


async def context_async(payload):
    return context(payload)


def nap(payload):
    with open(payload, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(0.5)
    return "rested"


def sleep(payload):
    time.sleep(60)


def echo(payload):
    return payload

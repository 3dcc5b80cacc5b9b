"""What may pass between a program and its tests: plain values as JSON lines, and handles of everything else.

Whatever the other side sends becomes plain values here, or an error: nothing that it sends is ever run.
"""

import datetime
import decimal
import fractions
import json
import os

LONGEST = 1 << 24
"""Bytes of one message."""
PLAIN = (type(None), bool, str, float)


class Closed(Exception):
    """The other side has gone, or sent what is no message."""


class Channel:
    """Messages over a socket: one JSON value a line."""

    def __init__(self, descriptor):
        self.descriptor, self.rest = descriptor, b""

    def send(self, message):
        data = json.dumps(message).encode() + b"\n"
        if len(data) > LONGEST:
            raise ValueError(f"{len(data)} bytes are too much for one value")
        while data:
            data = data[os.write(self.descriptor, data) :]

    def receive(self):
        parts = [self.rest]
        size = len(self.rest)
        while b"\n" not in parts[-1]:
            part = os.read(self.descriptor, 1 << 16)
            size += len(part)
            if not part or size > LONGEST:
                raise Closed("the program ended" if not part else "the program sent too much")
            parts.append(part)
        line, _, self.rest = b"".join(parts).partition(b"\n")
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise Closed("the program sent what is no message") from None


def packed(value, handle):
    """JSON of a value; `handle(value)` gives the number of what is no plain value. Exact types only: a subclass may lie."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is int:
        return value if abs(value) < 1 << 53 else ["int", hex(value)]
    if kind in (list, tuple, set, frozenset):
        return [kind.__name__, *(packed(v, handle) for v in value)]
    if kind is dict:
        return ["dict", *([packed(k, handle), packed(v, handle)] for k, v in value.items())]
    if kind in (bytes, bytearray):
        return [kind.__name__, value.decode("latin-1")]
    if kind is complex:
        return ["complex", value.real, value.imag]
    if kind is range:
        return ["range", value.start, value.stop, value.step]
    if kind in (decimal.Decimal, fractions.Fraction):
        return [kind.__name__, str(value)]
    if kind in (datetime.date, datetime.datetime):
        return [kind.__name__, value.isoformat()]
    if kind is datetime.timedelta:
        return ["timedelta", value.days, value.seconds, value.microseconds]
    return ["handle", *handle(value)]


def unpacked(data, handle):
    """The value of a JSON; `handle(*rest)` gives what stands for something that stayed on the other side."""
    if not isinstance(data, list):
        return data
    kind, *rest = data
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](unpacked(v, handle) for v in rest)
    if kind == "dict":
        return {unpacked(k, handle): unpacked(v, handle) for k, v in rest}
    if kind == "handle":
        return handle(*rest)
    return _READ[kind](*rest)


_CONTAINERS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_READ = {
    "int": lambda text: int(text, 16),
    "bytes": lambda text: text.encode("latin-1"),
    "bytearray": lambda text: bytearray(text.encode("latin-1")),
    "complex": complex,
    "range": range,
    "Decimal": decimal.Decimal,
    "Fraction": fractions.Fraction,
    "date": datetime.date.fromisoformat,
    "datetime": datetime.datetime.fromisoformat,
    "timedelta": datetime.timedelta,
}


def plain_view(value):
    """The plain value that an object of a subclass holds (a Counter is a dict, an IntEnum an int), or the object itself."""
    for base, made in _BASES:
        if isinstance(value, base):
            return made(value)
    return value


_BASES: tuple = (
    (bool, bool), (int, int), (float, float), (str, str), (bytes, bytes), (list, list), (tuple, tuple),
    (dict, lambda value: dict(value.items())), (set, set), (frozenset, frozenset),
)  # fmt: skip

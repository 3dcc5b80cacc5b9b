"""The side of the program: runs it, then does what the tests ask of it. Nothing here decides anything."""

import builtins
import io
import operator
import sys
import types

from wire import Channel, Closed, packed, plain_view, unpacked

OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
STDLIB = ("math", "cmath", "re", "string", "itertools", "collections", "heapq", "bisect", "statistics", "random", "copy", "json",
          "datetime", "decimal", "fractions", "typing", "operator", "functools", "sys", "io", "time")  # fmt: skip


class Program:
    """The program's names, and the objects that the tests hold by number."""

    def __init__(self, channel):
        self.channel, self.names, self.objects = channel, {"__name__": "__main__"}, []
        self.printed = io.StringIO()

    def serve(self, source):
        sys.stdout = self.printed
        try:
            exec(compile(source, "program.py", "exec"), self.names)
            reply = ["value", None]
        except BaseException as error:
            reply = raised(error)
        self.answer(reply)
        while True:
            self.answer(self.done(self.channel.receive()))

    def answer(self, reply):
        text = self.printed.getvalue()[: 1 << 20]
        self.printed.seek(0)
        self.printed.truncate()
        self.channel.send([*reply, text])

    def done(self, message):
        try:
            what, *rest = message
            return ["value", *_DO[what](self, *rest)]
        except BaseException as error:
            return raised(error)

    def handle(self, value):
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__]
        self.objects.append(value)
        return [len(self.objects) - 1, descent(value) if isinstance(value, type) and issubclass(value, BaseException) else []]

    def out(self, value):
        return packed(value, self.handle)

    def given(self, data):
        return unpacked(data, lambda side, number: self.objects[number] if side == "own" else Callback(self, number))


def raised(error):
    try:
        said = str(error)[:2000]
    except BaseException:
        said = ""
    return ["raised", descent(type(error)), said]


def descent(cls):
    """The names of a class and its parents, the eldest error first."""
    return [c.__name__ for c in reversed(cls.__mro__) if issubclass(c, BaseException)]


def _name(program, name):
    if name not in program.names:
        raise KeyError(name)
    return [program.out(program.names[name])]


def _call(program, number, arguments, options):
    given = [program.given(a) for a in arguments]
    result = program.objects[number](*given, **{k: program.given(v) for k, v in options})
    return [program.out(result), [program.out(a) if type(a) in (list, dict, set, bytearray) else None for a in given]]


def _set(program, number, name, value):
    setattr(program.objects[number], name, program.given(value))
    return [None]


def _operate(program, name, left, right):
    return [program.out(getattr(operator, name)(program.given(left), program.given(right)))]


_DO: dict = {
    "name": _name,
    "call": _call,
    "operate": _operate,
    "attribute": lambda p, n, name: [p.out(getattr(p.objects[n], name))],
    "set": _set,
    "item": lambda p, n, key: [p.out(p.objects[n][p.given(key)])],
    "set_item": lambda p, n, key, value: [p.out(operator.setitem(p.objects[n], p.given(key), p.given(value)))],
    "contains": lambda p, n, item: [p.given(item) in p.objects[n]],
    "builtin": lambda p, name, n, *rest: [p.out(getattr(builtins, name)(p.objects[n], *map(p.given, rest)))],
    "isinstance": lambda p, n, cls: [isinstance(p.objects[n], p.objects[cls])],
    "view": lambda p, n: [p.out(plain_view(p.objects[n]))],
}


class Callback:
    """A function of the tests, as the program sees it: called, it asks the tests."""

    def __init__(self, program, number):
        self._program, self._number = program, number

    def __call__(self, *arguments):
        program = self._program
        program.channel.send(["call", self._number, [program.out(a) for a in arguments]])
        while True:
            message = program.channel.receive()
            if message[0] == "result":
                return program.given(message[1])
            if message[0] == "failed":
                raise RuntimeError(message[1])
            program.answer(program.done(message))


def run(descriptor):
    channel = Channel(descriptor)
    try:
        channel.send("ready")
        Program(channel).serve(channel.receive())
    except (Closed, OSError):
        pass  # the tests are over

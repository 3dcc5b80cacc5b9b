"""The side of the tests: runs them against the program in the other process, and says whether they all held.

Every comparison of a plain value happens here, where the program cannot reach: an object of the program that claims to equal
everything is looked into, not asked.
"""

import builtins
import importlib
import os
import sys
import traceback

from program import COMPARISONS, OPERATORS, STDLIB
from wire import Channel, Closed, packed, unpacked


class Remote:
    """The program, as the tests reach it."""

    def __init__(self, channel):
        self.channel, self.functions, self.errors, self.numbers = channel, [], {}, {}

    def ask(self, *message):
        self.channel.send(message)
        return self.answer()

    def answer(self):
        while True:
            message = self.channel.receive()
            if not isinstance(message, list) or len(message) < 3 or message[0] not in ("call", "value", "raised"):
                raise Closed("the program sent what is no message")
            if message[0] == "call":
                self.channel.send(self.called(*message[1:3]))
                continue
            sys.stdout.write(str(message[-1]))
            if message[0] == "value":
                return message[1:-1]
            raise self.error([str(name) for name in message[1]])(str(message[2]))

    def error(self, line):
        """The class of an error by its line of descent, the eldest first: builtin classes are themselves."""
        found: type[BaseException] = Exception
        for name in line:
            known = getattr(builtins, name, None)
            if isinstance(known, type) and issubclass(known, BaseException):
                found = known
            else:
                found = self.errors.setdefault(name, type(name, (found,), {}))
        return found

    def called(self, number, arguments):
        try:
            return ["result", self.out(self.functions[number](*map(self.given, arguments)))]
        except Exception as error:
            return ["failed", f"{type(error).__name__}: {error}"[:2000]]

    def value(self, *message):
        return self.given(self.ask(*message)[0])

    def out(self, value):
        return packed(value, self.handle)

    def handle(self, value):
        if isinstance(value, Thing):
            return ["own", value._number]
        if isinstance(value, type) and value in self.numbers:
            return ["own", self.numbers[value]]
        if not callable(value):
            raise TypeError(f"tests cannot give the program a {type(value).__name__}")
        self.functions.append(value)
        return ["function", len(self.functions) - 1]

    def given(self, data):
        return unpacked(data, self.thing)

    def thing(self, number, *rest):
        if number == "module":
            if rest[0] not in STDLIB:
                raise NameError(f"the tests must import {rest[0]} themselves")
            return importlib.import_module(rest[0])
        if line := rest[0]:
            found = self.error([str(name) for name in line])
            self.numbers[found] = number
            return found
        return Thing(self, number)


class Thing:
    """An object of the program: asked for what it does, looked into for what it equals."""

    def __init__(self, remote, number):
        object.__setattr__(self, "_remote", remote)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments, **options):
        remote = self._remote
        packed_options = [[k, remote.out(v)] for k, v in options.items()]
        result, after = remote.ask("call", self._number, [remote.out(a) for a in arguments], packed_options)
        for argument, data in zip(arguments, after, strict=False):
            if data is not None:
                _write_back(argument, remote.given(data))
        return remote.given(result)

    def __getattr__(self, name):
        return self._remote.value("attribute", self._number, name)

    def __setattr__(self, name, value):  # type: ignore[explicit-override]  # this process has the standard library alone
        self._remote.ask("set", self._number, name, self._remote.out(value))

    def __getitem__(self, key):
        return self._remote.value("item", self._number, self._remote.out(key))

    def __setitem__(self, key, value):
        self._remote.ask("set_item", self._number, self._remote.out(key), self._remote.out(value))

    def __contains__(self, item):
        return bool(self._remote.ask("contains", self._number, self._remote.out(item))[0])

    def __instancecheck__(self, value):
        return isinstance(value, Thing) and bool(self._remote.ask("isinstance", value._number, self._number)[0])

    def __iter__(self):
        iterator = self._remote.value("builtin", "iter", self._number)
        return iterator if isinstance(iterator, Thing) else iter(iterator)

    def __enter__(self):
        return self.__getattr__("__enter__")()

    def __exit__(self, *error):
        return self.__getattr__("__exit__")(None, None, None)

    def _plain(self):
        return self._remote.value("view", self._number)


def _write_back(argument, after):
    """What the program changed in a list, dict or set that it was given."""
    if type(argument) is type(after) and argument != after:
        if isinstance(argument, list | bytearray):
            argument[:] = after
        elif isinstance(argument, dict | set):
            argument.clear()
            argument.update(after)


def _compares(name):
    import operator

    def compare(self, other):
        if isinstance(other, Thing):
            return bool(self._remote.value("operate", name, self._remote.out(self), other._remote.out(other)))
        own = self._plain()
        if isinstance(own, Thing):
            return {"eq": False, "ne": True}.get(name, NotImplemented)
        return getattr(operator, name)(own, other)

    return compare


def _operates(name, swapped):
    import operator

    def operate(self, other):
        remote = self._remote
        own = self if isinstance(other, Thing) else self._plain()
        if not isinstance(own, Thing):
            return getattr(operator, name)(*((other, own) if swapped else (own, other)))
        sides = (other, self) if swapped else (self, other)
        result = remote.value("operate", name, *map(remote.out, sides))
        if not isinstance(other, Thing) and not isinstance(result, Thing):
            raise TypeError("an object of the program with a plain value gives an object, or is no test")
        return result

    return operate


def _does(name):
    return lambda self, *rest: self._remote.value("builtin", name, self._number, *map(self._remote.out, rest))


for _name in COMPARISONS:
    setattr(Thing, f"__{_name}__", _compares(_name))
for _name in OPERATORS:
    setattr(Thing, f"__{_name.rstrip('_')}__", _operates(_name, swapped=False))
    setattr(Thing, f"__r{_name.rstrip('_')}__", _operates(_name, swapped=True))
for _name in ("bool", "len", "next", "int", "float", "str", "repr", "abs", "round", "hash", "reversed", "complex", "index"):
    if hasattr(builtins, _name):
        setattr(Thing, f"__{_name}__", _does(_name))


class Names(dict):
    """The tests' own names; those they lack are the program's. The builtins stay what they are."""

    def __init__(self, remote):
        super().__init__(__name__="tests")
        self._remote = remote

    def __missing__(self, name):
        if hasattr(builtins, name):
            raise KeyError(name)
        try:
            return self._remote.value("name", name)
        except KeyError:
            raise KeyError(name) from None


def run(descriptor, verdict, sources):
    """Writes `passed`, or what failed, to `verdict`, which only this process has."""
    remote = Remote(Channel(descriptor))
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (as long as the process)
    try:
        remote.channel.receive()
        os.write(verdict, b"ready\n")
        tests = compile(sources["tests"], "tests", "exec")
        remote.channel.send(sources["program"])
        remote.answer()
        exec(tests, Names(remote))
        said = "passed"
    except BaseException as error:
        said = "failed: " + "".join(traceback.format_exception_only(error)).strip()
    os.write(verdict, said.encode("utf-8", "replace")[-2000:] if said != "passed" else b"passed")

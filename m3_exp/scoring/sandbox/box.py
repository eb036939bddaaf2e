"""The process inside a box. It reads its job, locks itself down, and only then lets foreign code run.

A *candidate* runs the model's program and answers requests about its functions and objects with plain values. A
*grader* runs the benchmark's tests. In the tests, stand-ins for the program's names send requests to the candidate. The
verdict is the grader's, and it travels over a descriptor that the candidate never had. Each box reports on a descriptor
of its own, one JSON object a line; the candidate closes its own before the model's program begins.
"""

import abc
import collections
import copy
import enum
import functools
import itertools
import json
import operator
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from . import codec, lockdown, reading, standins, talk
from .kinds import About, CodecError, Value

_REASON_LENGTH = 300


def main(role: str, source: int, channel: int, report: int, *, walls: lockdown.Walls) -> None:
    """Be a box: `role` is candidate or grader, `source` its job, `channel` leads to the other box, `report` to the
    judge.
    """
    with open(source, "rb") as file:
        job = json.loads(file.read())
    try:
        lockdown.lock(cpu_seconds=job["cpu_seconds"], memory=job["memory"], walls=walls)
    except (lockdown.LockdownError, OSError, ValueError) as error:
        write(report, {"error": str(error)})
        return
    write(report, {"locked": True})
    if role == "candidate":
        _be_candidate(job, channel, report)
    else:
        _be_grader(job, channel, report)


def write(descriptor: int, record: Mapping[str, Value]) -> None:
    """Report something to the judge: one line, in one write."""
    os.write(descriptor, json.dumps(record).encode() + b"\n")


def _describe(error: BaseException) -> str:
    """Return an error's name, with its text unless that would run foreign code without end (the judge has a clock)."""
    try:
        return f"{type(error).__name__}: {error}"[:_REASON_LENGTH].strip(": ")
    except Exception:
        return type(error).__name__[:_REASON_LENGTH]


# --------------------------------------------------------------------------------------------------------- candidate


def _be_candidate(job: Mapping[str, Any], channel: int, report: int) -> NoReturn:
    code, record = reading.choose(job["programs"], job["names"], _describe)
    write(report, record)
    os.close(report)
    program = _Program(channel)
    try:
        if code is not None:
            exec(code, program.names)
    except BaseException as error:  # sys.exit() too: whatever ends the program is the answer to every request
        program.failure = error
    while True:
        program.talk.served()


class _Program:
    """A program that has run: its names, and the objects that the tests hold on to."""

    def __init__(self, channel: int) -> None:
        module = types.ModuleType("answer")
        sys.modules["answer"] = module
        self.names: dict[str, Value] = module.__dict__
        self.failure: BaseException | None = None
        self._given: dict[str, Value] = {}
        self.kept = Kept()
        wire = codec.Wire(1, self.kept.keep, self._find, lambda _, about: standins.make_foreign(about, self.talk.ask))
        asked = {**_ASKED, "names": self._named}
        self.talk = talk.Talk(channel, wire, {name: functools.partial(self._do, act) for name, act in asked.items()})

    def _do(self, act: Callable[..., Value], target: Value, *arguments: Value) -> Value:
        """Carry out a request; return its value and those of the program's names that now stand for another value."""
        if self.failure is not None:
            raise self.failure
        value = act(target, *arguments)
        changed = {
            name: self.names[name]
            for name, given in self._given.items()
            if name in self.names and self.names[name] is not given
        }
        self._given.update(changed)
        return value, changed

    def _named(self, names: Iterable[str]) -> dict[str, Value]:
        """Return what the program calls by these names; from now on, say when a name stands for another value."""
        self._given = {name: self.names[name] for name in names if name in self.names}
        return dict(self._given)

    def _find(self, key: int | str) -> object:
        return self.kept.find(key) if isinstance(key, int) else self.names.get(key, _undefined(key))


def _undefined(name: str) -> Callable[..., NoReturn]:
    def undefined(*_: Value, **__: Value) -> NoReturn:
        raise NameError(f"the program defines no {name}")

    return undefined


class Kept:
    """Objects that the other side may name: each has one number."""

    def __init__(self) -> None:
        self._objects: list[object] = []
        self._numbers: dict[int, int] = {}

    def keep(self, value: object) -> tuple[int, About]:
        number = self._numbers.setdefault(id(value), len(self._objects))
        if number == len(self._objects):
            self._objects.append(value)
        return number, _about(value)

    def find(self, number: int) -> object:
        return self._objects[number]

    def holds(self, value: object) -> bool:
        """Say whether the other side has the number of this object."""
        return id(value) in self._numbers


_FUNCTIONS = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodWrapperType),
    *(types.WrapperDescriptorType, types.MethodDescriptorType, functools.partial, functools._lru_cache_wrapper),
    *(operator.itemgetter, operator.attrgetter, operator.methodcaller),
)
_ITERATORS = frozenset(
    [zip, enumerate, reversed, type(iter("")), type(iter(b"")), type(iter(bytearray())), type(iter(range(0))),
     type(iter(range(1 << 80))), type(iter([])), type(reversed([])), type(iter(())), type(iter({})), type(iter(set())),
     type(iter({}.values())), type(iter({}.items())), type(reversed({})), type(iter(int, 0)), type(re.finditer("", "")),
     type(iter(collections.deque())), type(iter(collections.OrderedDict()))]
    + [kind for kind in vars(itertools).values() if isinstance(kind, type)]
)  # fmt: skip
_GENERATED: Mapping[type, str] = {types.GeneratorType: "generator", map: "map", filter: "filter"}
_METACLASSES = (type, abc.ABCMeta, enum.EnumMeta)  # whose classes compare by identity
_PLAIN = (re.Match, re.Pattern)


def _about(value: object) -> About:
    """Say what an object is, by its real type."""
    kind = type(value)
    name = str.__str__(type.__dict__["__name__"].__get__(kind))
    if kind in _GENERATED:
        return About(_GENERATED[kind], name)
    if kind in _ITERATORS:
        return About("iterator", name)
    if kind in _FUNCTIONS:
        return About("function", str(getattr(value, "__name__", name)))
    if isinstance(value, type) and kind in _METACLASSES:
        own = str.__str__(value.__name__)
        if issubclass(value, Exception):
            bases = tuple(base.__name__ for base in value.__mro__ if base.__module__ == "builtins")
            return About("error", own, bases)
        return About("class", own)
    has = functools.partial(hasattr, kind)
    traits = {
        "call": has("__call__"),
        "iterate": has("__iter__") or has("__getitem__"),
        "next": has("__next__"),
        "true": not has("__bool__") and not has("__len__"),
        "plain": kind in _PLAIN,
    }
    return About("object", name, tuple(trait for trait, there in traits.items() if there))


def _step(iterator: Any, sent: Value) -> tuple[Value, ...]:
    """Return the next value of an iterator as a tuple of one; an empty tuple at its end."""
    try:
        return (iterator.send(sent) if sent is not None else next(iterator),)
    except StopIteration:
        return ()


def _operate(target: Value, name: str, *arguments: Value) -> Value:
    if name not in standins.OPERATORS:
        raise TypeError(f"{name} cannot be asked for")
    return getattr(target, name)(*arguments)


# What the tests may do with an object of the program. No operator is among them that a value of theirs would go into.
_ASKED: Mapping[str, Callable[..., Value]] = {
    "call": lambda target, positional, keywords: target(*positional, **keywords),
    "get": getattr,
    "set": setattr,
    "iterate": iter,
    "send": _step,
    "len": len,
    "bool": bool,
    "str": str,
    "repr": repr,
    "item": operator.getitem,
    "set_item": operator.setitem,
    "delete_item": operator.delitem,
    "enter": lambda target: target.__enter__(),
    "exit": lambda target: target.__exit__(None, None, None),
    "is_instance": lambda target, value: target in type.__dict__["__mro__"].__get__(type(value)),
    "copy": copy.copy,
    "deep_copy": copy.deepcopy,
}


# ------------------------------------------------------------------------------------------------------------ grader


class TestsUnfit(BaseException):
    """The tests themselves cannot be run this way: the item is unscored. An item's prelude may raise it by name."""


class NoPlainValue(BaseException):
    """The tests ask an object of the program what only plain values may be asked: a failed test."""


def _be_grader(job: Mapping[str, Any], channel: int, report: int) -> None:
    names: dict[str, Value] = {"__name__": "tests", "TestsUnfit": TestsUnfit}
    program = _Tested(channel, names)
    try:
        try:
            exec(compile(job["prelude"], "<prelude>", "exec", dont_inherit=True), names)
            tests = compile(job["test"], "<tests>", "exec", dont_inherit=True)
        except Exception as error:
            raise TestsUnfit(f"the item's own code fails: {_describe(error)}") from error
        program.define(list(dict.fromkeys((job["entry_point"], *job["names"]))))
        exec(tests, names)
        verdict: dict[str, Value] = {"passed": True}
    except BaseException as error:  # a test that fails, in whatever way, is a wrong answer
        verdict = {"passed": False, "reason": program.explained(error)}
        program.ended = program.ended or (error if isinstance(error, _ENDS) else None)
    match program.ended:
        case TestsUnfit():
            verdict = {"unfit": str(program.ended)}
        case talk.Gone():
            verdict = {"passed": False, "gone": True, "reason": str(program.ended)}
        case NoPlainValue():
            verdict = {"passed": False, "reason": str(program.ended)}
    write(report, verdict)


_ENDS = (TestsUnfit, talk.Gone, NoPlainValue)


class _Tested:
    """The program as the tests see it: stand-ins for its names, in the tests' own namespace.

    `ended` is the fault that fails the item for good, even where the tests catch the exception.
    """

    def __init__(self, channel: int, names: dict[str, Value]) -> None:
        self.ended: BaseException | None = None
        self._names = names
        self._defined: dict[str, Value] = {}
        self._met: str | None = None
        self._classes: frozenset[str] = frozenset()
        self._kept = Kept()
        wire = codec.Wire(0, self._kept.keep, lambda key: self._kept.find(int(key)), self._make)
        self._talk = talk.Talk(channel, wire, {name: self._only_kept(act) for name, act in _LENT.items()}, _ENDS)

    def define(self, names: list[str]) -> None:
        """Put what the program calls by these names into the tests' namespace."""
        self._classes = frozenset(name for name in names if name[:1].isupper())
        try:
            values = self.ask("names", names)
        except Exception:  # the program failed: each use of a name says so
            values = {}
        for name in names:
            self._set(name, values[name] if name in values else self._undefined(name))

    def ask(self, operation: str, *rest: Value) -> Any:
        """Return what the program makes of a request, or raise what it raises."""
        try:
            value, changed = self._talk.ask(operation, *rest)
        except CodecError as error:
            self.ended = TestsUnfit(f"the tests pass a value that cannot cross: {error}")
            raise self.ended from error
        except _ENDS as error:
            self.ended = self.ended or error
            raise
        except (TypeError, ValueError) as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                self.ended = talk.Gone("the program's answer is not a reply")
                raise self.ended from None
            raise
        for name, new in changed.items():
            if name in self._defined and self._names.get(name) is self._defined[name]:
                self._set(name, new)
        return value

    def explained(self, error: BaseException) -> str:
        """Return why a test failed, with the first object among the program's answers that is no plain value."""
        told = _describe(error)
        return told if self._met is None else f"{told} ({_returned(self._met)})"

    def _set(self, name: str, value: Value) -> None:
        self._names[name] = self._defined[name] = value

    def _undefined(self, name: str) -> object:
        return self._talk.wire.stand_in(name, About("function", name))

    def _make(self, key: int | str, about: About) -> object:
        if about.kind == "object" and "plain" not in about.traits and about.name not in self._classes:
            self._met = self._met or about.name
        return standins.make(about, self.ask, self._refuse, self._classes)

    def _refuse(self, name: str) -> BaseException:
        self.ended = self.ended or NoPlainValue(_returned(name))
        return self.ended

    def _only_kept(self, act: Callable[..., Value]) -> Callable[..., Value]:
        def carry_out(target: Value, *arguments: Value) -> Value:
            if not self._kept.holds(target):
                raise TypeError("no object of the tests")
            return act(target, *arguments)

        return carry_out


def _returned(name: str) -> str:
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return f"the program returned {article} {name}, which is no plain value"


def _open_attribute(target: Value, name: str, *value: Value) -> Any:
    """Read or set an attribute of an object of the tests; never one of Python's own, and none of a function."""
    if name.startswith("_") or _about(target).kind != "object":
        raise AttributeError(name)
    return setattr(target, name, *value) if value else getattr(target, name)


# What a program may do with an object that the tests have passed to it.
_LENT: Mapping[str, Callable[..., Value]] = {
    **{name: _ASKED[name] for name in ("call", "iterate", "send", "len", "bool", "str", "repr", "item")},
    "get": _open_attribute,
    "set": _open_attribute,
    "operate": _operate,
}

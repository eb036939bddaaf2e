"""The process inside a box. It reads its job, locks itself down, and only then lets foreign code run.

A *candidate* runs the model's program and answers requests about its functions and objects with plain values. A
*grader* runs the benchmark's tests with stand-ins for the program's names that ask the candidate. The verdict is the
grader's, and it travels over a descriptor that the candidate never had. Both report on a descriptor of their own, one
JSON object a line; the candidate closes its before the model's program begins.
"""

import builtins
import json
import operator
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from . import codec, lockdown

_REASON_LENGTH = 300


def main(role: str, source: int, channel: int, report: int, *, walls: lockdown.Walls) -> None:
    """Be a box: `role` is candidate or grader, `source` holds the job, `channel` leads to the other, `report` out."""
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


def write(descriptor: int, record: Mapping[str, Any]) -> None:
    """Report something to the judge: one line, in one write."""
    os.write(descriptor, json.dumps(record).encode() + b"\n")


def _describe(error: BaseException) -> str:
    """Name an error; its text is not asked for where that runs foreign code without end (the judge has a clock)."""
    try:
        return f"{type(error).__name__}: {error}"[:_REASON_LENGTH].strip(": ")
    except Exception:
        return type(error).__name__[:_REASON_LENGTH]


# --------------------------------------------------------------------------------------------------------- candidate


def _be_candidate(job: Mapping[str, Any], channel: int, report: int) -> NoReturn:
    code, record = _compile(job["programs"])
    write(report, record)
    os.close(report)
    program = _Program()
    try:
        if code is not None:
            exec(code, program.names)
    except BaseException as error:  # sys.exit() too: whatever ends the program is the answer to every request
        program.failure = error
    while True:
        codec.send(channel, program.reply(codec.receive(channel)))


def _compile(programs: list[list[str]]) -> tuple[types.CodeType | None, dict[str, Any]]:
    """Return the code of the first reading that is valid Python, and what to report: its name, or the first error."""
    first = ""
    for reading, source in programs:
        try:
            return compile(source, "<answer>", "exec", dont_inherit=True), {"reading": reading}
        except Exception as error:
            first = first or _describe(error)
    return None, {"invalid": first}


class _Program:
    """A program that has run: its names, and the objects that the tests hold on to."""

    def __init__(self) -> None:
        module = types.ModuleType("answer")
        sys.modules["answer"] = module
        self.names: dict[str, Any] = module.__dict__
        self.failure: BaseException | None = None
        self._kept: list[object] = []

    def reply(self, request: bytes) -> bytes:
        """Carry a request out and return what came of it, a value or an exception."""
        try:
            if self.failure is not None:
                raise self.failure
            operation, target, *arguments = codec.loads(request, self._find)
            return codec.dumps(("value", _OPERATIONS[operation](target, *arguments)), self._keep)
        except BaseException as error:  # the program's own errors, whatever they are, are its answer
            known = type(error).__module__ == "builtins"
            text = error.args[0] if known and len(error.args) == 1 else str(error) if known else _describe(error)
            name = type(error).__name__ if known else "RuntimeError"
            return codec.dumps(("raised", name, str(text)[:_REASON_LENGTH]))

    def _keep(self, value: object) -> int:
        self._kept.append(value)
        return len(self._kept) - 1

    def _find(self, key: int | str) -> object:
        return self._kept[key] if isinstance(key, int) else self.names.get(key, _undefined(key))


def _undefined(name: str) -> Callable[..., NoReturn]:
    def undefined(*_: Any, **__: Any) -> NoReturn:
        raise NameError(f"the program defines no {name}")

    return undefined


def _step(iterator: Iterator[Any]) -> tuple[Any, ...]:
    for value in iterator:
        return (value,)
    return ()


# What the tests may do with an object of the program. `==` is not among them: the program never judges itself.
_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "call": lambda target, positional, keywords: target(*positional, **keywords),
    "get": getattr,
    "set": setattr,
    "iter": iter,
    "step": _step,
    "len": len,
    "bool": bool,
    "str": str,
    "item": operator.getitem,
    "contains": operator.contains,
}


# ------------------------------------------------------------------------------------------------------------ grader


class CandidateGone(BaseException):
    """The candidate ended or said something that is not a value: no test can go on, whatever it catches."""


class TestsUnfit(BaseException):
    """The tests themselves cannot be run this way: nobody's program is at fault. Preludes know it by its name."""


def _be_grader(job: Mapping[str, Any], channel: int, report: int) -> None:
    names: dict[str, Any] = {"__name__": "tests", "TestsUnfit": TestsUnfit}
    try:
        try:
            exec(compile(job["prelude"], "<prelude>", "exec", dont_inherit=True), names)
            tests = compile(job["test"], "<tests>", "exec", dont_inherit=True)
        except Exception as error:
            raise TestsUnfit(f"the item's own code fails: {_describe(error)}") from error
        ask = _asking(channel)
        for name in (job["entry_point"], *job["names"]):
            names[name] = _StandIn("function", name, ask)
        exec(tests, names)
        verdict: dict[str, Any] = {"passed": True}
    except TestsUnfit as error:
        verdict = {"unfit": str(error)}
    except CandidateGone as error:
        verdict = {"passed": False, "gone": True, "reason": str(error)}
    except BaseException as error:  # a test that fails, in whatever way, is a wrong answer
        verdict = {"passed": False, "reason": _describe(error)}
    write(report, verdict)


Ask = Callable[..., Any]


class _StandIn(codec.Opaque):
    """An object of the program, in the tests: everything but `==` asks the program."""

    __slots__ = ("_ask",)

    def __init__(self, type_name: str, key: int | str, ask: Ask) -> None:
        super().__init__(type_name, key)
        object.__setattr__(self, "_ask", ask)

    def __call__(self, *positional: Any, **keywords: Any) -> Any:
        return _ask(self, "call", positional, keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python's own protocols are those below
            raise AttributeError(name)
        return _ask(self, "get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "set", name, value)

    def __iter__(self) -> Iterator[Any]:
        iterator = _ask(self, "iter")
        while found := _ask(iterator, "step"):
            yield found[0]

    def __next__(self) -> Any:
        for value in _ask(self, "step"):
            return value
        raise StopIteration

    def __len__(self) -> int:
        return int(_ask(self, "len"))

    def __bool__(self) -> bool:
        return _ask(self, "bool") is True

    def __str__(self) -> str:
        return str.__str__(_ask(self, "str"))

    def __getitem__(self, key: Any) -> Any:
        return _ask(self, "item", key)

    def __contains__(self, value: Any) -> bool:
        return _ask(self, "contains", value) is True


def _ask(target: Any, operation: str, *arguments: Any) -> Any:
    return object.__getattribute__(target, "_ask")(operation, target, *arguments)


def _asking(channel: int) -> Ask:
    def ask(*request: Any) -> Any:
        try:
            data = codec.dumps(request)
        except codec.CodecError as error:
            raise TestsUnfit(f"the tests pass a value that cannot cross: {error}") from error
        try:
            codec.send(channel, data)
            reply = codec.loads(codec.receive(channel), make=lambda name, key: _StandIn(name, key, ask))
        except (OSError, EOFError):
            raise CandidateGone("the program ended before it answered") from None
        except codec.CodecError as error:
            raise CandidateGone(f"the program's answer is not a value: {error}") from None
        return _opened(reply)

    return ask


def _opened(reply: Any) -> Any:
    """Return what the candidate returned, or raise what it raised as the built-in exception of that name."""
    if type(reply) is tuple and len(reply) == 2 and reply[0] == "value":
        return reply[1]
    if type(reply) is tuple and len(reply) == 3 and reply[0] == "raised" and type(reply[1]) is str:
        kind = getattr(builtins, reply[1], RuntimeError)
        silent = (StopIteration, StopAsyncIteration)  # these would end a test's loop without failing it
        if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, silent):
            kind = RuntimeError
        raise _raised(kind, str(reply[2]))
    raise CandidateGone("the program's answer is not a reply")


def _raised(kind: type[Exception], text: str) -> Exception:
    try:
        return kind(text)
    except TypeError:  # UnicodeDecodeError and its like want more arguments
        return RuntimeError(text)

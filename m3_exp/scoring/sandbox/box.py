"""The process inside a box. It reads its job, locks itself down, and only then lets foreign code run.

A *candidate* runs the model's program and answers calls of one of its functions with plain values. A *grader* runs
the benchmark's tests with a stand-in for that function that asks the candidate. The verdict is the grader's, and it
travels over a descriptor that the candidate never had. Both report on a descriptor of their own, one JSON object a
line; the candidate closes its before the model's program begins.
"""

import builtins
import json
import os
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from . import codec, lockdown

_REASON_LENGTH = 300


def main(role: str, source: int, channel: int, report: int, *, landlock: bool) -> None:
    """Be a box: `role` is candidate or grader, `source` holds the job, `channel` leads to the other, `report` out."""
    with open(source, "rb") as file:
        job = json.loads(file.read())
    try:
        lockdown.lock(cpu_seconds=job["cpu_seconds"], memory=job["memory"], landlock=landlock)
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


def _be_candidate(job: Mapping[str, Any], channel: int, report: int) -> None:
    code, record = _compile(job["programs"])
    write(report, record)
    os.close(report)
    failure: BaseException | None = None
    module = types.ModuleType("answer")
    sys.modules["answer"] = module
    try:
        if code is not None:
            exec(code, module.__dict__)
    except BaseException as error:  # sys.exit() too: whatever ends the program is the answer to every call
        failure = error
    while True:
        codec.send(channel, _reply(module.__dict__, job["entry_point"], failure, codec.loads(codec.receive(channel))))


def _compile(programs: list[list[str]]) -> tuple[types.CodeType | None, dict[str, Any]]:
    """Return the code of the first reading that is valid Python, and what to report: its name, or the first error."""
    first = ""
    for reading, source in programs:
        try:
            return compile(source, "<answer>", "exec", dont_inherit=True), {"reading": reading}
        except Exception as error:
            first = first or _describe(error)
    return None, {"invalid": first}


def _reply(names: Mapping[str, Any], entry_point: str, failure: BaseException | None, call: Any) -> bytes:
    try:
        if failure is not None:
            raise failure
        if entry_point not in names:
            raise NameError(f"the program defines no {entry_point}")
        positional, keywords = call
        return codec.dumps(("value", names[entry_point](*positional, **keywords)))
    except BaseException as error:  # the program's own errors, whatever they are, are its answer
        known = type(error).__module__ == "builtins"
        text = error.args[0] if known and len(error.args) == 1 else str(error) if known else _describe(error)
        return codec.dumps(("raised", type(error).__name__ if known else "RuntimeError", str(text)[:_REASON_LENGTH]))


# ------------------------------------------------------------------------------------------------------------ grader


class CandidateGone(BaseException):
    """The candidate ended or said something that is not a value: no test can go on, whatever it catches."""


class TestsUnfit(BaseException):
    """The tests themselves cannot be run this way: nobody's program is at fault."""


def _be_grader(job: Mapping[str, Any], channel: int, report: int) -> None:
    names: dict[str, Any] = {"__name__": "tests"}
    try:
        try:
            exec(compile(job["prelude"], "<prelude>", "exec", dont_inherit=True), names)
            tests = compile(job["test"], "<tests>", "exec", dont_inherit=True)
        except Exception as error:
            raise TestsUnfit(f"the item's own code fails: {_describe(error)}") from error
        names[job["entry_point"]] = _stand_in(channel)
        exec(tests, names)
        verdict: dict[str, Any] = {"passed": True}
    except TestsUnfit as error:
        verdict = {"unfit": str(error)}
    except CandidateGone as error:
        verdict = {"passed": False, "gone": True, "reason": str(error)}
    except BaseException as error:  # a test that fails, in whatever way, is a wrong answer
        verdict = {"passed": False, "reason": _describe(error)}
    write(report, verdict)


def _stand_in(channel: int) -> Callable[..., Any]:
    def candidate(*positional: Any, **keywords: Any) -> Any:
        try:
            call = codec.dumps((positional, keywords), opaque=False)
        except codec.CodecError as error:
            raise TestsUnfit(f"the tests pass a value that cannot cross: {error}") from error
        try:
            codec.send(channel, call)
            reply = codec.loads(codec.receive(channel))
        except (OSError, EOFError):
            raise CandidateGone("the program ended before it answered") from None
        except codec.CodecError as error:
            raise CandidateGone(f"the program's answer is not a value: {error}") from None
        return _opened(reply)

    return candidate


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

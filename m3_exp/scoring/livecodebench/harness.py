"""What runs a model's program in the candidate's box, test by test; this file's text is sent there.

`livebench` treats programs as LiveBench's runner does (its `lcb_runner/evaluation/testing_util.py`), quirks included:
the names of 18 modules are there without an import; a program that reads stdin becomes the body of a function, which
a `global` statement does not survive; there is no `sys.stdin.buffer`, no `exit` and no `quit`; what an import at the
top takes from `sys` is not what `sys.stdin` and `sys.stdout` are in a test: lines of that stdin have no line break, and
what is written to that stdout is lost.
`script` runs the same program as a script: new globals for each test, the real behaviour of stdin and exit.
"""

import ast
import builtins
import io
import os
import signal
import sys
import types
from collections.abc import Callable
from typing import Any

_MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing"),
)
_NAMES = "".join(
    [
        *(f"from {module} import *\n" for module in _MODULES),
        *(f"import {module}\n" for module in _MODULES if module not in ("builtins", "typing")),
        "sys.setrecursionlimit(600000)\n",
    ]
)
_TIMERS = ((signal.ITIMER_PROF, signal.SIGPROF, 1.0), (signal.ITIMER_REAL, signal.SIGALRM, 5.0))


def method(source: str, seconds: float, name: str) -> Callable[..., Any]:
    """Load a program and return its method: of one `Solution()` for all tests, or a function without such a class."""
    module = _module(source, seconds)
    found = getattr(module.Solution() if "class Solution" in source else module, name)
    return lambda *values: _timed(lambda: found(*values), seconds)


def program(source: str, seconds: float, how: str) -> Callable[[str], str]:
    """Return a program as a function from what it reads to what it writes."""
    return _livebench_program(source, seconds) if how == "livebench" else _script(source, seconds)


# --------------------------------------------------------------------------------------------------------- livebench


def _livebench_program(source: str, seconds: float) -> Callable[[str], str]:
    code = _module(as_function(source), seconds).code
    early = sys.stdin  # the one that an import at the top of the program has taken

    def run(text: str) -> str:
        lines = iter(text.split("\n"))
        early.read, early.readlines = lambda *_: text, lambda *_: text.split("\n")  # type: ignore[method-assign]
        early.readline = lambda *_: next(lines)  # type: ignore[method-assign]
        stdout = io.StringIO()
        stdout.close = lambda _: None  # type: ignore[assignment, misc, method-assign]
        _with_streams(lambda: _timed(code, seconds), io.StringIO(text), stdout)
        return stdout.getvalue()

    return run


def as_function(source: str) -> str:
    """Turn a program into the body of a function `code`; imports before its first other line stay outside."""
    lines: list[str] = []
    started = False
    for line in _unguarded(source).split("\n"):
        if not started and not line.startswith(("from ", "import ")):
            lines += ["stdin = sys.stdin", "stdout = sys.stdout", "def code():"]
            started = True
        lines.append("\t" + line if started else line)
    return "\n".join(lines) + "\n"


def _unguarded(source: str) -> str:
    """Return a program whose last statement is the main guard with the guard's body in its place, else as it is."""
    try:
        *body, last = ast.parse(source).body
        if isinstance(last, ast.If) and ast.unparse(last.test) == "__name__ == '__main__'":
            return ast.unparse(ast.Module(body, [])) + "\n" + ast.unparse(ast.Module(last.body, []))
    except Exception:  # whatever the parser does not like, the compiler will say
        pass
    return source


def _module(source: str, seconds: float) -> types.ModuleType:
    """Execute a program as the module `tmp_sol`; it finds nothing to read, and what it writes is lost."""
    vars(builtins).update(exit=None, quit=None, help=None)
    module = types.ModuleType("tmp_sol")
    sys.modules["tmp_sol"] = module
    sys.stdin, sys.stdout = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    _timed(lambda: exec(_NAMES + source, module.__dict__), seconds)
    return module


# ------------------------------------------------------------------------------------------------------------ script


def _script(source: str, seconds: float) -> Callable[[str], str]:
    code = compile(source, "<answer>", "exec", dont_inherit=True)
    names: dict[str, Any] = {}
    exec(_NAMES, names)

    def run(text: str) -> str:
        stdin = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
        written = io.BytesIO()
        stdout = io.TextIOWrapper(written, encoding="utf-8", errors="surrogatepass", write_through=True)
        stdout.close = stdout.flush  # type: ignore[method-assign]
        own = {"__name__": "__main__", "exit": sys.exit, "quit": sys.exit, "open": _opener(stdin)}
        whole = {**names, **own, "stdin": stdin, "stdout": stdout}
        _with_streams(lambda: _timed(lambda: exec(code, whole), seconds), stdin, stdout)
        return written.getvalue().decode("utf-8", errors="replace")

    return run


def _opener(stdin: io.TextIOWrapper) -> Callable[..., Any]:
    """Return an `open` for which file 0 is the test's input."""
    return lambda file, *rest, **named: stdin if file in (0, "/dev/stdin") else open(file, *rest, **named)


# -------------------------------------------------------------------------------------------------------------- both


def _with_streams(act: Callable[[], Any], stdin: Any, stdout: Any) -> None:
    """Run something that reads and writes other streams; leaving by SystemExit is leaving."""
    before = sys.stdin, sys.stdout
    sys.stdin, sys.stdout = stdin, stdout
    try:
        act()
    except SystemExit:
        pass
    finally:
        sys.stdin, sys.stdout = before


def _timed(act: Callable[[], Any], seconds: float) -> Any:
    """Do something for at most so many seconds of CPU time, or five times as many by the clock.

    A program that swallows the error is ended by the next ring.

    Raises:
        TimeoutError: the time is over.
    """
    rung: list[int] = []

    def ring(number: int, _: Any) -> None:
        if rung:
            os._exit(1)
        rung.append(number)
        raise TimeoutError(f"more than {seconds:g} s for one test")

    for timer, number, factor in _TIMERS:
        signal.signal(number, ring)
        signal.setitimer(timer, seconds * factor, 1.0)
    try:
        return act()
    finally:
        for timer, _, _ in _TIMERS:
            signal.setitimer(timer, 0.0)

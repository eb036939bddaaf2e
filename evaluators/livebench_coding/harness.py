"""What runs a model's program in the candidate's box, test by test; this file's text is sent there.

`livebench` treats programs as LiveBench's runner does (its `lcb_runner/evaluation/testing_util.py`), quirks included,
by the rules of 2024 (until commit a41783c of 7 April 2025) or those of 2025. Both: the names of 18 modules are there
without an import; a program that reads stdin becomes the body of a function, which a `global` statement does not
survive; there is no `sys.stdin.buffer`, no `quit`, no module `resource`, and much of `os` is None; what an import at
the top takes from `sys` is not what `sys.stdin` and `sys.stdout` are in a test: lines of that stdin have no line break,
and what is written to that stdout is lost.
    2024   there is no `exit`; imports before the first other line stay outside of the function, line by line
    2025   `exit()` ends a test; all imports at the top level go before the function, whose text is made anew from its
           syntax tree; a stdin program that holds the words `class Solution` fails
`script` runs the same program as a script: new globals for each test, the real behaviour of stdin and exit.
"""

import ast
import builtins
import contextlib
import io
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

_MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing"),
)
_NAMES = "".join(
    [
        *(f"from {module} import *\n" for module in _MODULES),
        *(f"import {module}\n" for module in _MODULES if module not in ("builtins", "typing")),
    ]
)
_DEPTH = {2024: 600000, 2025: 50000}  # of recursion
_DIGITS = {2024: 4300, 2025: 50000}  # of a whole number that is read or written
_NOT_IN_OS = (
    *("kill", "system", "putenv", "remove", "removedirs", "rmdir", "fchdir", "setuid", "fork", "forkpty", "killpg"),
    *("rename", "renames", "truncate", "replace", "unlink", "fchmod", "fchown", "chmod", "chown", "chroot", "lchflags"),
    *("lchmod", "lchown", "getcwd", "chdir"),
)
_NO_MODULES = ("ipdb", "joblib", "resource", "psutil", "tkinter")
_TIMERS = ((signal.ITIMER_PROF, signal.SIGPROF, 1.0), (signal.ITIMER_REAL, signal.SIGALRM, 5.0))


def method(source: str, seconds: float, name: str, rules: int) -> Callable[..., object]:
    """Load a program and return its method: of one `Solution()` for all tests, or a function without such a class."""
    names = _load(_start(rules) + source, seconds, rules)
    of = _timed(names["Solution"], seconds) if "class Solution" in source else types.SimpleNamespace(**names)
    found = getattr(of, name)
    return lambda *values: _timed(lambda: found(*values), seconds)


def program(source: str, seconds: float, how: str, rules: int) -> Callable[[str], str]:
    """Return a program as a function from what it reads to what it writes."""
    return _livebench_program(source, seconds, rules) if how == "livebench" else _script(source, seconds, rules)


# --------------------------------------------------------------------------------------------------------- livebench


def _livebench_program(source: str, seconds: float, rules: int) -> Callable[[str], str]:
    text = _start(rules) + as_function(source) if rules == 2024 else as_wrapped_function(source, _start(rules))
    names = _load(text, seconds, rules)
    if rules == 2025 and "class Solution" in text:
        raise AttributeError("LiveBench's rules of 2025 look for a class Solution outside of the program's function")
    code = names["code" if rules == 2024 else "wrapped_function"]
    early = sys.stdin  # the one that an import at the top of the program has taken

    def run(text: str) -> str:
        lines = iter(text.split("\n"))
        early.read, early.readlines = lambda *_: text, lambda *_: text.split("\n")  # type: ignore[method-assign]
        early.readline = lambda *_: next(lines)  # type: ignore[method-assign]
        stdout = io.StringIO()
        stdout.close = lambda _: None  # type: ignore[assignment, misc, method-assign]
        with _opening(lambda *_, **__: io.StringIO(text)):  # whatever is opened is the test's input
            _with_streams(lambda: _timed(code, seconds), io.StringIO(text), stdout)
        return stdout.getvalue()

    return run


@contextlib.contextmanager
def _opening(act: Callable[..., Any]) -> Iterator[None]:
    """Do something else for `builtins.open`; a program's own `open` is io's, by an import at the start."""
    before, builtins.open = builtins.open, act
    try:
        yield
    finally:
        builtins.open = before


def as_function(source: str) -> str:
    """Turn a program into the body of a function `code`; imports before its first other line stay outside (2024)."""
    lines: list[str] = []
    started = False
    for line in _unguarded(source).split("\n"):
        if not started and not line.startswith(("from ", "import ")):
            lines += ["stdin = sys.stdin", "stdout = sys.stdout", "def code():"]
            started = True
        lines.append("\t" + line if started else line)
    return "\n".join(lines) + "\n"


def as_wrapped_function(source: str, start: str) -> str:
    """Turn a program into the body of a function `wrapped_function`, after `start` and all its imports (2025).

    What is no Python, or cannot be written down again, is returned as it is, and will not run.
    """
    source = _unguarded(source)
    try:
        body = ast.parse(source).body
        imports = [line for line in body if isinstance(line, ast.Import | ast.ImportFrom)]
        own: list[ast.stmt] = [line for line in body if not isinstance(line, ast.Import | ast.ImportFrom)]
        empty = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
        function = ast.FunctionDef(name="wrapped_function", args=empty, body=own, decorator_list=[], lineno=-1)
        return f"{start}\n{_unparsed(imports)}\n{ast.unparse(function)}"
    except Exception:  # whatever the parser does not like, the compiler will say
        return source


def _unguarded(source: str) -> str:
    """Return a program whose last statement is the main guard with the guard's body in its place, else as it is."""
    try:
        *body, last = ast.parse(source).body
        if isinstance(last, ast.If) and ast.unparse(last.test) == "__name__ == '__main__'":
            return _unparsed(body) + "\n" + _unparsed(last.body)
    except Exception:  # whatever the parser does not like, the compiler will say
        pass
    return source


def _unparsed(statements: Sequence[ast.stmt]) -> str:
    return ast.unparse(statements)  # type: ignore[arg-type]  # it takes a list as well, as LiveBench uses it


def _start(rules: int) -> str:
    """Return the lines that stand before every program."""
    return f"{_NAMES}sys.setrecursionlimit({_DEPTH[rules]})\n"


def _load(source: str, seconds: float, rules: int) -> dict[str, Any]:
    """Execute a program and return its names; it finds nothing to read, and what it writes is lost."""
    vars(builtins).update(exit=None if rules == 2024 else _exit, quit=None, help=None)
    vars(os).update(dict.fromkeys(_NOT_IN_OS))
    sys.modules.update(dict.fromkeys(_NO_MODULES))  # type: ignore[arg-type]
    sys.set_int_max_str_digits(_DIGITS[rules])
    sys.stdin, sys.stdout = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    names: dict[str, object] = {} if rules == 2024 else vars(types.ModuleType("tmp_sol"))
    _timed(lambda: exec(source, names), seconds)
    if rules == 2024:
        sys.modules["tmp_sol"] = types.ModuleType("tmp_sol")
    return names


def _exit(code: object = None) -> NoReturn:
    """What `exit` is in an interactive Python."""
    with contextlib.suppress(Exception):
        sys.stdin.close()
    raise SystemExit(code)


# ------------------------------------------------------------------------------------------------------------ script


def _script(source: str, seconds: float, rules: int) -> Callable[[str], str]:
    code = compile(source, "<answer>", "exec", dont_inherit=True)
    names: dict[str, object] = {}
    sys.set_int_max_str_digits(_DIGITS[rules])
    exec(_start(rules), names)

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


def _opener(stdin: io.TextIOWrapper) -> Callable[..., object]:
    """Return an `open` for which file 0 is the test's input."""
    return lambda file, *rest, **named: stdin if file in (0, "/dev/stdin") else open(file, *rest, **named)


# -------------------------------------------------------------------------------------------------------------- both


def _with_streams(act: Callable[[], object], stdin: object, stdout: object) -> None:
    """Run something that reads and writes other streams; leaving by SystemExit is leaving."""
    before = sys.stdin, sys.stdout
    sys.stdin, sys.stdout = stdin, stdout
    try:
        act()
    except SystemExit:
        pass
    finally:
        sys.stdin, sys.stdout = before


def _timed(act: Callable[[], object], seconds: float) -> object:
    """Do something for at most so many seconds of CPU time, or five times as many by the clock.

    A program that swallows the error is ended by the next ring.

    Raises:
        TimeoutError: the time is over.
    """
    rung: list[int] = []

    def ring(number: int, _: object) -> None:
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

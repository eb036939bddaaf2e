"""What the commands print: lines and tables as wide as the terminal, or whole where there is none."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TextIO, cast

from m3_exp.reading.shown import USUAL, Escaping, beneath, columns, laid

if TYPE_CHECKING:
    from m3_exp.reporting.table import Table


def print_lines(*lines: object) -> None:
    for line in lines:
        print(line)


def say(*lines: str, file: TextIO | None = None) -> None:
    """Print lines; one that is wider than the terminal is continued below."""
    width = columns(file or sys.stdout)
    for line in lines:
        print(*laid(line, width), sep="\n", file=file)


def tell(as_json: bool, data: Callable[[], object], lines: Callable[[], Iterable[str]]) -> None:
    """Print data where `--json` asks for it, else lines."""
    if as_json:
        print(json.dumps(data()))
    else:
        say(*lines())


def print_list(pairs: Iterable[tuple[str, str]], name_width: int) -> None:
    """Print names, each with a text that is continued below its own beginning."""
    width = columns(sys.stdout)
    for name, text in pairs:
        parts = [text] if width is None else laid(text, width - name_width - 1, hang=0)
        print(f"{name:{name_width}} {parts[0]}", *(" " * (name_width + 1) + part for part in parts[1:]), sep="\n")


def print_table(built: "Table", form: str | None, *, wide: bool, whole: str) -> None:
    """Print a table: on a terminal, or where COLUMNS is set, as text of that width; else whole."""
    from m3_exp.views import words

    width = columns(sys.stdout)
    form = form or ("md" if wide or width is None else "text")
    if form == "text":
        styled = beneath(sys.stdout).isatty() and not os.environ.get("NO_COLOR")
        shown = words.text(built, width or USUAL, styled=styled, whole=whole)
        cast(Escaping, sys.stdout).put(shown)  # escaped already, as bold codes would be
    else:
        print(words.table(built, form), end="")


def line_of_whole(args: Sequence[str]) -> str:
    """Return the line that writes the table of `m3 table ARGS` with all notes into a file."""
    asked = [word for word in args if word not in ("--format=text", "--format", "text", "--wide")]
    name = next((word for word in asked if not word.startswith("-")), "run")
    return f"{shlex.join(['m3', 'table', *asked, '--format', 'md'])} > {shlex.quote(name)}.md"

"""What `m3 COMMAND` takes: its options, and how `m3 COMMAND --help` tells them, with the examples of help.txt."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from m3_exp.command_line import CommandLine
from m3_exp.reading.paths import config_dir
from m3_exp.reading.shown import columns, laid
from m3_exp.types import M3Error

if TYPE_CHECKING:
    from m3_exp.config import Request

HELP = Path(__file__).parent / "help.txt"
RUN = "what that run asked for (m3 runs lists them; last: the newest), with no more than store=DIR beside it"
WIDE = "the table as one block, with all notes, on a terminal too"


class Parser(argparse.ArgumentParser):
    """The options of one command. `first` is what stands before its settings: words, as `sync|workspace`, or a NAME."""

    first = ""

    def error(self, message: str) -> NoReturn:
        raise M3Error(f"{self.prog}: {message}; see {self.prog} --help")

    def format_help(self) -> str:
        lines = [part for one in examples(self.prog) for part in laid(f"  {one}", columns(sys.stdout))]
        return "\n".join([super().format_help(), "examples:", *lines, ""])


def meant(word: str, known: Iterable[str]) -> str:
    """Say which known word may have been meant; nothing where none is close."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def examples(prog: str) -> list[str]:
    """Return the lines of help.txt that show a command, given as `m3 run`."""
    lines: list[str] = re.findall(r"(?m)^ {14}(\S.*)$", HELP.read_text(encoding="utf-8"))
    return [line for line in lines if re.search(rf"\b{prog}\b", line)]


def takes(command: str, about: str, *, first: str = "", settings: str = "KEY=VALUE") -> Parser:
    """Return the parser of a command with what all have that take settings; where they are KEY=VALUE, overrides."""
    made = Parser(prog=f"m3 {command}", description=about)
    made.first = first
    made.usage = " ".join(word for word in ("%(prog)s", first, settings and f"[{settings} ...]", "[options]") if word)
    if settings == "KEY=VALUE":
        choices = "choices and settings, such as method=ties seed=1 (m3 plan --list); sweeps=NAME: a file of sweeps/"
        made.add_argument("overrides", nargs="*", metavar=settings, help=choices)
        made.add_argument("-m", "--multirun", action="store_true", help="every combination of KEY=A,B and ranges")
        made.add_argument("--cfg", choices=["job"], help="print the composed configuration and stop")
    if settings:
        folder = "a folder with more choices and sweeps"
        made.add_argument("--config-dir", action="append", default=[], type=config_dir, metavar="DIR", help=folder)
        made.add_argument("--json", action="store_true", help="print JSON in place of text")
    return made


def of_table(parser: Parser) -> None:
    """Add the options of `m3 table`."""
    shape = (
        "text: as wide as the terminal (or COLUMNS), which is what a terminal gets; bold is **40.0** in a pipe or with"
        " NO_COLOR. Else md, whole, as in m3 table demo > demo.md"
    )
    marks = "significant (or real): by tests, adjusted; paper: bold and underlined by score alone, without a test"
    select = (
        "choose by score: crossfit (on one half of the items, scored on the other), dev (on development items), test"
        " (on the items that score it: flattered); say what the chosen one is worth"
    )
    against = "compare each row with this method's (of the same models), or this expert's, not with itself without M3"
    add = parser.add_argument
    add("--list", action="store_true", help="name the tables")
    add("--run", metavar="NAME", help=RUN)
    add("--format", choices=["text", "md", "csv", "tex", "html"], help=shape)
    add("--wide", action="store_true", help=WIDE)
    add("--draw", type=int, help="only the draw of lambda with this number, not the mean over draws")
    add("--all", action="store_true", help="a row for every single lambda that was drawn, chosen or on a curve")
    add("--marks", default="significant", choices=["significant", "real", "paper"], help=marks)
    add("--against", default="", metavar="NAME", help=against)
    add("--select", choices=["crossfit", "dev", "test"], help=select)
    add("--repeats", action="store_true", help="what batches alone change: each repeat beside its first pass")
    add("--variance", action="store_true", help="how uncertain items, draws, masks and curves leave it, each")


class Declared(Exception):
    """A command was asked for its parser alone."""

    def __init__(self, parser: Parser) -> None:
        super().__init__(parser.prog)
        self.parser = parser


_NOTHING: Sequence[str] = ["only what the command takes"]


def declared(command: Callable[[Sequence[str]], int]) -> Parser:
    """Return the parser of a command without carrying it out."""
    try:
        command(_NOTHING)
    except Declared as said:
        return said.parser
    raise AssertionError("a command begins with arguments.parsed")


def parsed(parser: Parser, args: Sequence[str]) -> tuple[argparse.Namespace, CommandLine]:
    """Return the options that a command was given, and its words."""
    if args is _NOTHING:
        raise Declared(parser)
    options = parser.parse_intermixed_args(args)
    overrides, multirun, folders = (getattr(options, key, ()) for key in ("overrides", "multirun", "config_dir"))
    return options, CommandLine(tuple(overrides), bool(multirun), tuple(folders))


class ConfigShown(Exception):
    """A command ends where it has printed the configuration that `--cfg job` asked for."""


def show_config(options: argparse.Namespace, *asked: "CommandLine | Request") -> None:
    """Print the composed configuration and end the command, where `--cfg job` asks for it."""
    if options.cfg:
        from m3_exp.config import compose

        print("---\n".join(text for one in asked for text in compose(one).yaml), end="")
        raise ConfigShown

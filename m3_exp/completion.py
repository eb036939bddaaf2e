"""What TAB offers after `m3`, and the scripts by which bash, zsh and fish ask for it.

A script gives the line up to the cursor to `m3 completion words LINE`, and gets a line for each word that could stand
there, with a blank at its end where the word is whole: "m3 run method=ti" -> "method=ties ". Where nothing is offered,
the shell completes the names of files. Nothing here imports Hydra: a TAB may take a fifth of a second.
"""

import argparse
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import dropwhile
from pathlib import Path

import yaml

from m3_exp.arguments import Parser, declared, parsed, takes
from m3_exp.command_line import ROOT, files, groups, names
from m3_exp.printing import print_lines
from m3_exp.reading.files import MIB, read_text
from m3_exp.reading.yaml_files import FAST
from m3_exp.types import M3Error

_CONFIG = ROOT / "conf" / "config.yaml"
_UNSET = ("defaults", "name", "target")  # keys of a yaml that nobody sets on a command line
_CATALOGUE = ROOT / "m3_exp" / "reporting" / "figures" / "catalogue.py"  # its import takes a second: it is read as text


_Commands = Mapping[str, Callable[[Sequence[str]], int]]


def command(args: Sequence[str], commands: _Commands) -> int:
    """Print the script of a shell, or for `words LINE` what could stand at the end of that line."""
    if args[:1] == ["words"]:
        found = words(" ".join(args[1:]), commands)
    else:
        about = "Print a script that lets the shell complete commands, options, choices and keys at TAB."
        parser = takes("completion", about, first="|".join(SCRIPTS), settings="")
        parser.add_argument("shell", choices=list(SCRIPTS), help="the shell that reads it")
        options, _ = parsed(parser, args)
        found = SCRIPTS[options.shell].splitlines()
    print_lines(*found)
    return 0


def words(line: str, commands: _Commands) -> list[str]:
    """Return the words that could stand at the end of a line, with a blank after those that are whole."""
    for quote in ("", "'", '"'):  # the one that is still open
        with suppress(ValueError):
            *before, last = shlex.split(f"{line}|{quote}")
            _, *args = dropwhile(lambda word: "=" in word, before)  # M3_DATA=DIR m3 run
            found = sorted({word for word in _offered(args, last[:-1], commands) if word.startswith(last[:-1])})
            return [word if quote or word[-1] in "=." or "[" in word else f"{word} " for word in found]
    return []


def _offered(args: list[str], word: str, commands: _Commands) -> Iterator[str]:
    if not args:
        yield from [*commands, "--help", "--version"]
        return
    command, *args = args
    if command not in commands:
        return
    parser = declared(commands[command])
    options = {text: action for action in parser._actions for text in action.option_strings}
    plain, folders, waiting = _read(args, options)
    if waiting:
        yield from _runs(plain) if waiting.dest == "run" else map(str, waiting.choices or ())
    elif word.startswith("-"):
        given, equals, _ = word.partition("=")
        if equals:
            yield from (f"{given}={choice}" for choice in (given in options and options[given].choices) or ())
        yield from (text for text in options if text.startswith("--"))
    elif place := _place(parser, command, len(plain), folders):
        yield from place
    elif command == "score" and len(plain) > 1:
        yield from _settings(word, plain, folders, plain[0])
    elif any(action.dest == "overrides" for action in parser._actions):
        yield from _settings(word, plain, folders)


def _read(
    args: Sequence[str], options: Mapping[str, argparse.Action]
) -> tuple[list[str], list[Path], argparse.Action | None]:
    """Return the words that are no options, the folders of `--config-dir`, and the option that waits for its value."""
    plain, folders, waiting = [], [], None
    for arg in args:
        name, equals, value = arg.partition("=")
        if waiting is None and not arg.startswith("-"):
            plain.append(arg)
            continue
        name, value = (name, value) if waiting is None else (waiting.option_strings[0], arg)
        action = options.get(name)
        complete = bool(equals) or waiting is not None
        if action and action.dest == "config_dir" and complete:
            folders.append(Path(value).expanduser())
        waiting = action if action and action.nargs != 0 and not complete else None
    return plain, folders, waiting


def _place(parser: Parser, command: str, number: int, folders: Sequence[Path]) -> list[str]:
    """Return what a command takes at a place before its settings, as the name of a table."""
    if number > 0:
        return []
    if parser.first.islower():
        return parser.first.split("|")
    if command == "figure":
        return re.findall(r'^    "(\w+)": FigureSpec', _CATALOGUE.read_text(encoding="utf-8"), re.M)
    group = {"table": "sweeps", "score": "evaluator"}.get(command)
    return names(group, folders) if group else []


def _runs(args: Sequence[str]) -> list[str]:
    """Return the names of the runs of a store, the one of `store=DIR` or the usual one."""
    from m3_exp.heartbeat import LAST, history
    from m3_exp.store import DEFAULT_ROOT, Store

    given = [arg.partition("=")[2] for arg in args if arg.startswith("store=")]
    root = Path(given[-1]).expanduser() if given else DEFAULT_ROOT
    with suppress(M3Error, OSError):
        return [LAST, *(one.name for one in history(Store(root)))] if root.is_dir() else []
    return []


def _settings(word: str, args: Sequence[str], folders: Sequence[Path], benchmark: str | None = None) -> Iterator[str]:
    """Give the keys that may follow, or where the word holds a `=` the values of its key.

    `ratio.` stands for the keys of a group until the word begins with it: they are too many to look through.
    """
    key, equals, value = word.partition("=")
    if benchmark:  # `m3 score`: its settings stand without a prefix
        known = {"items": ["lab", "official", "dev"], **_keys("", benchmark, _files("evaluator", benchmark, folders))}
    else:
        known = _known(key, dict(arg.split("=", 1) for arg in args if "=" in arg), folders)
    if equals:
        listed = value[: max(value.rfind(","), value.rfind("[")) + 1]  # `average,` of `average,ti`
        before = re.findall(r"\w+", listed)
        yield from (f"{key}={listed}{choice}" for choice in known.get(key, ()) if choice not in before)
    else:
        yield from (text if text.endswith(".") else f"{text}=" for text in known if text != word)


def _known(key: str, chosen: Mapping[str, str], folders: Sequence[Path]) -> dict[str, list[str]]:
    """Return the keys that a word may become, each with the values that it has a choice of."""
    group, _, inner = key.partition(".")
    benchmark = inner.partition(".")[0]
    if group == "evaluator" and "." in inner:
        return _keys(f"evaluator.{benchmark}.", benchmark, _files("evaluator", benchmark, folders))
    if group == "evaluator" and "." in key:
        return {f"evaluator.{name}.": [] for name in names("evaluator", folders)}
    if group in groups() and "." in key:
        return _keys(f"{group}.", group, _files(group, chosen.get(group, ""), folders))
    axes = [*groups(), "evaluator"]
    inside: dict[str, list[str]] = {f"{axis}.": [] for axis in axes}
    return {axis: names(axis, folders) for axis in (*axes, "sweeps")} | inside | _keys("", "", [_CONFIG])


def _files(group: str, choice: str, folders: Sequence[Path]) -> list[Path]:
    """Return the yaml files that a choice is made of: its own, and `_base.yaml` where it names that; else all."""
    every = files(group, folders)
    for file in every:
        if file.stem == choice:
            return [file, *(other for other in every if other.stem.startswith("_") and other.stem in _text(file))]
    return every


def _keys(prefix: str, part: str, paths: Sequence[Path]) -> dict[str, list[str]]:
    """Return the keys of yaml files, of their `part` where they have one, with the values that a comment beside lists.

    `extractor: paper  # paper | boxed (the last box)` -> {"extractor": ["paper", "boxed"]}
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        text = _text(path)
        with suppress(yaml.YAMLError, RecursionError, ValueError):
            held = yaml.load(text, FAST)
            held = held.get(part, held) if isinstance(held, dict) else {}
            said = dict(re.findall(r"^ *(\w+):.*?# *(.*)$", text, re.M))
            for key, value in held.items() if isinstance(held, dict) else ():
                if str(key) not in _UNSET:
                    inner = [f"{key}.{name}" for name in value] if isinstance(value, dict) and not prefix else [key]
                    for name in map(str, inner):
                        choices = _listed(said.get(name.rpartition(".")[2], ""))
                        found[f"{prefix}{name}"] = ["false", "true"] if isinstance(value, bool) else choices
    return found


def _text(path: Path) -> str:
    """Return what a file holds, nothing where it cannot be read: a TAB is silent, `m3 plan` will say it."""
    with suppress(M3Error, OSError):
        return read_text(path, MIB)
    return ""


def _listed(comment: str) -> list[str]:
    parts = [part.strip() for part in re.sub(r"\(.*?\)", "", re.split("[;:]", comment)[0]).split("|")]
    return [part for part in parts if re.fullmatch(r"[a-z0-9_]+", part)] if len(parts) > 1 else []


SCRIPTS = {
    "bash": r"""# bash: eval "$(m3 completion bash)"
_m3() {
  local line=${COMP_LINE:0:$COMP_POINT} reply
  local word=${line##*[[:space:]]} breaks=${COMP_WORDBREAKS//[^=:]/} head=
  COMPREPLY=()
  # an unquoted word is replaced from its last = or : on
  [[ $word == [\'\"]* || -z $breaks ]] || head=${word%"${word##*[$breaks]}"}
  while IFS= read -r reply; do
    COMPREPLY+=("${reply#"$head"}")
  done < <("${1/#\~/$HOME}" completion words "$line" 2>/dev/null)
}
complete -o default -o nospace -F _m3 m3
""",
    "zsh": r"""#compdef m3
# zsh: eval "$(m3 completion zsh)"
_m3() {
  local -a whole begun
  local reply
  while IFS= read -r reply; do
    if [[ $reply == *' ' ]]; then whole+=("${reply% }"); else begun+=("$reply"); fi
  done < <(${(Q)~words[1]} completion words "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)
  (( $#whole )) && compadd -- "${whole[@]}"
  (( $#begun )) && compadd -S '' -- "${begun[@]}"
  (( $#whole + $#begun )) && return
  compset -P '*='
  _files
}
if (( ! $+functions[compdef] )); then autoload -Uz compinit && compinit; fi
compdef _m3 m3
""",
    "fish": r"""# fish: m3 completion fish | source
function __m3_words
    set -l found (m3 completion words (commandline -cp | string collect) 2>/dev/null)
    if test (count $found) -gt 0
        string trim --right -- $found
    else
        set -l head (string match -r '^[^=]*=' -- (commandline -ct))
        set -l path (string replace -r '^[^=]*=' '' -- (commandline -ct))
        printf "$head%s\n" (__fish_complete_path "$path")
    end
end
complete -c m3 -f -a '(__m3_words)'
""",
}

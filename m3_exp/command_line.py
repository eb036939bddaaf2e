"""The words of a command, how a value is written among them, and what they choose among."""

import functools
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

_NO_TEXTS = ("null", "true", "false", "nan", "inf")  # Hydra reads them as values of another type


@dataclass(frozen=True)
class CommandLine:
    """What follows the name of a command: Hydra overrides (perhaps `sweeps=NAME`), `-m`, and `--config-dir`."""

    overrides: tuple[str, ...] = ()
    multirun: bool = False
    config_dirs: tuple[Path, ...] = ()

    def with_overrides(self, *overrides: str) -> "CommandLine":
        """Return the same with other overrides."""
        return replace(self, overrides=overrides)

    def without(self, *keys: str) -> "CommandLine":
        """Return the same without the overrides of some keys."""
        return self.with_overrides(*(text for text in self.overrides if text.partition("=")[0] not in keys))

    def on_sweep(self, name: str) -> "CommandLine":
        """Return what asks for another sweep in the same way: of its family, store, items and engine.

        Which ratio it takes, and how often, is the sweep's own.
        """
        own = ("sweeps", "ratio", "repeat")
        others = (text for text in self.overrides if text.partition("=")[0].partition(".")[0] not in own)
        return replace(self, overrides=(f"sweeps={name}", *others), multirun=False)

    def values(self, key: str) -> list[str]:
        """Return what the overrides of a key say, as in `["table1"]` for `sweeps=table1`."""
        return [text.partition("=")[2] for text in self.overrides if text.partition("=")[0] == key]

    @property
    def flags(self) -> tuple[str, ...]:
        """`--config-dir`, wherever the command is given."""
        return tuple(f"--config-dir={folder.absolute()}" for folder in self.config_dirs)

    @classmethod
    def of_line(cls, line: str) -> "CommandLine":
        """Read what `line` wrote."""
        words = shlex.split(line)[2:]
        folders = tuple(Path(word.partition("=")[2]) for word in words if word.startswith("--config-dir="))
        return cls(tuple(word for word in words if not word.startswith("-")), "-m" in words, folders)

    def line(self, command: str, *more: str) -> str:
        """Write the line that asks `m3 COMMAND` for the same from this directory; `more` stands at its end."""
        return shlex.join(["m3", command, *(["-m"] if self.multirun else []), *self.flags, *self.overrides, *more])


def override(key: str, value: bool | int | float | str | Sequence[float] | None) -> str:
    """Return KEY=VALUE as Hydra reads the value back: a text in quotes if it needs them, a list in brackets."""
    if not isinstance(value, str):
        return f"{key}={json.dumps(value)}"
    return f"{key}={word(value)}"


def word(text: str) -> str:
    """Return a text as Hydra reads it back, in quotes where it needs them."""
    needs_none = re.fullmatch(r"[A-Za-z/][A-Za-z0-9_./+@-]*", text) and text.lower() not in _NO_TEXTS
    return text if needs_none else quoted(text)


def quoted(text: str) -> str:
    """Return a text in single quotes, as Hydra reads it back: with a backslash before those inside."""
    text = re.sub(r"(\\*)'", r"\1\1\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"


ROOT = Path(__file__).resolve().parent.parent


def names(group: str, config_dirs: Sequence[Path] = ()) -> list[str]:
    """Return the choices of a group of conf/, or the sweeps for `sweeps`."""
    return sorted({file.stem for file in files(group, config_dirs) if not file.stem.startswith("_")})


def files(group: str, config_dirs: Sequence[Path]) -> list[Path]:
    """Return the yaml files of a group, those of a --config-dir first."""
    folders = [*config_dirs, ROOT if group == "sweeps" else ROOT / "conf"]
    return [file for folder in folders for file in sorted((folder / group).glob("*.yaml"))]


@functools.cache
def groups() -> list[str]:
    """Return the groups of conf/ of which a request has one choice each, as `family`."""
    folders = (path.name for path in (ROOT / "conf").iterdir() if path.is_dir())
    return sorted({*folders} - {"evaluator", "tuned"})

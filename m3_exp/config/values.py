"""One value of a composed config, checked and typed. Each refusal names the key, its value and what is allowed."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf

from m3_exp.reading.files import exists
from m3_exp.reading.paths import expanded
from m3_exp.types import M3Error, Parameter

T = TypeVar("T", int, float)
Tree = dict[str, Any]  # a composed config
MANY = 10_000  # draws, repeats or workers: more is a slip of the pen
_LARGEST = 2**63 - 1
_NAME, _NAMES = 255, 4000  # bytes that Linux takes for a name, and for a whole path


def tree_of(cfg: DictConfig | ListConfig, *, resolve: bool = True) -> Tree:
    """Return a composed config as plain mappings, lists and values."""
    tree = OmegaConf.to_container(cfg, resolve=resolve)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def held(cfg: Tree, key: str) -> Any:
    """Return the value of a key (`family.base`, `ratio.weights[0]`), None where there is none."""
    value: Any = cfg
    for part in key.replace("[", ".").replace("]", "").split(".") if key else ():
        if isinstance(value, list):
            value = value[int(part)] if part.isdecimal() and int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def is_there(cfg: Tree, key: str) -> bool:
    parent, _, last = key.rpartition(".")
    above = held(cfg, parent)
    return last in above if isinstance(above, dict) else isinstance(above, list) and last in map(str, range(len(above)))


def with_value(cfg: Tree, key: str, value: object) -> Tree:
    """Return the config with the value of a key set, a mapping merged into one that is there; `cfg` stays as it is."""
    first, _, rest = key.partition(".")
    below: Any = cfg.get(first)
    if rest and (below is None or below == "???"):
        below = {}
    if rest and isinstance(below, list):
        numbered = {str(number): item for number, item in enumerate(below)}
        return {**cfg, first: list(with_value(numbered, rest, value).values())}
    return {**cfg, first: with_value(below, rest, value) if rest else _merged(below, value)}


def _merged(old: object, new: object) -> object:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def number(cfg: Tree, key: str, kind: type[T], *, low: float | None = None, high: float = _LARGEST) -> T:
    value = held(cfg, key)
    what = "a whole number" if kind is int else "a number"
    try:
        if isinstance(value, bool) or (kind is int and not isinstance(value, int)):
            raise ValueError
        result = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise M3Error(f"{key}={value} is not {what}") from None
    if not math.isfinite(result):
        raise M3Error(f"{key}={value} is not finite: give {what}")
    if low is not None and result < low:
        raise M3Error(f"{key}={value} is too small: give at least {low:g}")
    if abs(result) > high:
        raise M3Error(f"{key}={value} is too large: give at most {high:g}")
    return result


def optional(cfg: Tree, key: str, kind: type[T], *, low: float, high: float = _LARGEST) -> T | None:
    return None if held(cfg, key) is None else number(cfg, key, kind, low=low, high=high)


def truth(cfg: Tree, key: str) -> bool:
    value = held(cfg, key)
    if not isinstance(value, bool):
        raise M3Error(f"{key}={value} is not known; allowed: true, false")
    return value


def choice(cfg: Tree, key: str, allowed: Sequence[str]) -> str:
    value = str(held(cfg, key))
    if value not in allowed:
        raise M3Error(f"{key}={value} is not known; allowed: {', '.join(allowed)}")
    return value


def parameter(cfg: Tree, key: str, types: Sequence[type]) -> Parameter:
    """Return the value of a keyword, checked against the types of its annotation. Without one: as the yaml has it.

    A list of numbers becomes a tuple.
    """
    value = held(cfg, key)
    if isinstance(value, list):
        items = tuple(number(cfg, f"{key}[{index}]", float) for index in range(len(value)))
        return items if not types or tuple in types else _wrong(key, value, types)
    if value is None or isinstance(value, str | bool):
        kinds = types or (str, bool, type(None))
        return value if isinstance(value, tuple(kinds)) else _wrong(key, value, types)
    if types and int not in types and float not in types:
        return _wrong(key, value, types)
    return number(cfg, key, int if (isinstance(value, int) and float not in types) or types == (int,) else float)


def _wrong(key: str, value: object, types: Sequence[type]) -> Parameter:
    words = {
        int: "a whole number", float: "a number", str: "a text", bool: "true or false", tuple: "a list of numbers",
        type(None): "null",
    }  # fmt: skip
    raise M3Error(f"{key}={value} is not {' or '.join(words[one] for one in types)}")


def source(value: object, key: str) -> str:
    """Return the text of a model with each `~` in it (of a base, of an adapter) expanded."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise M3Error(f"{key}={value} is not a model: give a directory, a hub id or a file, as a text")
    parts = re.split(r"\+(?=~)", str(value))
    return "+".join(expanded(part.strip(), key) for part in parts)


def folder(cfg: Tree, key: str) -> Path | None:
    """Return a folder to write into. Its name must be one that a folder can have; it need not exist."""
    value = held(cfg, key)
    if value is None:
        return None
    path = Path(expanded(str(value), key))
    if any(len(part.encode()) > _NAME for part in path.parts) or len(str(path).encode()) > _NAMES:
        raise M3Error(f"{key}={path} is too long for the name of a folder: give a shorter one")
    for parent in path.absolute().parents:
        if exists(parent) and not parent.is_dir():
            raise M3Error(f"{key}={path} lies below {parent}, which is a file: give a folder")
    return path

"""YAML files. Those that a user gives are bounded, and read completely before Hydra or OmegaConf see them."""

from pathlib import Path
from typing import Any

import yaml

from m3_exp.reading.files import DEPTH, MIB, check_unicode, read_text
from m3_exp.types import M3Error

_NODES = 100_000  # with every alias written out
FAST: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, in a tenth of the time


def shipped(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file of this package, or of one that is installed, holds."""
    found: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), FAST)
    return found


def check_yaml(path: Path) -> None:
    """Refuse a YAML file that cannot be read as configuration.

    Raises:
        M3Error: it cannot be read, is not YAML, is nested too deep, or its aliases stand for more than 100,000 values.
    """
    text = read_text(path, MIB)
    check_unicode(text, path)
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise wrong_yaml(error, path) from None
    if node is not None and _size(node, {}, 0, path) > _NODES:
        raise M3Error(f"{path} stands for more than {_NODES} values: that is no configuration")


def wrong_yaml(error: Exception, path: Path) -> M3Error:
    """Return what a YAML loader says of a file, in one line."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}" if mark else ""
        return M3Error(f"{path}{place} is not YAML ({error.problem or error.context}): correct that line")
    reason = "nested too deep" if isinstance(error, RecursionError) else str(error).split("\n")[0]
    return M3Error(f"{path} is not YAML ({reason}): correct it")


def _size(node: yaml.Node, known: dict[int, int], depth: int, path: Path) -> int:
    """Return how many nodes a node stands for, aliases written out; `known` holds the counts of nodes seen before."""
    if depth > DEPTH:
        raise M3Error(f"{path} is nested deeper than {DEPTH}, or holds itself: that is no configuration")
    if id(node) in known:
        return known[id(node)]
    below: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        below = list(node.value)
    elif isinstance(node, yaml.MappingNode):
        below = [part for pair in node.value for part in pair]
    known[id(node)] = 1 + sum(_size(part, known, depth + 1, path) for part in below)
    return known[id(node)]

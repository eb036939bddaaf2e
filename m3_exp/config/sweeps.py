"""Sweep files and products: the overrides of each request that one command line asks for."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep

from m3_exp.command_line import ROOT, names
from m3_exp.config.choices import load_yaml
from m3_exp.config.overrides import parse
from m3_exp.reading.paths import is_file
from m3_exp.types import M3Error

_AXES = ("pair", "method", "ratio", "sparsify")  # of what a block of a sweep is about, even with one value
_MANY = 10_000  # values or requests: more is a slip of the pen


def named(override: Override) -> str:
    """Return the one sweep file that `sweeps=NAME` names."""
    if override.is_sweep_override():
        raise M3Error(f"{override.input_line}: one sweep at a time, as in sweeps=table1 (m3 report takes several)")
    return str(override.value())


def read_sweep(name: str, config_dirs: Sequence[Path]) -> dict[str, Any]:
    path = sweep_file(name, config_dirs)
    document = load_yaml(path)
    if not isinstance(plans := document.get("plans"), list) or not plans:
        raise M3Error(f"{path} has no list `plans:`; see sweeps/table1.yaml")
    for number, block in enumerate(plans, 1):
        if not isinstance(block, dict) or not block:
            raise M3Error(f"{path}: plan {number} is no mapping of KEY: VALUE; see sweeps/table1.yaml")
        for key, value in block.items():
            if not isinstance(key, str) or isinstance(value, dict):
                raise M3Error(f"{path}: plan {number}: {key} must hold a value, or values with commas between")
    if not isinstance(document.get("table", name), str):
        raise M3Error(f"{path}: table must be the name of a table, it is {document['table']}")
    return document


def sweep_file(name: str, config_dirs: Sequence[Path] = ()) -> Path:
    for folder in [*(d / "sweeps" for d in config_dirs), ROOT / "sweeps"]:
        if name in names("sweeps", config_dirs) and is_file(path := folder / f"{name}.yaml"):
            return path
    raise M3Error(f"sweeps={name} does not exist; there are {', '.join(names('sweeps', config_dirs))}")


def restricted(document: Mapping[str, Any], given: Sequence[Override]) -> list[list[Override]]:
    """Lay the command line's overrides over a sweep's blocks: on an axis of the sweep they choose among its values.

    A block whose axis has none of the asked values drops out. If that holds for every block, the asked values replace
    the sweep's.
    """
    blocks = [[parse(f"{key}={value}") for key, value in block.items()] for block in document["plans"]]
    asked = {o.key_or_group: o for o in given}
    kept: list[list[Override]] = []
    for block in blocks:
        laid: list[Override] = [o for o in given if o.key_or_group not in {b.key_or_group for b in block}]
        for override in block:
            choice = asked.get(override.key_or_group)
            if choice is None:
                laid.append(override)
                continue
            common = [value for value in _values(override) if value in _values(choice)]
            if (override.is_sweep_override() or override.key_or_group in _AXES) and not common:
                break
            laid.append(choice)
        else:
            kept.append(laid)
    if kept:
        return kept
    return [[*(o for o in block if o.key_or_group not in asked), *given] for block in blocks]


def _check_sweep(override: Override) -> None:
    """Refuse a sweep whose values cannot be listed, or are too many to be meant."""
    sweep, line, key = override.value(), override.input_line, override.key_or_group
    if isinstance(sweep, Glob | IntervalSweep):
        raise M3Error(f"{line}: m3 expands lists and ranges: name the values, as in {key}=A,B or {key}=range(1,5)")
    if isinstance(sweep, RangeSweep):
        start, stop, step = (float(value or 0) for value in (sweep.start, sweep.stop, sweep.step))
        if not step or not 0 < (stop - start) / step <= _MANY:
            raise M3Error(f"{line} gives no values, or more than {_MANY}: write range(START,STOP,STEP)")


def _values(override: Override) -> list[str]:
    if override.is_sweep_override():
        _check_sweep(override)
        return [str(value) for value in override.sweep_string_iterator()]
    return [str(override.get_value_element_as_str())]


def products(block: Sequence[Override]) -> list[tuple[str, ...]]:
    def texts(override: Override) -> list[str]:
        if not override.is_sweep_override():
            return [override.input_line or ""]
        prefix = override.input_line.split("=", 1)[0] if override.input_line else override.key_or_group
        return [f"{prefix}={value}" for value in _values(override)]

    values = [texts(override) for override in block]
    if math.prod(map(len, values)) > _MANY:
        raise M3Error(f"that is a product of more than {_MANY} requests: give fewer values")
    return list(itertools.product(*values))

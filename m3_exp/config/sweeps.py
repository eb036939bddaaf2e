"""Sweep files and products: the overrides of each request that one command line asks for."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep, Sweep

from m3_exp.command_line import ROOT, names
from m3_exp.config.choices import load_yaml, pair_experts
from m3_exp.config.overrides import parse
from m3_exp.config.suggestions import close, did_you_mean
from m3_exp.reading.paths import is_file
from m3_exp.types import M3Error

_AXES = ("pair", "method", "ratio", "sparsify")  # of what a block of a sweep is about, even with one value
CHOOSING = ("greedy_soup",)  # ways of choosing whose later steps follow from earlier scores
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
    if document.get("choose") not in (None, *CHOOSING):
        raise M3Error(f"{path}: choose: {document['choose']} is not known; allowed: {', '.join(CHOOSING)}")
    return document


def sweep_file(name: str, config_dirs: Sequence[Path] = ()) -> Path:
    for folder in [*(d / "sweeps" for d in config_dirs), ROOT / "sweeps"]:
        if name in names("sweeps", config_dirs) and is_file(path := folder / f"{name}.yaml"):
            return path
    known = names("sweeps", config_dirs)
    near = did_you_mean([f"sweeps={one}" for one in close(name, known)])
    raise M3Error(f"sweeps={name} does not exist; there are {', '.join(known)}{near}")


def restricted(
    document: Mapping[str, Any], given: Sequence[Override], config_dirs: Sequence[Path]
) -> list[list[Override]]:
    """Lay the command line's overrides over a sweep's blocks: on an axis of the sweep they choose among its values.

    A block whose axis has none of the asked values drops out. If that holds for every block, the asked values replace
    the sweep's. `pair=lm_math` keeps lm and math alone beside it, where the sweep has them: they are its parents.
    """
    asked = {o.key_or_group: o for o in given}
    pairs = values_of(asked["pair"]) if "pair" in asked else []
    experts = {expert for pair in pairs for expert in pair_experts(pair, config_dirs)}
    parents: list[list[Override]] = []
    merges: list[list[Override]] = []
    dropped: list[list[Override]] = []
    for document_block in document["plans"]:
        block = [parse(f"{key}={value}") for key, value in document_block.items()]
        named = [value for override in block if override.key_or_group == "pair" for value in values_of(override)]
        stays = [value for value in named if value in (*pairs, *experts)]
        others = {key: o for key, o in asked.items() if key != "pair"} if stays else asked
        own = [parse(f"pair={','.join(stays)}") if stays and o.key_or_group == "pair" else o for o in block]
        laid = _laid(own, others)
        if laid is None:
            dropped.append([*(o for o in block if o.key_or_group not in asked), *given])
        else:
            (merges if not stays or set(stays) & set(pairs) else parents).append(laid)
    return [*parents, *(merges or dropped)]


def _laid(block: Sequence[Override], asked: Mapping[str, Override]) -> list[Override] | None:
    """Return a block with what the command line asks for; None where that is no value of an axis of the block."""
    keys = [override.key_or_group for override in block]
    laid = [override for key, override in asked.items() if key not in keys]
    for override in block:
        choice = asked.get(override.key_or_group, override)
        is_axis = override.is_sweep_override() or override.key_or_group in _AXES
        if is_axis and not set(values_of(override)) & set(values_of(choice)):
            return None
        laid.append(choice)
    return laid


def _check_sweep(override: Override) -> None:
    """Refuse a sweep whose values cannot be listed, or are too many to be meant."""
    sweep, line, key = override.value(), override.input_line, override.key_or_group
    if isinstance(sweep, ChoiceSweep) and any(isinstance(one, Sweep) for one in sweep.list):
        raise M3Error(f"{line} holds a list or range inside another: name the values, as in {key}=0,1,2,7")
    if isinstance(sweep, Glob | IntervalSweep):
        raise M3Error(f"{line}: m3 expands lists and ranges: name the values, as in {key}=A,B or {key}=range(1,5)")
    if isinstance(sweep, RangeSweep):
        start, stop, step = (float(value or 0) for value in (sweep.start, sweep.stop, sweep.step))
        if not step or not 0 < (stop - start) / step <= _MANY:
            raise M3Error(f"{line} gives no values, or more than {_MANY}: write range(START,STOP,STEP)")


def values_of(override: Override) -> list[str]:
    if override.is_sweep_override():
        _check_sweep(override)
        return [str(value) for value in override.sweep_string_iterator()]
    return [str(override.get_value_element_as_str())]


def products(block: Sequence[Override]) -> list[tuple[str, ...]]:
    def texts(override: Override) -> list[str]:
        if not override.is_sweep_override():
            return [override.input_line or ""]
        prefix = override.input_line.split("=", 1)[0] if override.input_line else override.key_or_group
        return [f"{prefix}={value}" for value in values_of(override)]

    values = [texts(override) for override in block]
    if math.prod(map(len, values)) > _MANY:
        raise M3Error(f"that is a product of more than {_MANY} requests: give fewer values")
    return list(itertools.product(*values))

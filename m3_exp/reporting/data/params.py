"""Hyper-parameters as frames and tables write them; the defaults of each method, and what the paper's search found.

The defaults are conf/method/*.yaml, what the paper's search found (its Table 4) conf/tuned/*.yaml.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from m3_exp.reading.yaml_files import shipped
from m3_exp.types import HyperParameters

_CONF = Path(__file__).parents[3] / "conf"
_PAPER = "llama2_13b"  # the family of the paper's search


def text(params: HyperParameters) -> str:
    """Return parameters by name, as in `retain 0.7, scaling 1`: equal values have one text, others another."""
    return ", ".join(f"{key} {_written(value)}" for key, value in sorted(params.items()))


def _written(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


@cache
def defaults() -> Mapping[str, str]:
    """Return each method's default hyper-parameters as text, by method: a word that is the default has none."""
    known = {path.stem: shipped(path) for path in sorted((_CONF / "method").glob("[!_]*.yaml"))}
    own = {name: {k: v for k, v in choice.items() if not isinstance(v, str)} for name, choice in known.items()}
    return {name: text(params) for name, params in own.items() if params}


@cache
def searched() -> Mapping[tuple[str, str], str]:
    """Return what the paper's search found, by (method, pair). Task arithmetic's is not published."""
    by_model = {}
    for path in sorted((_CONF / "tuned").glob(f"{_PAPER}_*.yaml")):
        method, _, pair = path.stem.removeprefix(f"{_PAPER}_").partition("_")
        by_model[method, pair] = text(shipped(path)["method"])
    return by_model

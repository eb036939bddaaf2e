"""A benchmark's title, marker, area and place in tables, by its name: the field `about` of its class.

Shipped benchmarks are found by their yaml. Others are known here once `scoring.evaluate.load_evaluator` has loaded
their class; where two yaml files of one name were loaded in a process, from two --config-dir, the later one counts.
"""

import importlib
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

from m3_exp.reading.yaml_files import shipped
from m3_exp.types import About

_FOLDER = Path(__file__).resolve().parent.parent / "conf" / "evaluator"
_AREAS = {"lm": "instructions and chat", "math": "maths", "code": "code"}
_LOADED: dict[str, About] = {}


def remember(name: str, class_name: str, skill: str, about: About) -> None:
    """Keep what is said about a benchmark whose class has been loaded.

    A yaml may name a class that another yaml names too, as `gsm8k_boxed` with the class of `gsm8k`: such a column is
    called and drawn by its yaml's name, so that the two are told apart.
    """
    about = _placed(about, skill)
    _LOADED[name] = about if name == class_name else replace(about, title="", short="", marker="")


def _placed(about: About, skill: str) -> About:
    return about if about.area else replace(about, area=_AREAS.get(skill, "other benchmarks"))


def about(name: str) -> About:
    """Return a benchmark's `About`. If its class has none: a title alone, made of the name (`my_bench`: `my bench`)."""
    found = _LOADED.get(name) or _shipped(name) or About()
    return found if found.title else replace(found, title=name.replace("_", " "))


@cache
def _shipped(name: str) -> About | None:
    path = _FOLDER / f"{name}.yaml"
    if not name.isidentifier() or not path.is_file():
        return None
    module, _, kind = shipped(path)[name]["target"].partition(":")
    benchmark = getattr(importlib.import_module(module), kind)
    return _placed(benchmark.about, benchmark.skill)


def in_order(names: Iterable[str]) -> list[str]:
    """Return benchmarks in the order of tables and figures: by rank, those of one rank by name."""
    return sorted(names, key=lambda name: (about(name).rank, name))

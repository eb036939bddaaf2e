"""A request narrowed to one of its cells: what retries a cell that failed."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from m3_exp.command_line import override
from m3_exp.config.choices import keywords_of
from m3_exp.types import Cell, Parameter

_AXES = ("pair", "method", "ratio", "sparsify")


def narrowed(overrides: Sequence[str], cell: Cell, config_dirs: Sequence[Path] = ()) -> list[list[str]]:
    """Return three command lines that contain the cell: one benchmark, all benchmarks, the whole request.

    Use the first that composes. (A sweep that sets up several benchmarks by name cannot be narrowed to one of them.)
    The other cells that it contains, such as other draws, are done already or cost no more than in the whole request.
    """
    label, benchmark = cell.labels[0], cell.evaluator.name
    chosen = {"pair": label.pair} if label.pair_words else {}
    params: dict[str, Parameter] = {}
    if label.method != "single":
        ratio = "grid" if label.kind == "sampled" else label.ratio  # sampled lambdas come with a grid
        chosen |= {"method": label.method, "ratio": ratio, "sparsify": label.sparsify}
        params |= {f"method.{key}": value for key, value in sorted(label.params.items())}
        params |= {"ratio.alpha": label.alpha} if label.alpha is not None else {}
        params |= {"ratio.lam": label.lam} if label.ratio == "fixed" and not label.weights else {}
        params |= {"ratio.weights": label.weights} if label.ratio == "fixed" and label.weights else {}
        params |= label.axis_keywords
    known = {f"{axis}.{key}" for axis, name in chosen.items() for key in keywords_of(axis, name, config_dirs)}
    params = {key: value for key, value in params.items() if key in known}
    asked_again = {"pair"} - chosen.keys() | known - params.keys()
    kept = [text for text in overrides if _stays(_key(text), asked_again)]
    line = [*kept, *(f"{axis}={name}" for axis, name in chosen.items()), *itertools.starmap(override, params.items())]
    others = [text for text in line if _key(text) != "evaluator"]
    own = [t for t in others if not _key(t).startswith("evaluator.") or _key(t).split(".")[1] == benchmark]
    return [[*own, f"evaluator=[{benchmark}]"], line, list(overrides)]


def _key(override: str) -> str:
    return override.split("=", 1)[0]


def _stays(key: str, unlabelled: set[str]) -> bool:
    """Tell whether an override of the request is kept: one that no choice on the cell's axes says again."""
    group = key.partition(".")[0]
    return group not in _AXES or key.startswith("pair.") or key in unlabelled

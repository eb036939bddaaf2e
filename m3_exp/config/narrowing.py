"""A request narrowed to one of its cells: what retries a cell that failed."""

from collections.abc import Sequence
from pathlib import Path

from m3_exp.config.choices import keywords_of
from m3_exp.types import Cell

_AXES = ("pair", "method", "ratio", "sparsify")


def narrowed(overrides: Sequence[str], cell: Cell, config_dirs: Sequence[Path] = ()) -> list[list[str]]:
    """Return three command lines that contain the cell: one benchmark, all benchmarks, the whole request.

    Use the first that composes. (A sweep that sets up several benchmarks by name cannot be narrowed to one of them.)
    The other cells that it contains, such as other draws, are done already or cost no more than in the whole request.
    """
    label, benchmark = cell.labels[0], cell.evaluator.name
    chosen = {} if label.family == "local" else {"pair": label.pair}
    told: dict[str, str] = {}
    if label.method != "single":
        ratio = "grid" if label.ratio == "sampled" else label.ratio  # sampled lambdas come with a grid
        chosen |= {"method": label.method, "ratio": ratio, "sparsify": label.sparsify}
        told |= {f"method.{key}": repr(value) for key, value in sorted(label.params.items())}
        told |= {"ratio.alpha": f"{label.alpha:g}"} if label.alpha is not None else {}
        told |= {"ratio.lam": repr(label.lam)} if label.ratio == "fixed" else {}
        told |= {key: str(value) for key, value in label.keywords.items()}
    known = {f"{axis}.{key}" for axis, name in chosen.items() for key in keywords_of(axis, name, config_dirs)}
    kept = [text for text in overrides if _stays(_key(text), known - told.keys())]
    line = [*kept, *(f"{key}={value}" for key, value in (chosen | told).items())]
    others = [text for text in line if _key(text) != "evaluator"]
    own = [t for t in others if not _key(t).startswith("evaluator.") or _key(t).split(".")[1] == benchmark]
    return [[*own, f"evaluator=[{benchmark}]"], line, list(overrides)]


def _key(override: str) -> str:
    return override.split("=", 1)[0]


def _stays(key: str, untold: set[str]) -> bool:
    """Tell whether an override of the request is kept: one that no choice on the cell's axes says again."""
    group = key.partition(".")[0]
    return group not in _AXES or key.startswith("pair.") or key in untold

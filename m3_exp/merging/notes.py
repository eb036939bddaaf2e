"""Notes on a recipe's adapters (one lies on another base than its own, or changes both of two tied matrices), and on
what a method could not do.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from m3_exp.merging.checkpoint import Model, open_model
from m3_exp.merging.parts import kind
from m3_exp.merging.source import parse_source
from m3_exp.reading.files import exists
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe


def notes(recipe: Recipe, store: Store) -> list[str]:
    """Return a line for each adapter that names another base than it lies on, or that changes both of two tied
    matrices.

    Bases are compared by content where the named one is on this disk (its digest is taken once), else by name. For
    models that cannot be opened there is no line: what is wrong with them is said where they are merged.
    """
    lines: set[str | None] = set()
    for source in recipe.experts:
        with contextlib.suppress(M3Error):
            model = open_model(source, store)
            lines |= {_other_base(model), *(model.adapter.notes if model.adapter else ())}
    return sorted(line for line in lines if line)


def averaged(names: Sequence[str]) -> list[str]:
    """Return a line about the tensors that a method averaged, because it has no statistic of them; none without any."""
    kinds = sorted({kind(name) or "others" for name in names})
    return (
        [f"{len(names)} tensors are plain averages ({', '.join(kinds)}): nothing is measured of them"] if names else []
    )


def _other_base(model: Model) -> str | None:
    if model.adapter is None or model.base is None:
        return None
    named, base = model.adapter.config.base_model_name_or_path, model.base
    if not named or named == base.source.location:
        return None
    said = f"{model.source.adapter} was made for {named}, it is put on {base.source}"
    same = _same_content(named, base)
    if same is None:
        known = {_leaf(base.source.location), _leaf(str(base.config.get("_name_or_path") or ""))}
        return None if _leaf(named) in known else f"{said}: {named} is not here to be compared"
    return None if same else f"{said}: their weights differ"


def _same_content(named: str, base: Model) -> bool | None:
    """Compare a named model with the base by their weights; None where it is not on this disk."""
    if not named.startswith("package:") and not exists(Path(named).expanduser()):
        return None
    try:
        other = open_model(parse_source(named), base.store)
        return other is base or (other.tensors == base.tensors and other.digest == base.digest)
    except M3Error:
        return None


def _leaf(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()

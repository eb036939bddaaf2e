"""Draws of lambda that other runs evaluated. Every run saves its plan in the store, so they can be found again.

A response curve predicts what a draw scores. Draws that were merged and evaluated, by any sweep or command, are shown
beside it.
"""

from collections.abc import Iterator
from dataclasses import replace

from m3_exp.store import Store
from m3_exp.types import Cell, Label, Plan, canonical_json


def draws(store: Store, plan: Plan) -> Plan:
    """Return the M3 draws of a plan's pairs, methods and benchmarks that any saved plan asked for and it does not.

    A draw belongs to the plan where models, hyper-parameters and drop rate are the same. It is looked up with the
    plan's own benchmark settings, items, limit and engine, so a score measured in another way is never found.
    """
    measured = {_asked(cell, label): (cell, label) for cell in plan.cells for label in cell.labels}
    known = {_shown(cell, label) for cell in plan.cells for label in cell.labels}
    draws: dict[tuple[str, str, str], Cell] = {}
    for cell in _saved(store):
        for label in cell.labels:
            ours = measured.get(_asked(cell, label)) if label.ratio == "mixup" else None
            if ours is None:
                continue
            own, now = ours
            label = replace(
                label, family=now.family, pair=now.pair, overrides=now.overrides, config_dirs=now.config_dirs,
                model_paths=now.model_paths,
            )  # fmt: skip
            same = replace(cell, evaluator=own.evaluator, tokenizer=own.tokenizer, limit=own.limit, labels=(label,))
            draws.setdefault(_shown(same, label), same)
    return replace(plan, cells=tuple(cell for key, cell in draws.items() if key not in known), notes=())


def _saved(store: Store) -> Iterator[Cell]:
    """Give the cells of every plan in the store that has M3 draws; a plan that this version cannot read has none."""
    for plan in store.plans.values():
        yield from (cell for cell in plan.cells if any(label.ratio == "mixup" for label in cell.labels))


def _asked(cell: Cell, label: Label) -> tuple[str, str]:
    """Return what draws of one row and benchmark share: everything but lambda, the mask and what its experts are
    called.
    """
    line = replace(
        label, family="", pair="", overrides=(), params={}, ratio="", alpha=None, draw=None, lam=None, weights=(),
        mask_seed=None,
    )  # fmt: skip
    params = {key: value if isinstance(value, str) else float(value) for key, value in label.params.items()}
    recipe = cell.recipe
    sparsifier = {key: value for key, value in (recipe.sparsify or {}).items() if key != "seed"}
    models = (recipe.base, recipe.experts, recipe.dtype, recipe.vocab, sparsifier)
    return cell.evaluator.name, canonical_json([line, params, models])


def _shown(cell: Cell, label: Label) -> tuple[str, str, str]:
    return cell.evaluator.name, cell.recipe.text, canonical_json(label)

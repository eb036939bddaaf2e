"""What `m3` does, as functions: carry a request out, write checkpoints, score saved answers.

    outcome = run(CommandLine(("pair=lm_math", "method=ties")))

What a command asks for is a CommandLine, or the Request that `config.compose` makes of it. Results are returned, not
printed; progress and warnings go to standard error.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3_exp import config, planning
from m3_exp.command_line import CommandLine
from m3_exp.config import Request
from m3_exp.store import DEFAULT_ROOT, Store
from m3_exp.types import Label, M3Error

if TYPE_CHECKING:
    from m3_exp.running import Outcome


def run(asked: CommandLine | Request, *, hours: float | None = None, cells: int | None = None) -> "Outcome":
    """Plan, merge, evaluate and record; what is done already is not done again.

    It stops after so many hours, at the last answer that fits, or so many cells; called again it goes on.

    Raises:
        M3Error: a model or a file of items is not there, every single cell is refused, or `node` is given.
    """
    from m3_exp.groups import Budget
    from m3_exp.results import gone
    from m3_exp.running import Run
    from m3_exp.views.workspace import tracking

    budget, request = Budget(hours, cells), config.compose(asked)
    if request.node is not None:
        raise M3Error(
            f"node={request.node} is a question for m3 plan; m3 run takes the machines it has: leave node= out"
        )
    plan, store = request.plan, Store(request.store)
    for refusal in gone(plan).values():
        raise M3Error(refusal)
    store.plans.put(plan.identity, plan)
    with tracking(request) as tracker:
        going = Run(
            plan, store, launcher=request.launcher, workers=request.workers, keep=request.checkpoint == "keep",
            verify=request.verify, tracker=tracker, repeat=request.repeat, command=request.asked.line("run"),
            called=request.called, experts={c.pair: tuple(c.experts) for c in request.configs},
            budget=budget,
        )  # fmt: skip
        outcome = going.carry_out(request.configs[0].parameters)
    return replace(outcome, wrong=tuple(unproven(outcome, request)))


def unproven(outcome: "Outcome", request: Request) -> list[str]:
    """Return what a run called done and the store does not hold, found by what had no part in the run.

    Answers are not looked at, so that it is quick. What the run failed on, or did not come to, is no part of it.
    """
    from m3_exp.reading.records import untouched
    from m3_exp.upkeep.cells import CellCheck
    from m3_exp.upkeep.reader import Shelf

    if not outcome.done:
        return []
    failed = {(failure.evaluation.cell.short_key, failure.evaluation.repeat) for failure in outcome.failures}
    try:
        with untouched():
            states = list(CellCheck(Shelf(request.store), deep=False).states(request.plan, request.repeat))
    except M3Error as error:
        return [f"the store cannot be looked at: {error}"]
    wrong = [str(state) for state in states if state.state == "wrong"]
    rest = [state for state in states if state.state in ("failed", "missing")]
    lost = [str(state) for state in rest if (state.cell.short_key, state.repeat) not in failed]
    return [*wrong, *(lost if len(lost) > outcome.left else [])]


@dataclass(frozen=True)
class Merged:
    """One checkpoint that was written: where, what it is, and the digest of its weights."""

    out: Path
    label: Label
    digest: str
    report: Mapping[str, Any]


def merge(asked: CommandLine | Request) -> list[Merged]:
    """Write a checkpoint of every lambda and mask of a request, in one pass over the models.

    Raises:
        M3Error: no directory is given, or several methods, pairs or ratios.
    """
    request = config.compose(asked)
    if request.out is None:
        raise M3Error("out=DIR must be given: a new directory for the checkpoint")
    if len(request.configs) > 1:
        raise M3Error("m3 merge takes one method, pair and ratio (ratio=grid writes all its lambdas in one pass)")
    (asked_for,) = request.configs
    variants = list(planning.variants(asked_for))
    names = [_folder(label) for label, _ in variants]
    numbered = [f"{name}-{number}" if names.count(name) > 1 else name for number, name in enumerate(names)]
    outs = [request.out] if len(variants) == 1 else [request.out / name for name in numbered]
    from m3_exp.merging.stream import write  # after what is refused: it is slow to import

    tokens = planning.merge_tokens(asked_for)
    written = write(
        [replace(recipe, tokens=tokens) for _, recipe in variants], outs, Store(request.store),
        planning.merge_tokenizer(asked_for), with_tokenizer=asked_for.tokenizer != "none", verify=request.verify,
    )  # fmt: skip
    return [
        Merged(out, label, result.digest, dict(result.report))
        for out, (label, _), result in zip(outs, variants, written, strict=True)
    ]


def _folder(label: Label) -> str:
    """Return the name of a variant's directory: its draw, its lambda, its weights or its parts, and its mask."""
    if label.parts and label.draw is None:
        draw = re.sub(r"[^A-Za-z0-9.]+", "-", planning.parts_text(label))[:80].strip("-")
    elif label.alpha is not None:
        draw = f"alpha-{label.alpha:g}-draw-{label.draw}"
    elif label.lam is not None:
        draw = f"lam-{label.lam!r}"
    else:
        draw = f"weights-{'-'.join(map(repr, label.weights))}" if label.weights else "plain"
    return draw + (f"-mask-{label.mask_seed}" if label.mask_seed is not None else "")


def score(
    benchmark: str,
    answers: Path,
    settings: Sequence[str] = (),
    *,
    out: Path | None = None,
    audit: bool = False,
    config_dirs: Sequence[Path] = (),
) -> dict[str, Any]:
    """Score saved answers with no model (see `scoring.evaluate.score_file`).

    Args:
        settings: SETTING=VALUE, as in `extractor=flexible`; `items=`, `store=` and `cell=` among them.
    """
    from m3_exp.scoring.cache import kept_in
    from m3_exp.scoring.evaluate import score_file

    stores = [config.raw_path(text.removeprefix("store="), "store") for text in settings if text.startswith("store=")]
    cells = [text.removeprefix("cell=") for text in settings if text.startswith("cell=")]
    others = [text for text in settings if not text.startswith(("store=", "cell="))]
    with kept_in(Path(stores[-1]) if stores else DEFAULT_ROOT):
        spec = config.evaluator(benchmark, others, config_dirs)
        return score_file(spec, answers, out, audit=audit, cell="".join(cells[-1:]))[0]

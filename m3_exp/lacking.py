"""What a request lacks on this machine, a line each, said before it costs anything.

`m3 plan`, `m3 doctor` and the start of `m3 run` say it. Models that are not at hand are told by the plan itself.
"""

import shutil
from collections.abc import Iterator

from m3_exp.amounts import size
from m3_exp.config import Request
from m3_exp.reporting.wandb.track import Settings, has_key
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.types import M3Error, identity

_FREE = 10**9  # bytes on disk below which a run is likely to end in the middle


def lines(request: Request, disk: int = 0) -> list[str]:
    """Return what is missing; nothing where all is there. `disk`: the bytes that the request will write."""
    tracker = request.tracker
    online = tracker is not None and tracker.resolved() == "online"
    return [*(key(tracker) if tracker and online else ()), *judges(request).values(), *space(request, disk)]


def key(tracker: Settings) -> list[str]:
    """Say that W&B has no key here, if it has none."""
    if tracker.resolved() == "disabled" or has_key():
        return []
    return [
        "W&B: there is no key here, so nothing is sent: set WANDB_API_KEY, or run wandb login; until then results are"
        " recorded offline"
    ]


def judges(request: Request) -> dict[str, str]:
    """Return why benchmarks cannot be scored on this machine, by their names: a judge without a key."""
    found = {}
    for spec in {identity(cell.evaluator): cell.evaluator for cell in request.plan.cells}.values():
        try:
            reason = load_evaluator(spec).lacks()
        except M3Error as error:
            reason = str(error)
        if reason:
            found[spec.name] = f"{spec.name} cannot be scored here, so nothing is asked for it: {reason}"
    return found


def space(request: Request, disk: int = 0) -> Iterator[str]:
    """Say that the disk of the store is too small for what the request writes, or nearly full."""
    folder = next(path for path in (request.store, *request.store.parents) if path.exists())
    free, needed = shutil.disk_usage(folder).free, max(disk, _FREE)
    if free < needed:
        yield (
            f"disk: {size(free)} free under the store {request.store}, about {size(needed)} are needed: free some, or"
            " give another store=DIR"
        )

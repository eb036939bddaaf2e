"""`m3 response`: what every alpha would score, from the curves of a sweep, and the check against observed draws."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pandas as pd

from m3_exp.command_line import CommandLine, names
from m3_exp.config import Request
from m3_exp.reporting.choices import ways
from m3_exp.reporting.choices.ways import Study
from m3_exp.reporting.curves import evaluated, prediction
from m3_exp.reporting.curves.evaluated import Response
from m3_exp.reporting.curves.prediction import Check
from m3_exp.types import M3Error
from m3_exp.views.lookup import Lookup, development_curves, look_up_sweep, named_sweep, of_sweep


@dataclass(frozen=True)
class Curves:
    """The curves that a command line asks for, and all lines of their pairs and methods beside the single models.

    `lost` names those that cannot be drawn, as a result is missing.
    """

    asked: CommandLine
    looked: Lookup
    frame: pd.DataFrame = field(repr=False)
    responses: tuple[Response, ...]
    lost: tuple[str, ...]

    @property
    def lines(self) -> list[list[Response]]:
        """The benchmarks of each pair and method together."""
        return evaluated.grouped(self.responses)


def request(asked: CommandLine) -> CommandLine:
    """Return what the curves are of: `sweeps=NAME` (lambda_response unless it is given) with the other overrides."""
    return of_sweep(_sweep(asked), asked.without("sweeps"))


def _sweep(asked: CommandLine) -> str:
    return named_sweep(asked) or "lambda_response"


def curves(asked: CommandLine | Request) -> Curves:
    """Look up the curves of a sweep, or of a run's request, with the draws of lambda that other runs evaluated.

    Raises:
        M3Error: there is none; it says what is missing, and the line that evaluates it.
    """
    if isinstance(asked, Request):
        others, looked = asked.asked.without("sweeps"), Lookup(asked)
    else:
        others = asked.without("sweeps")
        looked = look_up_sweep(_sweep(asked), others)
    frame = looked.frame(draws=True)
    known = evaluated.responses(frame, looked.parents)
    lost = evaluated.refused(frame)
    if not known:
        shown = [f"{axis}={value}" for axis in ("pair", "method") for value in others.values(axis)]
        why = evaluated.unfinished(lost) if lost else "none is evaluated yet"
        first = looked.request.asked
        if any(one.why in (evaluated.UNCORRECTED, evaluated.NOT_AFFINE) for one in lost):
            first = first.with_overrides(*first.without("ratio.sampled").overrides, "ratio.sampled=16")
        raise M3Error(f"no curve for {' '.join(shown) or 'this request'}: {why}; first: {first.line('run')}")
    return Curves(others, looked, frame, tuple(known), tuple(map(str, lost)))


def studies(found: Curves, *, repeats: int = 10_000) -> Iterator[Study]:
    """Give the study of each pair and method, with so many repetitions of its protocols."""
    dev = development_curves(str(found.looked.request.sweep), found.asked, found.looked.parents)
    for line in found.lines:
        known = evaluated.development(dev, line)
        yield ways.study(line, dev=known, repeats=repeats, seed=found.looked.seed)


def checks(found: Curves, *, repeats: int = 10_000) -> list[tuple[Response, Check]]:
    """Compare each curve with the draws of lambda in the store.

    Raises:
        M3Error: there is no draw; it says the line that makes some.
    """
    drawn = [response for response in found.responses if response.draws]
    if not drawn:
        first = found.responses[0]
        known = first.pair in names("pair", found.asked.config_dirs) and first.family != "local"
        named = [f"pair={first.pair}"] if known else [f"pair={name}" for name in found.asked.values("pair")]
        draws = [*named, f"method={first.method}", "ratio=mixup", "ratio.alpha=0.5,2", "ratio.draws=15"]
        others = found.asked.without("pair", "method", "ratio.nodes", "ratio.sampled")
        again = replace(others, multirun=True).line("run", *draws)
        raise M3Error(f"no real draw of {first.pair} {first.method} lies in the store: {again}")
    return [(one, prediction.check(one, repeats=repeats, seed=found.looked.seed)) for one in drawn]

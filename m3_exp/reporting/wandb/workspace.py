"""A W&B workspace and a report that compare settings of alpha, made of what `track.py` records. The one home of
wandb_workspaces.

Without an account they are written as a file: the specifications that W&B's own client would send. With one they are
saved to the project, and saving again changes the same two views.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3_exp.reading.records import read_record, sealed
from m3_exp.reporting.wandb.track import default_entity
from m3_exp.stats.expectation import ALPHAS
from m3_exp.store import dumps, write_atomic
from m3_exp.types import M3Error

if TYPE_CHECKING:
    from m3_exp.reporting.choices.ways import Study

_TITLE = "M3 by alpha"
_JOINT = ("mean", "minimum")


@dataclass(frozen=True)
class Contents:
    """What a workspace compares: benchmarks in order, objectives that have curves, findings as sentences, tables."""

    benchmarks: tuple[str, ...]
    curves: tuple[str, ...] = ()  # objectives with a curve: benchmarks, then mean and minimum where there are several
    findings: tuple[str, ...] = ()  # sentences
    tables: Mapping[str, str] | None = None  # title -> Markdown


@dataclass(frozen=True)
class Views:
    """A workspace and a report as W&B's client builds them."""

    workspace: Any
    report: Any

    def as_json(self) -> str:
        """Return both specifications: what the client sends."""
        # the client has no public way to its models but saving
        models = {"workspace": self.workspace._to_model(), "report": self.report._to_model()}
        value = {name: m.model_dump(mode="json", by_alias=True, exclude_none=True) for name, m in models.items()}
        return json.dumps(value, indent=1, sort_keys=True) + "\n"


def contents(benchmarks: Sequence[str], studies: Sequence["Study"] = ()) -> Contents:
    """Gather what a sweep's benchmarks and studies have to show."""
    from m3_exp.reporting.choices import advice
    from m3_exp.reporting.wandb.logged import markdown

    objectives = list(dict.fromkeys(c.objective for study in studies for c in study.comparisons))
    tables = {_title(study): markdown(advice.table(study)) for study in studies}
    return Contents(
        benchmarks=tuple(dict.fromkeys(benchmarks)),
        curves=tuple(sorted(objectives, key=lambda name: (name in _JOINT, objectives.index(name)))),
        findings=tuple(f"{_title(study)}: {line}" for study in studies for line in advice.words(study)),
        tables=tables,
    )


def _title(study: "Study") -> str:
    first = study.responses[0]
    return f"{first.family} {first.name}" + (f" ({first.params})" if first.params else "")


def _reports() -> Any:
    """Return W&B's blocks and panels; their module re-exports them in a way that type checkers do not follow."""
    import wandb_workspaces.reports.v2 as found

    return found


def build(what: Contents, project: str = "m3_exp", entity: str | None = None) -> Views:
    """Lay workspace and report out. Asks no server where `entity` is None."""
    import wandb_workspaces.workspaces as ws

    wr = _reports()
    sections = [
        ws.Section(name=name, panels=panels, is_open=True, layout_settings=ws.SectionLayoutSettings(columns=2, rows=2))
        for name, panels in _panels(what).items()
        if panels
    ]
    columns = ["run:displayName", "run:jobType", *(f"config:{key}.value" for key in ("pair", "method", "sparsify"))]
    settings = ws.RunsetSettings(pinned_columns=[*columns, "config:alpha.value", "config:lambda.value"])
    workspace = ws.Workspace(
        entity=entity or "", project=project, name=_TITLE, sections=sections, runset_settings=settings,
        settings=ws.WorkspaceSettings(smoothing_type="none", max_runs=100, point_visualization_method="downsampling"),
    )  # fmt: skip
    grids: list[Any] = [wr.TableOfContents()]
    if what.findings:
        grids.append(wr.UnorderedList(items=list(what.findings)))
    for name, panels in _panels(what).items():
        if panels:
            runset = wr.Runset(name=name, project=project if entity else "", entity=entity or "")
            grids += [wr.H2(text=name), wr.P(text=_MEANING[name]), wr.PanelGrid(runsets=[runset], panels=panels)]
    for name, text in (what.tables or {}).items():
        grids += [wr.H2(text=name), wr.MarkdownBlock(text=text)]
    report = wr.Report(
        project=project, entity=entity or "", title=_TITLE, blocks=grids,
        description="Score against lambda and alpha; one run a (pair, method, sparsify), and one a cell.",
    )  # fmt: skip
    return Views(workspace, report)


_MEANING = {
    "Score against alpha": "The expected score under lambda ~ Beta(alpha, alpha), in percent, from the response curve; "
    "mean and minimum over benchmarks are in percent of the better parent. Intervals are in each run's tables.",
    "Score against lambda": "The score at the nodes that were merged and evaluated; lambda is the first one's share.",
    "Single draws": "Every cell that was evaluated, by the alpha and the lambda that were drawn. One draw is one draw: "
    "the curves above say what an alpha is worth.",
    "Parallel coordinates": "A line a (pair, method, sparsify) through the expectations of the seven alphas; and a "
    "line a cell through its settings and score.",
}


def _panels(what: Contents) -> dict[str, list[Any]]:
    """Give the panels by section, each benchmark with one of its own."""
    wr = _reports()

    def line(over: str, key: str, name: str) -> Any:
        return wr.LinePlot(
            title=f"{name} over {over}", x=over, y=[f"{key}/{name}"], title_x=over, smoothing_type="none",
            title_y="% of the better parent" if name in _JOINT else "%", log_x=over == "alpha", max_runs_to_show=100,
        )  # fmt: skip

    def points(over: str, name: str) -> Any:
        return wr.ScatterPlot(
            title=f"{name}: draws by {over}", x=wr.Config(over), y=wr.SummaryMetric(f"score/{name}"), regression=False
        )

    measured = [name for name in what.curves if name not in _JOINT]
    joint_first = [*(name for name in what.curves if name in _JOINT), *measured]
    return {
        "Score against alpha": [line("alpha", "expected", name) for name in joint_first],
        "Score against lambda": [line("lambda", "score", name) for name in measured],
        "Single draws": [points(over, name) for name in what.benchmarks for over in ("lambda", "alpha")],
        "Parallel coordinates": [*map(_alphas, joint_first), *map(_settings, what.benchmarks)],
    }


def _alphas(name: str) -> Any:
    from m3_exp.reporting.wandb.logged import expected

    scores = {f"alpha {alpha:g}": expected(name, alpha) for alpha in ALPHAS}
    return _parallel(f"{name}: E[score | alpha]", ("method", "pair"), scores)


def _settings(name: str) -> Any:
    return _parallel(f"{name}: every cell", ("pair", "method", "sparsify", "alpha", "lambda"), {name: f"score/{name}"})


def _parallel(title: str, settings: Sequence[str], scores: Mapping[str, str]) -> Any:
    """Return parallel coordinates: of settings, then of `scores`, a metric's name by the column's title."""
    wr = _reports()
    keys = [*((key, wr.Config(key)) for key in settings), *((t, wr.SummaryMetric(key)) for t, key in scores.items())]
    columns = [wr.ParallelCoordinatesPlotColumn(metric=metric, display_name=text) for text, metric in keys]
    return wr.ParallelCoordinatesPlot(title=title, columns=columns)


def write(what: Contents, out: Path, project: str = "m3_exp") -> Path:
    """Write both specifications to a file, asking nobody."""
    write_atomic(out, build(what, project).as_json().encode())
    return out


def save(what: Contents, memory: Path, project: str, entity: str | None = None) -> list[str]:
    """Save both to the project and return their addresses. `memory` remembers them: the next save changes the same.

    Raises:
        M3Error: no key, no network, no such project, or W&B refuses.
    """
    try:
        owner = entity or default_entity()
        if not owner:
            raise ValueError("it names no default entity for this key: give tracker.entity=NAME")
        views = build(what, project, owner)
        return _saved(views, memory, f"{owner}/{project}")
    except Exception as error:  # a wall: W&B's client raises many kinds, and none of its own
        raise M3Error(
            f"W&B did not take the workspace: {type(error).__name__}: {' '.join(str(error).split())[:200]}; "
            "is there a key, and are runs recorded there (m3 wandb sync)? --out FILE writes it to a file"
        ) from error


def _saved(views: Views, memory: Path, key: str) -> list[str]:
    known = _remembered(memory).get(key, {})
    views.workspace._internal_name, views.workspace._internal_id = known.get("name", ""), known.get("id", "")
    views.report.id = known.get("report", "")
    for view in (views.workspace, views.report):
        view.save()
        known = {"name": views.workspace._internal_name, "id": views.workspace._internal_id, "report": views.report.id}
        write_atomic(memory, sealed(dumps(_remembered(memory) | {key: known}), memory.stem))
    return [str(views.workspace.url), str(views.report.url)]


def _remembered(memory: Path) -> dict[str, Any]:
    return read_record(memory, memory.stem, memory.parent / "quarantine", bare=True) or {}

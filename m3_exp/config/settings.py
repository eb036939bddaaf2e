"""A composed config -> the `Config` that plans are made of: every value typed and checked."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.override_parser.types import Override

from m3_exp.command_line import names
from m3_exp.config import by_part, experts
from m3_exp.config.choices import function
from m3_exp.config.overrides import PATH_SETTINGS
from m3_exp.config.values import MANY, Tree, choice, number, optional, parameter, source, truth
from m3_exp.engines.gpus import Node, described
from m3_exp.merging.plugins import PluginFunction
from m3_exp.merging.source import parse_source
from m3_exp.reading.paths import expanded, is_file
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.scoring.items import development, is_gone, no_file
from m3_exp.types import (
    GENERATED,
    Choice,
    Config,
    EngineSettings,
    EvaluatorSpec,
    LauncherSettings,
    M3Error,
    Pace,
)

T = TypeVar("T", list[Any], dict[Any, Any])
_ITEMS = ("official", "lab", "official-dev", "lab-dev")
_SUFFIXES = (".json", ".jsonl", ".gz", ".parquet")  # of a file of items
_OF_MODELS = ("family.", "pair.", "check_lineage")  # overrides that change which weights come out, besides the axes
_DRIVERS = ("auto", "bubblewrap", "landlock", "container", "weak")


def read(cfg: Tree, asks: bool, given: Sequence[Override], config_dirs: Sequence[Path]) -> Config:
    """Return a composed config as a plan reads it; `asks`: for a pair; `given` is what the command line said.

    Raises:
        M3Error: a value that no plan can have.
    """
    found = experts.chosen(cfg, asks, config_dirs)
    family, sparsify = cfg["family"], cfg["sparsify"]
    check_shared(cfg, config_dirs)
    ratio = _ratio(cfg, list(found.sources))
    typed = tuple(o.input_line or "" for o in given if o.key_or_group.startswith(_OF_MODELS))
    return Config(
        family=str(family["name"]),
        pair=found.pair,
        base=parse_source(source(family["base"], "family.base")),
        experts=found.sources,
        skills=found.skills,
        method=str(cfg["method"]["name"]),
        target=str(cfg["method"]["target"]),
        params=_method_params(cfg),
        ratio=ratio,
        sparsify=_chosen(cfg, "sparsify"),
        draws=number(cfg, "sparsify.draws", int, low=1, high=MANY) if "draws" in sparsify else 1,
        mask_seed=optional(cfg, "sparsify.seed", int, low=0) if "seed" in sparsify else None,
        evaluators=tuple(evaluator_spec(cfg, str(name)) for name in cfg["evaluator"]),
        engine=_engine(cfg),
        dtype=_dtype(cfg),
        vocab=choice(cfg, "family.vocab", ("mean", "refuse")),  # type: ignore[arg-type]
        check_lineage=truth(cfg, "check_lineage"),
        tokenizer=choice(cfg, "tokenizer", _tokenizers(list(found.sources))),
        seed=number(cfg, "seed", int, low=0),
        limit=optional(cfg, "limit", int, low=1),
        parameters=optional(cfg, "family.parameters", int, low=1),
        published=truth(cfg, "family.published"),
        overrides=(*(text for text in typed if not text.startswith("pair.")), *found.overrides),
        cache_values=optional(cfg, "family.cache_values", int, low=1),
        config_dirs=tuple(str(folder.absolute()) for folder in config_dirs),
        model_paths=found.moved,
    )


def _tokenizers(experts: Sequence[str]) -> tuple[str, ...]:
    return ("base", "union", "none", *map(str, range(len(experts))), *experts)


def check_shared(cfg: Tree, config_dirs: Sequence[Path]) -> None:
    """Check what all evaluators share: sandbox, chat_template, max_tokens; and that one evaluator is chosen."""
    if not isinstance(cfg["sandbox"], dict):
        raise M3Error(f"sandbox={cfg['sandbox']} is not a mapping: give sandbox.driver=... or sandbox.allow_weak=...")
    if strange := sorted({*cfg["sandbox"]} - {"driver", "allow_weak"}):
        raise M3Error(f"sandbox.{strange[0]} is not known; sandbox has the parameters driver, allow_weak")
    choice(cfg, "sandbox.driver", _DRIVERS)
    truth(cfg, "sandbox.allow_weak")
    truth(cfg, "chat_template")
    if not isinstance(cfg["family"]["max_tokens"], dict):
        raise M3Error(
            f"family.max_tokens={cfg['family']['max_tokens']} is not a mapping: give family.max_tokens.gsm8k=N"
        )
    if strange := sorted({*cfg["family"]["max_tokens"]} - {*names("evaluator", config_dirs)}):
        raise M3Error(f"family.max_tokens.{strange[0]} is not known: {strange[0]} is no benchmark")
    if not cfg.get("evaluator"):
        raise M3Error(
            f"evaluator is empty: give at least one, as evaluator=[A,B]; allowed: {', '.join(names('evaluator'))}"
        )


def _method_params(cfg: Tree) -> dict[str, float | str]:
    """Return the method's hyper-parameters: numbers, and the words that are not its default."""
    named = function("method", cfg["method"])
    assert named is not None
    return named.without_default_words(
        {key: _method_param(cfg, key, named) for key in named.keywords if key in cfg["method"]}
    )


def _method_param(cfg: Tree, key: str, named: PluginFunction) -> float | str:
    words = named.declares.choices
    if key in words:
        return choice(cfg, f"method.{key}", words[key])
    if key not in named.words:
        return number(cfg, f"method.{key}", float)
    text = cfg["method"][key]
    if not isinstance(text, str):
        raise M3Error(f"method.{key}={text} is not a text: give a word or a path, in quotes where it is a number")
    return text if text == named.defaults.get(key) else str(Path(expanded(text, f"method.{key}")).absolute())


def _chosen(cfg: Tree, group: str) -> Choice | None:
    """Return what is chosen on the axis of ratios or of sparsifiers; None for sparsify=none."""
    if (named := function(group, cfg[group])) is None:
        return None
    apart = ("seed", "parts") if group == "ratio" else ()
    own = [key for key in named.keywords if key in cfg[group] and key not in apart]
    params = {key: parameter(cfg, f"{group}.{key}", named.types(key)) for key in own}
    return Choice(str(cfg[group]["name"]), named.target, named.without_default_words(params))


def _ratio(cfg: Tree, names: Sequence[str]) -> Choice:
    """Return the ratio; `names` are those of the experts, by which weights may be given."""
    named = {key: value for key, value in cfg["ratio"].items() if isinstance(value, dict) and key != "parts"}
    weights = {key: list(by_part.by_name(value, names, f"ratio.{key}")) for key, value in named.items()}
    ratio = _chosen({**cfg, "ratio": {**cfg["ratio"], **weights}}, "ratio")
    assert ratio is not None
    return replace(ratio, parts=by_part.read(cfg, names)) if len(names) > 1 else ratio


def _engine(cfg: Tree) -> EngineSettings:
    e = cfg["engine"]
    return EngineSettings(
        name=choice(cfg, "engine.name", names("engine")),
        dtype=_dtype(cfg),
        max_model_len=optional(cfg, "engine.max_model_len", int, low=16, high=2**31),
        max_num_seqs=optional(cfg, "engine.max_num_seqs", int, low=1, high=2**20),
        tensor_parallel_size=number(cfg, "engine.tensor_parallel_size", int, low=1, high=MANY),
        gpu_memory_utilization=number(cfg, "engine.gpu_memory_utilization", float, low=0.05, high=1),
        kv_cache_gib=optional(cfg, "engine.kv_cache_gib", float, low=0.01, high=1e6),
        threads=optional(cfg, "engine.threads", int, low=1, high=MANY),
        start_timeout=number(cfg, "engine.start_timeout", float, low=1, high=1e7),
        stall_timeout=number(cfg, "engine.stall_timeout", float, low=1, high=1e7),
        answers=None if e.get("answers") is None else expanded(str(e["answers"]), "engine.answers"),
        pace=_pace(cfg),
    )


def _pace(cfg: Tree) -> Pace | None:
    """Return the pace of a rehearsal; None where nothing is set that has an effect.

    Raises:
        M3Error: a value that no pace can have, or one that has no effect.
    """
    given = cfg["engine"].get("pace")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise M3Error(f"engine.pace={given} is not a mapping: give engine.pace.tokens_per_second=N and its other keys")
    of = {name: f"engine.pace.{name}" for name in given}
    pace = Pace(
        tokens_per_second=optional(cfg, of["tokens_per_second"], float, low=1e-3, high=1e9),
        sequences=number(cfg, of["sequences"], int, low=1, high=2**20),
        latency=optional(cfg, of["latency"], float, low=1e-9, high=1e6),
        start=number(cfg, of["start"], float, low=0, high=1e7),
        swap=number(cfg, of["swap"], float, low=0, high=1e7),
        length=optional(cfg, of["length"], float, low=1, high=1e6),
        spread=number(cfg, of["spread"], float, low=0, high=5),
        speedup=number(cfg, of["speedup"], float, low=1e-3, high=1e6),
    )
    made_up = str(cfg["engine"].get("answers")) == GENERATED
    return _effective(pace, made_up)


def _effective(pace: Pace, made_up: bool) -> Pace | None:
    changed = [name for name, value in vars(pace).items() if value != getattr(Pace(), name)]
    rate = pace.tokens_per_second
    if rate is None:
        lame = [name for name in changed if not (made_up and name in ("length", "spread"))]
        if lame:
            raise M3Error(f"engine.pace.{lame[0]} has no effect without engine.pace.tokens_per_second: give that too")
        return pace if changed else None
    if pace.latency is not None and not 1 / rate <= pace.latency <= pace.sequences / rate:
        raise M3Error(
            f"engine.pace.latency={pace.latency:g} does not fit {rate:g} tokens a second with {pace.sequences} answers"
            f" in flight: give {1 / rate:.4g} to {pace.sequences / rate:.4g} seconds a token"
        )
    return pace


def launcher(cfg: Tree) -> LauncherSettings:
    """Return how workers are started; what a launcher's yaml does not have keeps its default."""
    given = cfg["launcher"]
    texts = ("address", "partition", "account", "qos", "gres", "constraint")
    settings = LauncherSettings(
        name=choice(cfg, "launcher.name", names("launcher")),
        silent=number(cfg, "launcher.silent", float, low=1, high=1e6),
        cpus=optional(cfg, "launcher.cpus", int, low=1, high=MANY),
        memory=optional(cfg, "launcher.memory", int, low=1, high=10**6),
        **{key: _line(given[key], f"launcher.{key}") for key in texts if given.get(key) is not None},  # type: ignore[arg-type]
    )
    if "minutes" not in given:
        return settings
    return replace(
        settings,
        minutes=number(cfg, "launcher.minutes", int, low=1, high=10**6),
        setup=tuple(_line(line, "launcher.setup") for line in _items(given["setup"], "launcher.setup", list)),
        sbatch={str(key): _line(value, f"launcher.sbatch.{key}") for key, value in
                _items(given["sbatch"], "launcher.sbatch", dict).items()},
        wait=truth(cfg, "launcher.wait"),
    )  # fmt: skip


def node(cfg: Tree) -> Node | None:
    """Return the machines that `m3 plan` is asked about.

    Raises:
        M3Error: they are not described as they must be, or this launcher reaches only one.
    """
    if (given := cfg["node"]) is None:
        return None
    found = described(str(given))
    if found.machines > 1 and cfg["launcher"]["name"] == "local":
        raise M3Error(
            f"node={given}: launcher=local starts engines on one machine; give launcher=ray or launcher=slurm"
        )
    return found


def _line(value: object, key: str) -> str:
    """Return a setting that goes into a job's script or an address as it is: one line."""
    if (
        not isinstance(value, str | int)
        or isinstance(value, bool)
        or not str(value).strip()
        or not str(value).isprintable()
    ):
        raise M3Error(f"{key}={value!r} is not one line of text: give a name, in quotes where it is a number")
    return str(value)


def _items(value: Any, key: str, kind: type[T]) -> T:
    if not isinstance(value, kind):
        form = "a list of lines, as '[module load cuda]'" if kind is list else "a mapping, as {mail-user: me}"
        raise M3Error(f"{key}={value} is not {form}")
    return value


def evaluator_spec(cfg: Tree, name: str) -> EvaluatorSpec:
    if not isinstance(cfg["evaluator"][name], dict):
        raise M3Error(
            f"evaluator.{name}={cfg['evaluator'][name]} is not a mapping: give evaluator.{name}.SETTING=VALUE"
        )
    settings = copy.deepcopy(cfg["evaluator"][name])
    for key in (key for key in PATH_SETTINGS if isinstance(settings.get(key), str) and settings[key]):
        settings[key] = expanded(settings[key], f"evaluator.{name}.{key}")
    target = str(settings.pop("target"))
    skill = settings.pop("skill", None)
    items = str(settings.pop("items", None) or cfg["items"] or cfg["family"]["items"])
    items = development(str(cfg["family"]["items"])) if items == "dev" else items
    items = items if items in _ITEMS else expanded(items, "items")
    outlived = is_gone(items) and Path(items).suffix in _SUFFIXES  # the results are there yet; who opens it refuses it
    if items not in _ITEMS and not outlived and not is_file(Path(items)):
        raise M3Error(no_file(items))
    if skill is not None and not isinstance(skill, str):
        raise M3Error(f"evaluator.{name}.skill={skill} is not the name of an expert, such as math")
    spec = EvaluatorSpec(name=name, target=target, settings=settings, items=items)
    return replace(spec, skill=str(skill or load_evaluator(spec).skill))


def _dtype(cfg: Tree) -> str:
    dtype = str(cfg["dtype"] or cfg["family"]["dtype"])
    if dtype not in ("float32", "bfloat16", "float16"):
        raise M3Error(f"dtype={dtype} is not known; allowed: float32, bfloat16, float16")
    return dtype

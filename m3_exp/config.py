"""conf/ and the overrides -> Config. With cli.py the only place that knows Hydra or OmegaConf.

`m3` composes with Hydra's Compose API and expands `-m`, ranges and sweep files with Hydra's own override grammar, so
that an error is one line of ours and a sweep is planned as a whole.
"""

import copy
import functools
import itertools
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, OverrideType, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from m3_exp.command_line import CommandLine
from m3_exp.merging import methods
from m3_exp.merging.source import parse_source
from m3_exp.reading.files import exists
from m3_exp.reading.paths import expanded, is_file
from m3_exp.reading.yaml_files import check_yaml, wrong_yaml
from m3_exp.reporting.wandb import track
from m3_exp.scoring.evaluate import load_evaluator, replaced_by
from m3_exp.scoring.items import development, lab_has_dev
from m3_exp.types import Config, Dare, EngineSettings, EvaluatorSpec, M3Error, Ratio, Source

T = TypeVar("T", int, float)

# What composing raises for a wrong value, a wrong file or an interpolation without end.
_HYDRA_RAISES = (HydraException, OmegaConfBaseException, ValueError, TypeError, AttributeError, RecursionError)

ROOT = Path(__file__).resolve().parent.parent

# Which parameter of a group has a meaning under which of its choices; a method's are its function's keywords.
_USED = {
    "ratio": {"alpha": "mixup", "draws": "mixup", "lam": "fixed", "nodes": "grid", "sampled": "grid"},
    "sparsify": {"drop_rate": "dare", "draws": "dare", "seed": "dare"},
}


_AXES = ("pair", "method", "ratio", "sparsify")  # of what a block of a sweep is about, even with one value
_ITEMS = ("official", "lab", "official-dev", "lab-dev")
# Of every evaluator that knows them.
_SHARED_SETTINGS = ("chat_template", "chat_args", "thought", "sandbox.driver", "sandbox.allow_weak")
_PATHS = ("out", "store", "items", "engine.answers", "family.base", "family.experts", "family.masked_lm", "tracker.dir")
_PATH_SETTINGS = ("items", "annotations", "prompts", "masked_lm")  # of evaluators
_DRIVERS = ("auto", "bubblewrap", "landlock", "container", "weak")
_ARGUMENTS = "chat_args is one quoted word: 'chat_args={enable_thinking: false}'"
_LARGEST = 2**63 - 1
_NAME, _NAMES = 255, 4000  # bytes that Linux takes for a name, and for a whole path
_LONGEST = 20_000  # characters of an override
_DEEPEST = 50  # brackets open in one
_MANY = 10_000  # draws, nodes, repeats or workers: more is a slip of the pen


@dataclass(frozen=True)
class Request:
    """What a command line asks for: its composed configs, and the sweep file it names."""

    asked: CommandLine
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
    verify: bool = True
    yaml: tuple[str, ...] = field(default=(), repr=False)


def request(args: Sequence[str], *, multirun: bool = False, config_dirs: Sequence[Path] = ()) -> Request:
    """Compose what `args` (Hydra overrides, perhaps `sweeps=NAME`) ask for.

    Raises:
        M3Error: anything unknown, dead, missing or of the wrong type.
    """
    asked = CommandLine(tuple(args), multirun, tuple(config_dirs))
    overrides = [_parse(arg) for arg in args]
    sweep = next((_named(o) for o in overrides if o.key_or_group == "sweeps"), None)
    given = [o for o in overrides if o.key_or_group != "sweeps"]
    folders = [*config_dirs]
    _check_folders(folders)
    if sweep is None:
        blocks: list[list[Override]] = [given]
        table = None
    else:
        document = _read_sweep(sweep, folders)
        blocks = _restrict(_sweep_blocks(sweep, document), given)
        table = document.get("table", sweep)
    for block in blocks:
        _refuse_hydra(block)
        _refuse_unknown(block, folders)
        _refuse_no_paths(block)
    if not multirun and sweep is None and (axis := next((o for o in given if o.is_sweep_override()), None)):
        name = f"; one name with a comma is quoted: {_quoted(axis.input_line or '')}" if _is_path(axis) else ""
        raise M3Error(f"{axis.input_line}: several values need -m, as in: m3 run -m {axis.input_line}{name}")
    products = [product for block in blocks for product in _products(block)]
    composed = _compose_all(products, folders)
    _refuse_dead(given, composed)
    first = composed[0]
    configs, notes = _with_items([_config(cfg, (*asked.flags, *_of_models(given))) for cfg in composed])
    return Request(
        asked=asked,
        configs=configs,
        notes=notes,
        store=_path(first, "store") or ROOT / "results" / "store",
        checkpoint=_choice(first, "checkpoint", ("none", "keep")),
        out=_path(first, "out"),
        workers=_optional(first, "workers", int, low=1, high=_MANY),
        tracker=_tracker(first),
        sweep=sweep,
        sweep_table=table,
        repeat=_number(first, "repeat", int, low=0, high=_MANY),
        verify=_truth(first, "verify"),
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
    if spec.items == "lab-dev":
        return lab_has_dev(spec.name)
    return spec.items != "official-dev" or load_evaluator(spec).has_dev()


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
            use = _ARGUMENTS if setting.endswith("}") else "write SETTING=VALUE, as in extractor=flexible"
            raise M3Error(f"{_short(setting)} is not a setting: {use}")
        if key == "items":
            items = raw_path(value, "items")
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
        text.encode()
    except UnicodeEncodeError:
        raise M3Error(f"{text[:200]} is not UTF-8: rename what it names, or give another path to it") from None
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
        raise M3Error(f"{text[:200]} holds a control character, which no value can: correct it")
    if len(text) > _LONGEST or _depth(text) > _DEEPEST:
        what = f"longer than {_LONGEST} characters" if len(text) > _LONGEST else f"over {_DEEPEST} brackets deep"
        raise M3Error(f"{_short(text)} is {what}: give less, or a yaml file in --config-dir")
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
    except (ValueError, RecursionError):  # a number of over 4,300 digits; brackets without end
        reason = "a number is too long, or brackets are nested too deep"
    tail = "=" not in text and text.endswith("}")  # what an unquoted blank cut off
    use = _ARGUMENTS if "chat_args" in text or tail else "write KEY=VALUE, as in ratio.alpha=0.5"
    if (
        "=" in text
        and use != _ARGUMENTS
        and len(text) < 1000
        and "${" not in text
        and "while evaluating" not in reason
        and _parses(_unquoted_by_shell(text))
    ):
        use = f"a value with such characters is quoted: {_quoted(text)}"
    raise M3Error(f"{_short(text)} is not an override: {reason}; {use}")


def _parses(text: str) -> bool:
    try:
        OverridesParser.create().parse_override(text)
    except (HydraException, ValueError):
        return False
    return True


def _depth(text: str) -> int:
    return max(itertools.accumulate((sign in "[{(") - (sign in "]})") for sign in text), default=0)


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:197] + "...")


def _quoted(override: str) -> str:
    """Return an override with its value (of family.experts each) in Hydra's quotes, as it is typed into a shell."""
    line = _unquoted_by_shell(override)
    key, _, value = line.partition("=")
    return shlex.quote(line) if re.search(r'["$`\\!]', line) else f'{key}="{value}"'


def _unquoted_by_shell(override: str) -> str:
    key, _, value = override.partition("=")
    if key == "family.experts" and value.startswith("[") and value.endswith("]"):
        parts = [part.strip() for part in re.findall(r"""'[^']*'|"[^"']*"|[^,]+""", value[1:-1])]
        parts = [part[1:-1] if re.fullmatch(r'"[^"\']*"', part) else part for part in parts]
        return f"{key}=[{','.join(map(_in_quotes, parts))}]"
    return f"{key}={_in_quotes(value)}"


def _in_quotes(text: str) -> str:
    """Return a text as Hydra reads it back: in single quotes, with a backslash before those inside."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text
    text = re.sub(r"(\\*)'", r"\1\1\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"


def raw_path(text: str, what: str) -> str:
    """Return the path of a setting that Hydra does not read: as it is, or in the quotes that Hydra needs elsewhere.

    Raises:
        M3Error: it is empty, or no path.
    """
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return expanded(str(_parse(f"{what}={text}").value()) if quoted else text, what)


def _named(override: Override) -> str:
    """Return the one sweep file that `sweeps=NAME` names."""
    if override.is_sweep_override():
        raise M3Error(f"{override.input_line}: one sweep at a time, as in sweeps=table1 (m3 report takes several)")
    return str(override.value())


def _check_folders(config_dirs: Sequence[Path]) -> None:
    """Refuse a --config-dir that is none, or holds YAML that cannot be read."""
    for folder in config_dirs:
        if not folder.is_dir():
            raise M3Error(f"--config-dir {folder} is not a directory: give one with family/, pair/ ... or sweeps/")
        for path in sorted((*folder.glob("*.yaml"), *folder.glob("*/*.yaml"))):
            _load(path)


def _load(path: Path) -> DictConfig:
    """Load a yaml file that a user gives.

    Raises:
        M3Error: it is not such yaml, or holds no mapping.
    """
    check_yaml(path)
    try:
        found = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
        raise wrong_yaml(error, path) from error
    if not isinstance(found, DictConfig):
        raise M3Error(f"{path} holds a list, a mapping of KEY: VALUE is needed")
    return found


def _refuse_hydra(overrides: Iterable[Override]) -> None:
    for override in overrides:
        key = override.key_or_group
        if key in ("hydra/launcher", "hydra/sweeper"):
            kind = key.removeprefix("hydra/")
            use = "launcher=local workers=N" if kind == "launcher" else "-m KEY=A,B or sweeps=NAME"
            raise M3Error(f"{override.input_line}: m3 plans a sweep as a whole and has its own {kind}; use {use}")
        if re.match(r"hydra\b", key):
            use = (
                "use --config-dir DIR" if key == "hydra.searchpath" else "leave it out; out=DIR and store=DIR say where"
            )
            raise M3Error(f"{override.input_line}: m3 composes by itself, hydra.* has no effect: {use}")


def _refuse_unknown(overrides: Iterable[Override], config_dirs: Sequence[Path]) -> None:
    """Refuse what Hydra would add, delete or leave out without a word."""
    for override in overrides:
        key, line = override.key_or_group, override.input_line
        if override.type is OverrideType.DEL:
            raise M3Error(f"{line}: nothing can be deleted: give it another value, as {key}=VALUE")
        if override.package is not None:
            raise M3Error(f"{line}: m3 knows no packages (@): write {key}=VALUE")
        if not re.match(r"[A-Za-z]", key):
            raise M3Error(f"{line}: {key or 'nothing'} is not the name of a key; write KEY=VALUE, as in limit=10")
        if key == "tuned" and override.value() not in names("tuned", config_dirs):
            raise M3Error(f"{line} does not exist; allowed: {', '.join(names('tuned', config_dirs))}")
        group, _, rest = key.partition(".")
        if rest == "name" and names(group, config_dirs):
            raise M3Error(f"{line}: the name of a choice is not changed; choose with {group}=NAME")
        if "." not in key and names(key, config_dirs):
            value = override.value() if not override.is_sweep_override() else ""
            if not (isinstance(value, str) or (key == "evaluator" and _is_texts(value))):
                allowed = ", ".join(names(key, config_dirs))
                raise M3Error(f"{line} is no choice; allowed: {allowed}" + _as_list(key))
            if isinstance(value, str) and value and "$" not in value and value not in names(key, config_dirs):
                raise M3Error(f"{line} does not exist; allowed: {', '.join(names(key, config_dirs))}")
            if value == "" and not override.is_sweep_override():
                raise M3Error(f"{line} is empty; allowed: {', '.join(names(key, config_dirs))}{_as_list(key)}")
        if override.type in (OverrideType.ADD, OverrideType.FORCE_ADD) and not _is_known(key, config_dirs):
            use = _ARGUMENTS if "chat_args." in key else _allowed(group, config_dirs)
            raise M3Error(f"{line}: {key} is not known; {use}")


def _as_list(group: str) -> str:
    return ", at least one, as evaluator=[A,B]" if group == "evaluator" else ""


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _is_known(key: str, config_dirs: Sequence[Path]) -> bool:
    """Tell whether a key that is added is one that something reads."""
    group, _, rest = key.partition(".")
    if not rest:
        return group != "defaults" and (group in OmegaConf.load(ROOT / "conf" / "config.yaml") or bool(names(group)))
    if group == "evaluator":
        return rest.partition(".")[0] in names(group, config_dirs)
    files = [*(ROOT / "conf" / group).glob("*.yaml"), *(f for d in config_dirs for f in (d / group).glob("*.yaml"))]
    known = {str(name) for file in files for name in OmegaConf.load(file)}
    return rest.partition(".")[0] in known or group == "method"


def _is_path(override: Override) -> bool:
    group, _, rest = override.key_or_group.partition(".")
    named = override.key_or_group.startswith("family.experts.")
    return (
        override.key_or_group in _PATHS or named or (group == "evaluator" and rest.partition(".")[2] in _PATH_SETTINGS)
    )


def _refuse_no_paths(overrides: Iterable[Override]) -> None:
    """Refuse the value of a path's key that Hydra reads as a number or as nothing: a folder may be named 1e-4."""
    for override in overrides:
        if not _is_path(override) or override.is_sweep_override():
            continue
        value, line = override.value(), override.input_line or ""
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, str) and not part.strip():
                raise M3Error(f"{line}: an empty name: give a path, or leave {override.key_or_group} out")
        several = override.key_or_group == "family.experts" and (isinstance(value, dict) or _is_texts(value))
        if (
            not isinstance(value, str | None)
            and not several
            and value != []
            and str(value) != line.partition("=")[2].strip()
        ):
            raise M3Error(f"{line}: a name that looks like a number or a list is quoted: {_quoted(line)}")
        if isinstance(value, dict) and not all(isinstance(part, str) for part in value.values()):
            raise M3Error(f"{line}: each expert is a name: write 'family.experts={{NAME: A, OTHER: B}}'")


def _read_sweep(name: str, config_dirs: Sequence[Path]) -> dict[str, Any]:
    path = sweep_file(name, config_dirs)
    document = OmegaConf.to_container(_load(path), resolve=False)
    if not isinstance(document, dict) or not isinstance(plans := document.get("plans"), list) or not plans:
        raise M3Error(f"{path} has no list `plans:`; see sweeps/table1.yaml")
    for number, block in enumerate(plans, 1):
        if not isinstance(block, dict) or not block:
            raise M3Error(f"{path}: plan {number} is no mapping of KEY: VALUE; see sweeps/table1.yaml")
        for key, value in block.items():
            if not isinstance(key, str) or isinstance(value, dict):
                raise M3Error(f"{path}: plan {number}: {key} must hold a value, or values with commas between")
    if not isinstance(document.get("table", name), str):
        raise M3Error(f"{path}: table must be the name of a table, it is {document['table']}")
    return {str(key): value for key, value in document.items()}


def sweep_file(name: str, config_dirs: Sequence[Path] = ()) -> Path:
    for folder in [*(d / "sweeps" for d in config_dirs), ROOT / "sweeps"]:
        if name in names("sweeps", config_dirs) and is_file(path := folder / f"{name}.yaml"):
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


def _check_sweep(override: Override) -> None:
    """Refuse a sweep whose values cannot be listed, or are too many to be meant."""
    sweep, line, key = override.value(), override.input_line, override.key_or_group
    if isinstance(sweep, Glob | IntervalSweep):
        raise M3Error(f"{line}: m3 expands lists and ranges: name the values, as in {key}=A,B or {key}=range(1,5)")
    if isinstance(sweep, RangeSweep):
        start, stop, step = (float(value or 0) for value in (sweep.start, sweep.stop, sweep.step))
        if not step or not 0 < (stop - start) / step <= _MANY:
            raise M3Error(f"{line} gives no values, or more than {_MANY}: write range(START,STOP,STEP)")


def _values(override: Override) -> list[str]:
    if override.is_sweep_override():
        _check_sweep(override)
        return [str(value) for value in override.sweep_string_iterator()]
    return [str(override.get_value_element_as_str())]


def _products(block: Sequence[Override]) -> list[tuple[str, ...]]:
    def spelled(override: Override) -> list[str]:
        if not override.is_sweep_override():
            return [override.input_line or ""]
        prefix = override.input_line.split("=", 1)[0] if override.input_line else override.key_or_group
        _check_sweep(override)
        return [f"{prefix}={value}" for value in override.sweep_string_iterator()]

    values = [spelled(override) for override in block]
    if math.prod(map(len, values)) > _MANY:
        raise M3Error(f"that is a product of more than {_MANY} requests: give fewer values")
    return list(itertools.product(*values))


# ------------------------------------------------------------------------------------------------------- composing


def _compose_all(products: Sequence[tuple[str, ...]], config_dirs: Sequence[Path]) -> list[DictConfig]:
    folders = ",".join(_in_quotes(f"file://{folder.resolve()}") for folder in config_dirs)
    search = [f"hydra.searchpath=[{folders}]"] if config_dirs else []
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
            try:
                for name, value in values.items():
                    OmegaConf.update(cfg, name, value)
            except _HYDRA_RAISES as error:
                raise M3Error(_one_line(error, config_dirs)) from error
            found.append(_resolved(cfg, config_dirs))
    return found


def _sets_a_value(override: Override) -> bool:
    """Tell whether an override only sets `group.parameter`: composing once serves all values of it."""
    return override.type is OverrideType.CHANGE and "." in override.key_or_group


def _compose(overrides: list[str], config_dirs: Sequence[Path]) -> DictConfig:
    try:
        cfg = compose("config", overrides)
        missing = sorted(OmegaConf.missing_keys(cfg))
    except _HYDRA_RAISES as error:
        raise M3Error(_one_line(error, config_dirs)) from error
    if missing:
        raise M3Error(f"{', '.join(missing)} must be given, as in {missing[0]}=...")
    _check_shape(cfg, config_dirs)
    return cfg


def _resolved(cfg: DictConfig, config_dirs: Sequence[Path]) -> DictConfig:
    if cfg.family["items"] == "lab" and cfg["items"] not in (None, "lab", "dev"):
        OmegaConf.update(cfg, "family.max_tokens", {}, merge=False)  # the lab's short answers and its rule judge
        OmegaConf.update(cfg, "family.judge", "chatgpt_fn", force_add=True)  # belong to the lab's items alone
    try:
        OmegaConf.resolve(cfg)
    except _HYDRA_RAISES as error:
        raise M3Error(_one_line(error, config_dirs)) from error
    return cfg


def _one_line(error: Exception, config_dirs: Sequence[Path]) -> str:
    """Turn Hydra's message into: what is wrong with its value, what is allowed."""
    text = str(error)
    if match := re.search(r"^(.*?)\s+full_key: (\S+)", text, re.DOTALL):
        return f"{match[2]}: {' '.join(match[1].split())}: write its value out"
    if match := re.search(r"Could not find '([^'/]+)/([^']+)'", text):
        group, choice = match.groups()
        return f"{group}={choice} does not exist; allowed: {', '.join(names(group, config_dirs))}"
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match.group(1)
        group, _, rest = key.partition(".")
        if re.search(r"(^|\.)chat_args\.", key):
            return f"{key} is not known: {_ARGUMENTS}"
        if group != "evaluator" or "." not in rest:
            return f"{key} is not known; {_allowed(group, config_dirs)}"
        benchmark, _, setting = rest.partition(".")
        if benchmark not in names("evaluator", config_dirs):
            return f"{key}: {benchmark} is no benchmark; {_allowed(group, config_dirs)}"
        known: Any = OmegaConf.load(ROOT / "conf" / "evaluator" / f"{benchmark}.yaml")
        own = [str(k) for k in known[benchmark]]
        if instead := replaced_by(str(known[benchmark]["target"]), setting):
            return f"{key} is not known any more; give {instead}"
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
    return f"{group} has {_listed({str(k) for k in known if k != 'name'})}"


# What a request is made of, and what is read of each; more may be said of a family and an evaluator.
_GROUPS: Mapping[str, tuple[str, ...]] = {
    "family": ("name", "base", "experts", "dtype", "items", "vocab", "parameters", "published", "max_tokens"),
    "pair": ("name", "experts"),
    "method": ("name", "target"),
    "ratio": ("name", "alpha", "draws", "lam", "nodes", "sampled"),
    "sparsify": ("name", "drop_rate", "draws", "seed"),
    "engine": (
        "name", "max_model_len", "max_num_seqs", "tensor_parallel_size", "gpu_memory_utilization", "kv_cache_gib",
        "threads", "start_timeout", "stall_timeout", "answers",
    ),
    "tracker": ("name",),
    "launcher": ("name",),
}  # fmt: skip
_CLOSED = {"family": ("cache_values", "chat_template", "judge", "masked_lm"), "pair": (), "ratio": (), "sparsify": (),
           "engine": (), "launcher": ()}  # fmt: skip


def _check_shape(cfg: DictConfig, config_dirs: Sequence[Path]) -> None:
    """Refuse a composed request that lacks what a plan reads, or holds what nothing reads (a yaml of a --config-dir).

    Raises:
        M3Error: the key, and what is allowed.
    """
    for key in (str(key) for key in cfg if key not in _GROUPS and key not in _top_keys()):
        raise M3Error(f"{key} is not known; {_allowed(key, config_dirs)}")
    for group, needed in _GROUPS.items():
        part = cfg.get(group)
        if not OmegaConf.is_dict(part):
            raise M3Error(f"{group}={part} is no choice; allowed: {', '.join(names(group, config_dirs))}")
        for key in needed:
            if key not in part:
                raise M3Error(f"{group}.{key} is missing in the yaml of this {group}: add it, as conf/{group} has it")
        known = {*needed, *_CLOSED.get(group, ())}
        for key in (str(key) for key in part if group in _CLOSED and key not in known):
            raise M3Error(f"{group}.{key} is not known; {group} has {_listed(known - {'name'})}")


def _listed(parameters: set[str]) -> str:
    return f"the parameters {', '.join(sorted(parameters))}" if parameters else "no parameters"


@functools.cache
def _top_keys() -> tuple[str, ...]:
    return ("evaluator", *(str(key) for key in OmegaConf.load(ROOT / "conf" / "config.yaml")))


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
        if not users:
            raise M3Error(f"{override.key_or_group} is not known: no method of {group}={','.join(now)} has it")
        raise M3Error(
            f"{override.key_or_group} has no effect under {group}={','.join(now)}; "
            f"did you mean {' or '.join(f'{group}={name}' for name in users)}?"
        )


def _target(method: str) -> str:
    return str(OmegaConf.load(ROOT / "conf" / "method" / f"{method}.yaml").target)


def _keywords(target: str) -> tuple[str, ...]:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", target):
        raise M3Error(f"method.target={target} is not module:function, as m3_exp.merging.methods.ties:ties is")
    return methods.load(target).hyperparameters


# -------------------------------------------------------------------------------------------- DictConfig -> Config


def _of_models(given: Sequence[Override]) -> tuple[str, ...]:
    """Return the overrides that change which weights come out, besides the axes."""
    keys = ("family.", "pair.", "check_lineage")
    return tuple(o.input_line or "" for o in given if o.key_or_group.startswith(keys))


def _config(cfg: DictConfig, overrides: tuple[str, ...]) -> Config:
    experts = _experts(cfg)
    family = cfg.family
    _check_shared(cfg)
    return Config(
        family=str(family.name),
        pair="local" if family.name == "local" else str(cfg.pair.name),
        base=parse_source(_source(cfg, family.base, "family.base")),
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
        check_lineage=_truth(cfg, "check_lineage"),
        tokenizer=_choice(cfg, "tokenizer", ("base", "none", *(str(i) for i in range(len(experts))))),
        seed=_number(cfg, "seed", int, low=0),
        limit=None if cfg.limit is None else _number(cfg, "limit", int, low=1),
        parameters=_optional(cfg, "family.parameters", int, low=1),
        published=_truth(cfg, "family.published"),
        overrides=overrides,
        cache_values=_optional(cfg, "family.cache_values", int, low=1),
    )


def _check_shared(cfg: DictConfig) -> None:
    """Check what evaluators read only where they are selected."""
    if not OmegaConf.is_dict(cfg.sandbox):
        raise M3Error(f"sandbox={cfg.sandbox} is not a mapping: give sandbox.driver=... or sandbox.allow_weak=...")
    _choice(cfg, "sandbox.driver", _DRIVERS)
    _truth(cfg, "sandbox.allow_weak")
    _truth(cfg, "chat_template")
    if not OmegaConf.is_dict(cfg.family.max_tokens):
        raise M3Error(f"family.max_tokens={cfg.family.max_tokens} is not a mapping: give family.max_tokens.gsm8k=N")
    if not cfg.get("evaluator"):
        raise M3Error(
            f"evaluator is empty: give at least one, as evaluator=[A,B]; allowed: {', '.join(names('evaluator'))}"
        )


def _source(cfg: DictConfig, value: object, key: str) -> str:
    """Return the text of a model with each `~` in it (of a base, of an adapter) expanded."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise M3Error(f"{key}={value} is not a model: give a directory, a hub id or a file, as a text")
    parts = re.split(r"\+(?=~)", str(value))
    return "+".join(expanded(part.strip(), key) for part in parts)


def _path(cfg: DictConfig, key: str) -> Path | None:
    """Return a folder to write into, which exists or can be made as far as names go."""
    value = OmegaConf.select(cfg, key)
    if value is None:
        return None
    path = Path(expanded(str(value), key))
    if any(len(part.encode()) > _NAME for part in path.parts) or len(str(path).encode()) > _NAMES:
        raise M3Error(f"{key}={path} is too long for the name of a folder: give a shorter one")
    for parent in path.absolute().parents:
        if exists(parent) and not parent.is_dir():
            raise M3Error(f"{key}={path} lies below {parent}, which is a file: give a folder")
    return path


def _truth(cfg: DictConfig, key: str) -> bool:
    value = OmegaConf.select(cfg, key)
    if not isinstance(value, bool):
        raise M3Error(f"{key}={value} is not known; allowed: true, false")
    return value


def _experts(cfg: DictConfig) -> dict[str, Source]:
    family = cfg.family
    if OmegaConf.is_list(family.experts):
        found = [_source(cfg, item, "family.experts") for item in family.experts]
        if not found:
            raise M3Error("family.experts is empty: give 'family.experts=[A,B]'")
        for one in map(",".join, itertools.pairwise(found)):
            if exists(Path(one)):
                raise M3Error(
                    f"family.experts is split at the comma in {one}; such a path is quoted: {_in_quotes(one)}"
                )
        return {str(index): parse_source(text) for index, text in enumerate(found)}
    if not OmegaConf.is_dict(family.experts):
        raise M3Error(f"family.experts={family.experts} is not a list: give 'family.experts=[A,B]'")
    experts = {str(k): _source(cfg, v, f"family.experts.{k}") for k, v in family.experts.items()}
    known = {"base": _source(cfg, family.base, "family.base"), **experts}
    if not OmegaConf.is_list(cfg.pair.experts) or not cfg.pair.experts:
        raise M3Error(f"pair.experts={cfg.pair.experts} is not a list of experts: give pair.experts=[A,B]")
    wanted = [str(name) for name in cfg.pair.experts]
    if twice := [name for name in wanted if wanted.count(name) > 1]:
        raise M3Error(f"pair.experts names {twice[0]!r} twice: name each expert once")
    for name in wanted:
        if name not in known:
            raise M3Error(f"pair.experts names {name!r}; family={family.name} has {', '.join(known)}")
    return {name: parse_source(known[name]) for name in wanted}


def _ratio(cfg: DictConfig) -> Ratio:
    return Ratio(
        name=_choice(cfg, "ratio.name", ("plain", "mixup", "fixed", "grid")),  # type: ignore[arg-type]
        alpha=_number(cfg, "ratio.alpha", float),
        draws=_number(cfg, "ratio.draws", int, low=1, high=_MANY),
        lam=_number(cfg, "ratio.lam", float),
        nodes=_number(cfg, "ratio.nodes", int, low=1, high=_MANY),
        sampled=_number(cfg, "ratio.sampled", int, low=0, high=_MANY),
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
    return Dare(drop_rate=drop_rate, draws=_number(cfg, "sparsify.draws", int, low=1, high=_MANY), seed=seed)


def _engine(cfg: DictConfig) -> EngineSettings:
    e = cfg.engine
    return EngineSettings(
        name=_choice(cfg, "engine.name", names("engine")),
        dtype=_dtype(cfg),
        max_model_len=_optional(cfg, "engine.max_model_len", int, low=16, high=2**31),
        max_num_seqs=_optional(cfg, "engine.max_num_seqs", int, low=1, high=2**20),
        tensor_parallel_size=_number(cfg, "engine.tensor_parallel_size", int, low=1, high=_MANY),
        gpu_memory_utilization=_number(cfg, "engine.gpu_memory_utilization", float, low=0.05, high=1),
        kv_cache_gib=_optional(cfg, "engine.kv_cache_gib", float, low=0.01, high=1e6),
        threads=_optional(cfg, "engine.threads", int, low=1, high=_MANY),
        start_timeout=_number(cfg, "engine.start_timeout", float, low=1, high=1e7),
        stall_timeout=_number(cfg, "engine.stall_timeout", float, low=1, high=1e7),
        answers=None if e.answers is None else expanded(str(e.answers), "engine.answers"),
    )


def _evaluator(cfg: DictConfig, name: str) -> EvaluatorSpec:
    if not OmegaConf.is_dict(cfg.evaluator[name]):
        raise M3Error(f"evaluator.{name}={cfg.evaluator[name]} is not a mapping: give evaluator.{name}.SETTING=VALUE")
    settings = {str(key): value for key, value in cfg.evaluator[name].items()}
    settings |= {key: OmegaConf.to_object(value) for key, value in settings.items() if OmegaConf.is_config(value)}
    for key in (key for key in _PATH_SETTINGS if isinstance(settings.get(key), str) and settings[key]):
        settings[key] = expanded(settings[key], f"evaluator.{name}.{key}")
    target = str(settings.pop("target"))
    skill = settings.pop("skill", None)
    items = str(settings.pop("items", None) or cfg["items"] or cfg.family["items"])
    items = development(str(cfg.family["items"])) if items == "dev" else items
    items = items if items in _ITEMS else expanded(items, "items")
    if items not in _ITEMS and not is_file(Path(items)):
        raise M3Error(f"items={items} is not a file; allowed are official, lab, dev, or a .json, .jsonl or .gz file")
    if skill is not None and not isinstance(skill, str):
        raise M3Error(f"evaluator.{name}.skill={skill} is not the name of an expert, such as math")
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


def _number(cfg: DictConfig, key: str, kind: type[T], *, low: float | None = None, high: float = _LARGEST) -> T:
    value = OmegaConf.select(cfg, key)
    what = "a whole number" if kind is int else "a number"
    try:
        if isinstance(value, bool) or (kind is int and not isinstance(value, int)):
            raise ValueError
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise M3Error(f"{key}={value} is not {what}") from None
    if not math.isfinite(number):
        raise M3Error(f"{key}={value} is not finite: give {what}")
    if low is not None and number < low:
        raise M3Error(f"{key}={value} is too small: give at least {low:g}")
    if abs(number) > high:
        raise M3Error(f"{key}={value} is too large: give at most {high:g}")
    return number


def _optional(cfg: DictConfig, key: str, kind: type[T], *, low: float, high: float = _LARGEST) -> T | None:
    return None if OmegaConf.select(cfg, key) is None else _number(cfg, key, kind, low=low, high=high)

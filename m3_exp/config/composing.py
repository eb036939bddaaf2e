"""Overrides -> composed configs: plain mappings. What Hydra raises becomes one line of ours.

Hydra composes the choices (`method=ties`), once for each combination of them; `kept` holds what it composed. An axis
whose choice is one plain file (`method=ties` where nothing is tuned) is not even composed again: the file takes the
place of the default's. Values (`method.retain=0.5`) are set afterwards, so that a sweep over values composes once. A
value counts only for the choices that have it: in `-m method=ties,average method.retain=0.5` retain is set for ties and
left out for average. `choices.refuse_dead` refuses a value that no choice of the line has.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from m3_exp.command_line import ROOT, groups, names, quoted
from m3_exp.config.choices import (
    FUNCTIONS,
    alternatives,
    function,
    keywords,
    keywords_of,
    load_yaml,
    needed,
    parameters,
    parameters_text,
    top_keys,
)  # fmt: skip
from m3_exp.config.kept import Compositions
from m3_exp.config.overrides import ARGUMENTS, parse
from m3_exp.config.suggestions import close, did_you_mean, of_choice, of_key
from m3_exp.config.values import Tree, is_there, tree_of, with_value
from m3_exp.scoring.evaluate import replaced_by
from m3_exp.types import M3Error, Pace

# What composing raises for a wrong value, a wrong file or an interpolation without end.
_HYDRA_RAISES = (HydraException, OmegaConfBaseException, ValueError, TypeError, AttributeError, RecursionError)

_OPEN = ("method", "tracker")  # their yaml may hold what nothing here reads
_RESERVED = (("ratio", "sampled"), ("method", "single"), ("pair", "local"))  # what labels say besides choices


def compose_all(products: Sequence[tuple[str, ...]], config_dirs: Sequence[Path]) -> list[Tree]:
    """Compose each product of overrides. The configs share what they have in common: none may be changed.

    Raises:
        M3Error: anything unknown, missing, or without a value.
    """
    composer = _Composer(tuple(config_dirs))
    return [composer.composed(product) for product in products]


@dataclass(frozen=True)
class _Raw:
    """Composed choices before their references (`${family.base}`) are resolved, and what values have to do with them.

    `words` are all words of all references, `missing` the keys without a value (`???`). `is_closed` tells that no
    reference reads more than the config: an environment variable (`${oc.env:HOME}`) is more.
    """

    tree: Tree
    words: frozenset[str]
    missing: tuple[str, ...]
    is_closed: bool


class _Composer:
    """Composes the products of one command line."""

    def __init__(self, config_dirs: tuple[Path, ...]) -> None:
        self._config_dirs = config_dirs
        self._kept = Compositions(config_dirs)
        self._raws: dict[tuple[str, ...], _Raw] = {}
        self._resolved: dict[tuple[str, ...], Tree] = {}
        self._checked: set[tuple[str, ...]] = set()

    def composed(self, product: tuple[str, ...]) -> Tree:
        overrides = [parse(text) for text in product]
        values = [override for override in overrides if _sets_a_value(override)]
        choices = tuple(o.input_line or "" for o in overrides if not _sets_a_value(o))
        try:
            return self._laid_over(choices, values)
        except _HYDRA_RAISES as error:
            raise M3Error(_one_line(error, self._config_dirs)) from error

    def _laid_over(self, choices: tuple[str, ...], values: Sequence[Override]) -> Tree:
        files = _plain_files(choices, self._config_dirs)
        others = tuple(text for text in choices if text.partition("=")[0] not in files)
        raw = self._raw(others)
        early = _early(values, raw)
        touched = raw.words | {override.key_or_group.partition(".")[0] for override in early}
        if any(group in touched or raw.tree[group] != _default_file(group) for group in files):
            files, others, raw = {}, choices, self._raw(choices)
            early = _early(values, raw)
        if choices not in self._checked:
            _check_shape({**raw.tree, **files}, self._config_dirs)
            self._checked.add(choices)
        cfg = {**self._resolve(others, raw, early), **files}
        cfg = self._set(cfg, [override for override in values if override not in early])
        _refuse_missing(cfg)
        return cfg

    def _raw(self, choices: tuple[str, ...]) -> _Raw:
        if choices not in self._raws:
            tree = self._kept.of(choices, lambda: self._by_hydra(choices))
            text = " ".join(value for _, value in _leaves(tree) if isinstance(value, str) and "${" in value)
            is_closed = {*re.findall(r"\$\{([^:{}]*):", text)} <= {"oc.select"}
            self._raws[choices] = _Raw(tree, frozenset(re.findall(r"\w+", text)), tuple(_missing(tree)), is_closed)
        return self._raws[choices]

    def _by_hydra(self, choices: tuple[str, ...]) -> Tree:
        folders = ",".join(quoted(f"file://{folder.resolve()}") for folder in self._config_dirs)
        search = [f"hydra.searchpath=[{folders}]"] if folders else []
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return _filled(tree_of(compose("config", [*search, *choices]), resolve=False), choices)

    def _resolve(self, choices: tuple[str, ...], raw: _Raw, early: Sequence[Override]) -> Tree:
        """Resolve the references of what is composed, once for the same choices and values."""
        key = (*choices, "", *(override.input_line or "" for override in early))
        if key not in self._resolved:
            if raw.is_closed and not early:
                self._resolved[key] = self._kept.of(choices, lambda: _resolved(raw.tree), "resolved")
            else:
                self._resolved[key] = _resolved(self._set(raw.tree, early))
        return self._resolved[key]

    def _set(self, cfg: Tree, values: Sequence[Override]) -> Tree:
        for override in values:
            key = override.key_or_group
            group, _, parameter = key.partition(".")
            if is_there(cfg, key) or _is_read(cfg, group, parameter):
                cfg = with_value(cfg, key, override.value())
            elif group not in FUNCTIONS or parameter not in parameters(group, self._config_dirs):
                raise M3Error(_unknown(key, self._config_dirs))
        return cfg


def _filled(tree: Tree, choices: Sequence[str]) -> Tree:
    """Add what the yaml of a family or a pair need not say: its name, that of its file, and what `_base.yaml` says."""
    chosen = {**_defaults(), **dict(text.split("=", 1) for text in choices if "=" in text)}
    for group, base in (("family", load_yaml(ROOT / "conf" / "family" / "_base.yaml")), ("pair", {})):
        if isinstance(part := tree.get(group), dict):
            left_out = {"name": chosen[group], **base}
            tree[group] = {**part, **{key: value for key, value in left_out.items() if key not in part}}
    return tree


_OF_EVALUATORS = ("skill", "items")  # of every benchmark, in no yaml


def _is_read(cfg: Tree, group: str, parameter: str) -> bool:
    """Tell whether something reads a key that the composed yaml files do not hold."""
    first, _, rest = parameter.partition(".")
    if group in FUNCTIONS:
        return parameter in keywords(group, cfg[group])
    if group == "evaluator":
        return rest in _OF_EVALUATORS and first in cfg[group]
    if group == "family" and rest:
        return (first == "max_tokens" and rest in names("evaluator")) or (first == "experts" and "." not in rest)
    return group == "family" and first in parameters(group)


def _sets_a_value(override: Override) -> bool:
    key = override.key_or_group
    return override.type is OverrideType.CHANGE and ("." in key or key in top_keys())


def _early(values: Sequence[Override], raw: _Raw) -> list[Override]:
    """Return the values that must be set before references are resolved, since a reference may read them."""
    texts = " ".join(text for override in values if "${" in (text := str(override.value())))
    words = raw.words | {"family", "items"} | set(re.findall(r"\w+", texts))

    def is_early(override: Override) -> bool:
        key, value = override.key_or_group, override.value()
        fills = any(f"{missing}.".startswith(f"{key}.") for missing in raw.missing)
        return fills or not words.isdisjoint(key.split(".")) or isinstance(value, dict) or "${" in str(value)

    return [override for override in values if is_early(override)]


def _resolved(tree: Tree) -> Tree:
    _refuse_missing(tree)
    cfg = OmegaConf.create(tree)
    if cfg.family["items"] == "lab" and cfg["items"] not in (None, "lab", "dev"):
        OmegaConf.update(cfg, "family.max_tokens", {}, merge=False)  # the lab's short answers and its rule judge
        OmegaConf.update(cfg, "family.judge", "chatgpt_fn", force_add=True)  # belong to the lab's items alone
    try:
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException:
        OmegaConf.missing_keys(cfg)  # reads each key, and so raises an error that names one
        raise
    found = tree_of(cfg, resolve=False)
    if left := re.search(r"\$\{[^}]*\}?", str(found)):
        raise M3Error(f"{left[0]} is left in a value, written as \\{left[0]}: give a text without ${{")
    return found


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict | list):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(part, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _missing(tree: Tree) -> list[str]:
    return sorted(key for key, value in _leaves(tree) if value == "???")


def _refuse_missing(tree: Tree) -> None:
    if missing := _missing(tree):
        raise M3Error(f"{', '.join(missing)} must be given, as in {missing[0]}=...")


# ------------------------------------------------------------------------- choices that are a plain file


def _plain_files(choices: Sequence[str], config_dirs: Sequence[Path]) -> Tree:
    """Return what the chosen files of the axes hold, of those axes whose choice is a plain file and changes no other.

    (`method=ties` is none where `tuned` has values for this family, method and pair. A shipped file stands before one
    of the same name in a --config-dir.)
    """
    chosen = {**_defaults(), **dict(text.split("=", 1) for text in choices if "=" in text)}
    files = {group: _plain_file(group, chosen[group]) for group in FUNCTIONS if f"{group}={chosen[group]}" in choices}
    methods, tuned = (chosen["method"], _defaults()["method"]), names("tuned", config_dirs)
    if "tuned" in chosen or any(f"{chosen['family']}_{one}_{chosen['pair']}" in tuned for one in methods):
        files.pop("method", None)
    return {group: file for group, file in files.items() if file is not None}


@functools.cache
def _plain_file(group: str, name: str) -> Tree | None:
    """Return what a shipped file holds; None where it includes another, refers to a key, or has a package."""
    if name not in names(group):
        return None
    text = (path := ROOT / "conf" / group / f"{name}.yaml").read_text()
    if "${" in text or "@package" in text or "???" in text or "defaults" in (tree := load_yaml(path)):
        return None
    return tree


@functools.cache
def _defaults() -> dict[str, str]:
    """Return the default choice of each group."""
    listed = load_yaml(ROOT / "conf" / "config.yaml")["defaults"]
    return {
        group: str(name) for one in listed if isinstance(one, dict) for group, name in one.items() if " " not in group
    }


def _default_file(group: str) -> Tree | None:
    return _plain_file(group, _defaults()[group])


# ------------------------------------------------------------------------------------------------ refusals


def _one_line(error: Exception, config_dirs: Sequence[Path]) -> str:
    """Turn Hydra's message into: what is wrong with its value, what is allowed."""
    text = str(error)
    if match := re.search(r"^(.*?)\s+full_key: (\S+)", text, re.DOTALL):
        return f"{match[2]}: {' '.join(match[1].split())}: write its value out"
    if match := re.search(r"Could not (?:find|load) '([^'/]+)/([^']+)'", text):
        group, choice = match.groups()
        allowed = f"allowed: {', '.join(names(group, config_dirs))}"
        return f"{group}={choice} does not exist; {allowed}{of_choice(group, choice, config_dirs)}"
    if "Could not override 'evaluator'" in text:
        return "the yaml of this pair names no benchmarks: begin it as one of conf/pair, with @package and defaults"
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown(match[1], config_dirs)
    return " ".join(text.split())


def _unknown(key: str, config_dirs: Sequence[Path]) -> str:
    """Say of a key that no composed choice has what may be written in its place."""
    group, _, rest = key.partition(".")
    if re.search(r"(^|\.)chat_args\.", key):
        return f"{key} is not known: {ARGUMENTS}"
    if key in (f"engine.pace.{name}" for name in vars(Pace())):
        return f"{key} has no effect here; did you mean engine=recorded?"
    meant = of_key(key, config_dirs)
    users = [name for name in names(group, config_dirs) if rest in _plain_yaml(group, name)] if key in meant else []
    if users:  # choices that are not taken
        return f"{key} has no effect here; did you mean {' or '.join(f'{group}={name}' for name in users)}?"
    if meant and group not in (*groups(), "evaluator"):
        return f"{key} is not known{did_you_mean(meant)}"
    if group != "evaluator" or "." not in rest:
        return f"{key} is not known; {alternatives(group, config_dirs)}{did_you_mean(meant)}"
    benchmark, _, setting = rest.partition(".")
    if benchmark not in (known_names := names("evaluator", config_dirs)):
        near = did_you_mean([f"evaluator.{one}.{setting}" for one in close(benchmark, known_names)])
        return f"{key}: {benchmark} is no benchmark; {alternatives(group, config_dirs)}{near}"
    known = _of_evaluators(benchmark, config_dirs)
    shared = [str(part).removesuffix(f"@{benchmark}") for part in known.get("defaults", []) if "@" in str(part)]
    own = [str(k) for part in (known[benchmark], *(_of_evaluators(p, config_dirs) for p in shared)) for k in part]
    own += _OF_EVALUATORS
    if instead := replaced_by(str(known[benchmark]["target"]), setting):
        return f"{key} is not known any more; give {instead}"
    if setting in own:
        return f"{key}: {benchmark} is not selected; add it to evaluator=[...]"
    near = did_you_mean([f"evaluator.{benchmark}.{one}" for one in close(setting, own)])
    return f"{key} is not known: {benchmark} has the settings {', '.join(k for k in own if k != 'target')}{near}"


def _plain_yaml(group: str, name: str) -> Tree:
    """Return a shipped choice by itself; empty where a --config-dir brings it."""
    path = ROOT / "conf" / group / f"{name}.yaml"
    return load_yaml(path) if path.exists() else {}


def _of_evaluators(stem: str, config_dirs: Sequence[Path]) -> Tree:
    """Return a yaml of the group `evaluator`, a --config-dir's before our own."""
    files = [folder / "evaluator" / f"{stem}.yaml" for folder in (*config_dirs, ROOT / "conf")]
    return load_yaml(next(file for file in files if file.exists()))


def _check_shape(cfg: Tree, config_dirs: Sequence[Path]) -> None:
    """Refuse a request that lacks a key which a plan reads, or has one that nothing reads.

    Only a yaml of a --config-dir can do either.

    Raises:
        M3Error: the key, and what is allowed.
    """
    for key in (str(key) for key in cfg if key not in (*groups(), *top_keys(), "evaluator")):
        raise M3Error(f"{key} is not known; {alternatives(key, config_dirs)}")
    for group in groups():
        part = cfg.get(group)
        if not isinstance(part, dict):
            raise M3Error(f"{group}={part} is no choice; allowed: {', '.join(names(group, config_dirs))}")
        lacking = sorted(needed(group) - set(part))  # `in part` would leave out ???
        if not lacking and config_dirs and group in FUNCTIONS and (named := function(group, part)):
            lacking = [key for key in named.required if key not in part and (group, key) != ("ratio", "seed")]
        for key in lacking:
            raise M3Error(f"{group}.{key} is missing in the yaml of this {group}: add it, as conf/{group} has it")
        if (group, part["name"]) in _RESERVED:
            raise M3Error(f"{group}.name={part['name']} means something else in tables: give this {group} another name")
        known = {*parameters(group)}
        if config_dirs and group in FUNCTIONS:  # a yaml may repeat what other choices of its group are told
            others = (keywords_of(group, name, config_dirs) for name in names(group, config_dirs))
            known.update(keywords(group, part), *others)
        for key in (str(key) for key in part if group not in _OPEN and key not in (*known, "name", "target")):
            raise M3Error(f"{group}.{key} is not known; {group} has {parameters_text(known)}")

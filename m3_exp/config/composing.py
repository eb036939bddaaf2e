"""Overrides -> composed configs, by Hydra's Compose API. What Hydra raises becomes one line of ours.

Hydra composes the choices (`method=ties`) once. Values (`method.retain=0.5`) are set afterwards, so that a sweep over
values composes once. A value counts only for the choices that have it: in `-m method=ties,average method.retain=0.5`
retain is set for ties and left out for average. `choices.refuse_dead` refuses a value that no choice of the line has.
"""

import copy
import re
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from m3_exp.command_line import ROOT, names, quoted
from m3_exp.config.choices import (
    FUNCTIONS,
    alternatives,
    function,
    groups,
    keywords,
    keywords_of,
    load_yaml,
    needed,
    parameters,
    parameters_text,
    top_keys,
)  # fmt: skip
from m3_exp.config.overrides import ARGUMENTS, parse
from m3_exp.scoring.evaluate import replaced_by
from m3_exp.types import M3Error

# What composing raises for a wrong value, a wrong file or an interpolation without end.
_HYDRA_RAISES = (HydraException, OmegaConfBaseException, ValueError, TypeError, AttributeError, RecursionError)

_OPEN = ("method", "tracker")  # their yaml may hold what nothing here reads
_RESERVED = (("ratio", "sampled"), ("method", "single"), ("pair", "local"))  # what labels say besides choices


def compose_all(products: Sequence[tuple[str, ...]], config_dirs: Sequence[Path]) -> list[DictConfig]:
    """Compose each product of overrides.

    Raises:
        M3Error: anything unknown, missing, or without a value.
    """
    folders = ",".join(quoted(f"file://{folder.resolve()}") for folder in config_dirs)
    search = [f"hydra.searchpath=[{folders}]"] if config_dirs else []
    composed: dict[tuple[str, ...], DictConfig] = {}
    found: list[DictConfig] = []
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for product in products:
            overrides = [parse(text) for text in product]
            values = [override for override in overrides if _sets_a_value(override)]
            choices = tuple(o.input_line or "" for o in overrides if not _sets_a_value(o))
            try:
                if choices not in composed:
                    composed[choices] = compose("config", [*search, *choices])
                    _check_shape(composed[choices], config_dirs)
                found.append(_laid_over(copy.deepcopy(composed[choices]), values, config_dirs))
            except _HYDRA_RAISES as error:
                raise M3Error(_one_line(error, config_dirs)) from error
    return found


def _sets_a_value(override: Override) -> bool:
    return override.type is OverrideType.CHANGE and "." in override.key_or_group


def _laid_over(cfg: DictConfig, values: Sequence[Override], config_dirs: Sequence[Path]) -> DictConfig:
    for override in values:
        key = override.key_or_group
        group, _, parameter = key.partition(".")
        if _is_there(cfg, key) or (group in FUNCTIONS and parameter in keywords(group, cfg[group])):
            OmegaConf.update(cfg, key, override.value(), force_add=True)
        elif group not in FUNCTIONS or parameter not in parameters(group, config_dirs):
            raise M3Error(_unknown(key, config_dirs))
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise M3Error(f"{', '.join(missing)} must be given, as in {missing[0]}=...")
    if cfg.family["items"] == "lab" and cfg["items"] not in (None, "lab", "dev"):
        OmegaConf.update(cfg, "family.max_tokens", {}, merge=False)  # the lab's short answers and its rule judge
        OmegaConf.update(cfg, "family.judge", "chatgpt_fn", force_add=True)  # belong to the lab's items alone
    OmegaConf.resolve(cfg)
    if left := re.search(r"\$\{[^}]*\}?", str(OmegaConf.to_container(cfg))):
        raise M3Error(f"{left[0]} is left in a value, written as \\{left[0]}: give a text without ${{")
    return cfg


def _is_there(cfg: DictConfig, key: str) -> bool:
    parent, _, last = key.rpartition(".")
    held = OmegaConf.select(cfg, parent)
    return last in set(held) if isinstance(held, DictConfig) else OmegaConf.is_list(held)  # set: even where it is ???


def _one_line(error: Exception, config_dirs: Sequence[Path]) -> str:
    """Turn Hydra's message into: what is wrong with its value, what is allowed."""
    text = str(error)
    if match := re.search(r"^(.*?)\s+full_key: (\S+)", text, re.DOTALL):
        return f"{match[2]}: {' '.join(match[1].split())}: write its value out"
    if match := re.search(r"Could not (?:find|load) '([^'/]+)/([^']+)'", text):
        group, choice = match.groups()
        return f"{group}={choice} does not exist; allowed: {', '.join(names(group, config_dirs))}"
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown(match[1], config_dirs)
    return " ".join(text.split())


def _unknown(key: str, config_dirs: Sequence[Path]) -> str:
    """Say of a key that no composed choice has what may be written in its place."""
    group, _, rest = key.partition(".")
    if re.search(r"(^|\.)chat_args\.", key):
        return f"{key} is not known: {ARGUMENTS}"
    if group != "evaluator" or "." not in rest:
        return f"{key} is not known; {alternatives(group, config_dirs)}"
    benchmark, _, setting = rest.partition(".")
    if benchmark not in names("evaluator", config_dirs):
        return f"{key}: {benchmark} is no benchmark; {alternatives(group, config_dirs)}"
    known = _of_evaluators(benchmark, config_dirs)
    shared = [str(part).removesuffix(f"@{benchmark}") for part in known.get("defaults", []) if "@" in str(part)]
    own = [str(k) for part in (known[benchmark], *(_of_evaluators(p, config_dirs) for p in shared)) for k in part]
    if instead := replaced_by(str(known[benchmark]["target"]), setting):
        return f"{key} is not known any more; give {instead}"
    if setting in own:
        return f"{key}: {benchmark} is not selected; add it to evaluator=[...]"
    return f"{key} is not known: {benchmark} has the settings {', '.join(k for k in own if k != 'target')}"


def _of_evaluators(stem: str, config_dirs: Sequence[Path]) -> DictConfig:
    """Return a yaml of the group `evaluator`, a --config-dir's before our own."""
    files = [folder / "evaluator" / f"{stem}.yaml" for folder in (*config_dirs, ROOT / "conf")]
    return load_yaml(next(file for file in files if file.exists()))


def _check_shape(cfg: DictConfig, config_dirs: Sequence[Path]) -> None:
    """Refuse a request that lacks a key which a plan reads, or has one that nothing reads.

    Only a yaml of a --config-dir can do either.

    Raises:
        M3Error: the key, and what is allowed.
    """
    for key in (str(key) for key in cfg if key not in (*groups(), *top_keys(), "evaluator")):
        raise M3Error(f"{key} is not known; {alternatives(key, config_dirs)}")
    for group in groups():
        part = cfg.get(group)
        if not isinstance(part, DictConfig):
            raise M3Error(f"{group}={part} is no choice; allowed: {', '.join(names(group, config_dirs))}")
        lacking = sorted(needed(group) - set(part))  # `in part` would leave out ???
        if not lacking and config_dirs and group in FUNCTIONS and (named := function(group, part)):
            lacking = [key for key in named.required if key not in part and (group, key) != ("ratio", "seed")]
        for key in lacking:
            raise M3Error(f"{group}.{key} is missing in the yaml of this {group}: add it, as conf/{group} has it")
        if (group, part.name) in _RESERVED:
            raise M3Error(f"{group}.name={part.name} means something else in tables: give this {group} another name")
        known = {*parameters(group)}
        if config_dirs and group in FUNCTIONS:  # a yaml may repeat what other choices of its group are told
            others = (keywords_of(group, name, config_dirs) for name in names(group, config_dirs))
            known.update(keywords(group, part), *others)
        for key in (str(key) for key in part if group not in _OPEN and key not in (*known, "name", "target")):
            raise M3Error(f"{group}.{key} is not known; {group} has {parameters_text(known)}")

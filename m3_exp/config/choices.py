"""What conf/ and a --config-dir offer: the choices of a group, the parameters of each, and the refusal of dead ones."""

import contextlib
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from m3_exp.command_line import ROOT, files, groups, names
from m3_exp.config.values import Tree, tree_of
from m3_exp.merging import methods, mixtures, sparsify
from m3_exp.merging.plugins import PluginFunction
from m3_exp.reading.paths import config_dir
from m3_exp.reading.yaml_files import FAST, check_yaml, wrong_yaml
from m3_exp.types import M3Error

# The axes whose choices are functions: each parameter is a keyword of the function, in the yaml of its choice alone.
FUNCTIONS = ("method", "ratio", "sparsify")
_LOAD = {"method": lambda target: methods.load(target).named, "ratio": mixtures.load, "sparsify": sparsify.load}
_NO_PARAMETERS = ("name", "target", "defaults")


@functools.cache
def top_keys() -> tuple[str, ...]:
    return tuple(str(key) for key in load_yaml(ROOT / "conf" / "config.yaml") if key != "defaults")


def parameters(group: str, config_dirs: Sequence[Path] = ()) -> list[str]:
    """Return what may be set of a group, of whichever choice: the keys of its yaml files, and functions' keywords."""
    return sorted(_parameters(group, config_dirs) if config_dirs else _shipped_parameters(group))


@functools.cache
def _shipped_parameters(group: str) -> set[str]:
    return _parameters(group, ())


def _parameters(group: str, config_dirs: Sequence[Path]) -> set[str]:
    keys = {str(key) for file in files(group, config_dirs) for key in _part(group, file)}
    if group in FUNCTIONS:
        keys.update(*(keywords_of(group, name, config_dirs) for name in names(group, config_dirs)))
    return keys - {*_NO_PARAMETERS}


@functools.cache
def needed(group: str) -> set[str]:
    """Return the keys that every choice of a group must have: those of all shipped ones, and what `_base.yaml` sets."""
    shipped = [(file.stem, _part(group, file)) for file in files(group, ())]
    keys = set.intersection(*({str(key) for key in part} for name, part in shipped if not name.startswith("_")))
    bases = [part for name, part in shipped if name.startswith("_")]
    set_by_base = {str(key) for part in bases for key, value in part.items() if value is not None}
    return (keys | set_by_base) - {"defaults", *(("target",) if group in FUNCTIONS else ())}


def _part(group: str, file: Path) -> Tree:
    """Return what a yaml file says of its group; that of a pair says something of benchmarks as well."""
    held = load_yaml(file)
    part = held.get(group)
    return part if isinstance(part, dict) else held


def pair_experts(pair: str, config_dirs: Sequence[Path]) -> list[str]:
    """Return the experts of a pair of conf/ or of a --config-dir; none if there is no such pair."""
    found = [load_yaml(file).get("pair") for file in files("pair", config_dirs) if file.stem == pair]
    return [str(name) for name in (found[0] or {}).get("experts") or []] if found else []


def alternatives(group: str, config_dirs: Sequence[Path]) -> str:
    """Say what may be written in place of an unknown key of a group, or of an unknown top-level key."""
    if group in top_keys():
        return f"allowed top-level keys: {', '.join(top_keys())}"
    if not (choices := names(group, config_dirs)):
        return f"allowed: {', '.join([*sorted([*groups(), 'evaluator', 'tuned']), *top_keys()])}"
    if group in ("evaluator", "pair"):
        return f"allowed choices of {group}: {', '.join(choices)}"
    return f"{group} has {parameters_text(parameters(group, config_dirs))}"


def parameters_text(keys: Iterable[str]) -> str:
    named = ", ".join(sorted(keys))
    return f"the parameters {named}" if named else "no parameters"


def load_yaml(path: Path) -> Tree:
    """Load a yaml file as OmegaConf does, without resolving its references; nobody may change what it returns.

    Raises:
        M3Error: it is not such yaml, or holds no mapping.
    """
    if path.is_relative_to(ROOT / "conf") or path.is_relative_to(ROOT / "sweeps"):
        with contextlib.suppress(yaml.YAMLError, ValueError, OSError):  # below it is said what is wrong
            if (shipped := _shipped(path)) is not None:
                return shipped
    check_yaml(path)
    try:
        found = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
        raise wrong_yaml(error, path) from error
    if not isinstance(found, DictConfig):
        raise M3Error(f"{path} holds a list, a mapping of KEY: VALUE is needed")
    return tree_of(found, resolve=False)


@functools.cache
def _shipped(path: Path) -> Tree | None:
    """Return what a shipped file holds, None where it is no mapping: libyaml reads it in a tenth of OmegaConf's time,
    and by the same rules of what is a number.
    """
    loader = type("Loader", (FAST,), {"yaml_implicit_resolvers": get_yaml_loader().yaml_implicit_resolvers})
    found = yaml.load(path.read_text(encoding="utf-8"), loader)
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else None


def check_folders(config_dirs: Sequence[Path]) -> None:
    """Refuse a --config-dir that is no folder, holds YAML that cannot be read, or a choice of a shipped name."""
    for folder in config_dirs:
        config_dir(str(folder))
        for path in sorted((*folder.glob("*.yaml"), *folder.glob("*/*.yaml"))):
            load_yaml(path)
            ours = ROOT / "conf" / path.relative_to(folder)
            if ours.exists() and not ours.samefile(path):
                raise M3Error(f"{path} is not read: {path.relative_to(folder)} is shipped; give yours another name")


# ------------------------------------------------------------------------------------ choices that are functions


def function(group: str, part: Tree) -> PluginFunction | None:
    """Import the function that a method's, ratio's or sparsifier's yaml names; None for sparsify=none.

    A yaml without `target` (older ones have none) means the shipped choice of its name, or DARE.
    """
    name, target = str(part.get("name")), part.get("target")
    if group == "sparsify" and name == "none":
        return None
    if target is None and "target" not in part:
        shipped = ROOT / "conf" / group / f"{name}.yaml"
        named = load_yaml(shipped).get("target") if name in names(group) else None
        target = sparsify.DARE if group == "sparsify" else named
        if target is None:
            raise M3Error(f"{group}.target is missing in the yaml of this {group}: add it, as conf/{group} has it")
    return _LOAD[group](str(target))


def keywords(group: str, part: Tree) -> list[str]:
    """Return the keys that may be set of a choice: its function's keywords; of a random sparsifier `draws` too."""
    if (named := function(group, part)) is None:
        return []
    drawn = ["draws", "seed"] if group == "sparsify" and "key" in named.positional else []
    return [*(key for key in named.keywords if (group, key) != ("ratio", "seed")), *drawn]


def keywords_of(group: str, choice: str, config_dirs: Sequence[Path] = ()) -> list[str]:
    """Return the keys that may be set of a choice, by its name; none if there is no such choice, or it does not load:
    one that is chosen has loaded, the others are for suggestions.
    """
    known = [file for file in files(group, config_dirs) if file.stem == choice and group in FUNCTIONS]
    with contextlib.suppress(M3Error, OmegaConfBaseException):
        return keywords(group, load_yaml(known[0])) if known else []
    return []


def refuse_dead(given: Sequence[Override], composed: Sequence[Tree], config_dirs: Sequence[Path]) -> None:
    """Refuse a parameter that the command line sets and no composed choice of its group has: alpha under plain."""
    for override in given:
        group, _, parameter = override.key_or_group.partition(".")
        if group not in FUNCTIONS or parameter in ("", *_NO_PARAMETERS):
            continue
        if any(parameter in keywords(group, cfg[group]) for cfg in composed):
            continue
        users = [name for name in names(group, config_dirs) if parameter in keywords_of(group, name, config_dirs)]
        now = f"{group}={','.join(sorted({str(cfg[group]['name']) for cfg in composed}))}"
        if not users:
            raise M3Error(f"{override.key_or_group} is not known: no {group} of {now} has it")
        meant = " or ".join(f"{group}={name}" for name in users)
        raise M3Error(f"{override.key_or_group} has no effect under {now}; did you mean {meant}?")

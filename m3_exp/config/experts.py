"""The experts of a request: which of its family's, what each is called, and what they are called together.

An expert has the name that its family gives it. One that is only a path has that of its last folder: /models/poet is
`poet`. A pair has its name in conf/ if it holds what is written there, else the names of its experts: lm and code in
place of `pair=lm_math` are `lm_code`.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from m3_exp.command_line import files, names, override, quoted, word
from m3_exp.config.choices import load_yaml, pair_experts
from m3_exp.config.values import Tree, source
from m3_exp.merging.source import absolute, parse_source
from m3_exp.reading.files import exists
from m3_exp.types import M3Error, Source

_PAIR = {"pair", "pair.experts"}  # the keys that ask for one
TAKEN = ("base", "local", "single")  # names that say something else in tables


@dataclass(frozen=True)
class Experts:
    """What is merged: `sources` by the names that are shown, in order; `pair`: what they are called together.

    `skills` are the same by their names in the family, which a benchmark's skill may be. `overrides` ask for them where
    no `pair=` does; `moved` give their relative paths as absolute ones.
    """

    pair: str
    sources: Mapping[str, Source]
    skills: Mapping[str, Source]
    overrides: tuple[str, ...]
    moved: tuple[str, ...]


def asking_for_pairs(
    cfgs: Sequence[Tree], products: Sequence[tuple[str, ...]], given: Sequence[str]
) -> list[tuple[Tree, bool]]:
    """Return each config with whether it asks for a pair, and does not just have the default one.

    Under family=local the pairs of a sweep are those whose experts are named so; if none is, all experts stand for it.

    Args:
        products: what the configs are composed of. `given`: the keys that the command line names.
    """
    asks = [bool(_PAIR & {text.partition("=")[0] for text in product}) for product in products]
    if _PAIR & {*given} or not any(map(_is_free, (cfg["family"] for cfg in cfgs))):
        return list(zip(cfgs, asks, strict=True))
    held = [{*_texts(cfg["family"]["experts"]), "base"} >= {*cfg["pair"]["experts"]} for cfg in cfgs]
    fits = [one and asking for one, asking in zip(held, asks, strict=True)]
    every = zip(cfgs, asks, fits, strict=True)
    return [(cfg, fit) for cfg, asking, fit in every if fit or not (asking and any(fits))]


def _is_free(family: Tree) -> bool:
    """Tell whether a family is whatever it is given: the default pair has nothing to do with its experts."""
    return family["name"] == "local" or isinstance(family["experts"], list)


def chosen(cfg: Tree, asks: bool, config_dirs: Sequence[Path]) -> Experts:
    """Return the experts of a composed config; `asks`: for a pair (see `asking_for_pairs`).

    Raises:
        M3Error: they are no models, or the pair names one that the family does not have.
    """
    family, pair = cfg["family"], cfg["pair"]
    base, texts = source(family["base"], "family.base"), _texts(family["experts"])
    known, is_free = {"base": base, **texts}, _is_free(family)
    wanted = list(texts) if is_free and not asks else _wanted(cfg, known, config_dirs)
    shown = [name if is_free else _shown(name, known[name], base, cfg, config_dirs) for name in wanted]
    models = [parse_source(known[name]) for name in wanted]
    is_pair = shown == pair_experts(str(pair["name"]), config_dirs) and (asks or not is_free)
    whole = family["name"] == "local" and wanted == list(texts)
    return Experts(
        pair=str(pair["name"]) if is_pair else "_".join(shown),
        sources=dict(zip(shown, models, strict=True)),
        skills={} if isinstance(family["experts"], list) else dict(zip(wanted, models, strict=True)),
        overrides=() if whole or (is_pair and not is_free) else (by_name(wanted),),
        moved=tuple(_moved(base, family["experts"], {name: known[name] for name in wanted})),
    )


def by_name(names: Sequence[str]) -> str:
    """Return the override that asks for some experts of a family."""
    return f"pair.experts=[{','.join(map(word, names))}]"


def _texts(experts: object) -> dict[str, str]:
    """Return the experts of a family as they are written, by name."""
    if isinstance(experts, dict) and experts:
        return {str(name): source(text, f"family.experts.{name}") for name, text in experts.items()}
    if not isinstance(experts, list):
        raise M3Error(f"family.experts={experts} is not a list: give 'family.experts=[A,B]'")
    found = [source(item, "family.experts") for item in experts]
    if not found:
        raise M3Error("family.experts is empty: give 'family.experts=[A,B]'")
    for one in map(",".join, itertools.pairwise(found)):
        if exists(Path(one)):
            raise M3Error(f"family.experts is split at the comma in {one}; such a path is quoted: {quoted(one)}")
    return dict(zip(path_names(found), found, strict=True))


def path_names(texts: Sequence[str]) -> list[str]:
    """Name models by their last folders, by more of them where those are alike: of a/sft and b/sft a_sft and b_sft."""
    parts = [_parts(text) for text in texts]
    for depth in range(1, 4):
        names = ["_".join(one[-depth:]) for one in parts]
        if len({*names, *TAKEN}) == len(names) + len(TAKEN):
            return names
    return [f"{one[-1]}_{number}" for number, one in enumerate(parts)]


def _parts(text: str) -> list[str]:
    """Return the folders of a model (of an adapter, where it has one), the last of them without its suffix `.gguf`."""
    model = parse_source(text)
    place = str(absolute(Source(model.adapter or model.location)).location)
    return [part for part in os.path.normpath(place.removesuffix(".gguf")).split("/") if part]


def _wanted(cfg: Tree, known: Mapping[str, str], config_dirs: Sequence[Path]) -> list[str]:
    """Return the names of the experts that the pair of a config holds; all of them must be known."""
    pair, family = cfg["pair"], cfg["family"]["name"]
    if not isinstance(pair["experts"], list) or not pair["experts"]:
        raise M3Error(f"pair.experts={pair['experts']} is not a list of experts: give pair.experts=[A,B]")
    wanted = [str(name) for name in pair["experts"]]
    if twice := [name for name in wanted if wanted.count(name) > 1]:
        raise M3Error(f"pair.experts names {twice[0]!r} twice: name each expert once")
    for name in wanted:
        if name not in known:
            fitting = [one for one in names("pair", config_dirs) if {*pair_experts(one, config_dirs)} <= known.keys()]
            fitting.sort(key=lambda one: -len(pair_experts(one, config_dirs)))
            use = f": give pair={' or '.join(fitting[:4])}" if fitting else f": give {by_name(list(known)[1:])}"
            use = ": leave pair= out, or name them so in family.experts={NAME: A, ...}" if family == "local" else use
            raise M3Error(f"pair.experts names {name!r}; family={family} has {', '.join(known)}{use}")
    return wanted


def _shown(name: str, text: str, base: str, cfg: Tree, config_dirs: Sequence[Path]) -> str:
    """Return what an expert is called: its name, or that of its path where it is not the one that the family names."""
    family = next((load_yaml(file) for file in files("family", config_dirs) if file.stem == cfg["family"]["name"]), {})
    written = str((family.get("experts") or {}).get(name, text)).replace("${family.base}", base)
    if name == "base" or written == text or "${" in written:
        return name
    (own,), (other,) = path_names([written]), path_names([text])
    return name if own == other else f"{name}-{other}" if other in cfg["family"]["experts"] else other


def _moved(base: str, experts: object, wanted: Mapping[str, str]) -> list[str]:
    """Return the overrides that give models by absolute paths where they are relative ones."""
    models = {"family.base": base}
    if isinstance(experts, dict):
        models |= {f"family.experts.{name}": text for name, text in wanted.items() if name != "base"}
    placed = {key: absolute(parse_source(text)) for key, text in models.items()}
    moved = [override(key, str(placed[key])) for key in models if placed[key] != parse_source(models[key])]
    if isinstance(experts, list):
        listed = [parse_source(source(item, "family.experts")) for item in experts]
        if [*map(absolute, listed)] != listed:
            moved.append(f"family.experts=[{','.join(quoted(str(absolute(one))) for one in listed)}]")
    return moved

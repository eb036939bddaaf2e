"""Config -> Plan: everything random or defaulted is resolved here, before a weight is read.

Two requests that mean the same weights get the same recipe (`merging.canonical`) and become one cell with several
labels: it is merged and evaluated once, and the plan's notes say what collapsed.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from m3_exp.command_line import override, word
from m3_exp.merging import part_words, sparsify
from m3_exp.merging.canonical import AVERAGE, canonical
from m3_exp.merging.mixtures import points
from m3_exp.merging.ratio import mask_seed, one_sided
from m3_exp.types import (
    Cell,
    Config,
    EvaluatorSpec,
    Label,
    M3Error,
    Parameter,
    Parameters,
    Plan,
    Recipe,
    Source,
    identity,
)

_TOLD = 6  # lines about one-sided draws


def build(configs: Sequence[Config]) -> Plan:
    """Resolve configs to distinct cells, in the order they were asked for.

    Raises:
        M3Error: configs that cannot share a plan (different engines), or impossible parameters.
    """
    if len({config.engine for config in configs}) > 1:
        raise M3Error("one request uses one engine: engine.* and dtype must be the same in all its parts")
    if any(config.tokenizer == "union" for config in configs):
        raise M3Error(
            "tokenizer=union makes a tokenizer of its own, for m3 merge: write the checkpoint, and run it as "
            "family=local pair=base family.base=DIR"
        )
    cells: dict[tuple[object, ...], Cell] = {}
    asked = 0
    for config in configs:
        benchmarks = [(e, identity(e), tokenizer(config, e)) for e in config.evaluators]
        for label, recipe in variants(config):
            weights = recipe.identity
            for evaluator, benchmark, whose in benchmarks:
                cell = Cell(recipe, evaluator, whose, (label,), merge_tokenizer(config), config.limit)
                key = weights, benchmark, whose, config.limit  # what `same` compares
                known = cells.get(key)
                if known is None:
                    cells[key] = cell
                elif label not in known.labels:
                    cells[key] = replace(known, labels=(*known.labels, label))
                else:
                    continue
                asked += 1
    plan = Plan(cells=tuple(cells.values()), engine=configs[0].engine, seed=configs[0].seed)
    return replace(plan, notes=(*_collapse_notes(plan, asked), *_one_sided_notes(plan, configs)))


def variants(config: Config) -> Iterator[tuple[Label, Recipe]]:
    """Give every recipe of a config in its canonical form, with the label that says how it was asked for.

    There is one for each mixture of the ratio and each draw of the sparsifier: 8 lambdas under 3 masks are 24.
    """
    single = len(config.experts) == 1
    chosen = config.sparsify
    label = Label(
        family=config.family,
        pair=config.pair,
        method="single" if single else config.method,
        ratio="plain" if single else config.ratio.name,
        sparsify="none" if single or chosen is None else chosen.name,
        params={} if single else config.params,
        overrides=config.overrides,
        config_dirs=config.config_dirs,
        model_paths=config.model_paths,
        experts=tuple(config.experts) if len(config.experts) > 2 else (),
    )
    recipe = Recipe(
        base=config.base,
        experts=tuple(config.experts.values()),
        method=AVERAGE if single else config.target,
        params=label.params,
        weights=(1.0,) if single else None,
        dtype=config.dtype,
        vocab=config.vocab,
        check_lineage=config.check_lineage,
    )
    if single:
        yield label, _canonical(recipe)
        return
    mixtures = points(config.ratio, len(config.experts), config.seed)
    for sparsifier in _sparsifiers(config):
        thinning = _keywords("sparsify", sparsify.shown(chosen.target, chosen.params)) if chosen else {}
        for mixture in mixtures:
            asked = replace(
                label,
                ratio="sampled" if mixture.sampled else label.ratio,
                alpha=mixture.alpha,
                draw=mixture.draw,
                lam=mixture.lam,
                mask_seed=_seed(sparsifier),
                axis_keywords={**_keywords("ratio", mixture.facts), **thinning},
                weights=() if mixture.weights is None or mixture.is_lam else mixture.weights,
                parts=mixture.parts,
            )
            asked_for = replace(recipe, weights=mixture.weights, parts=mixture.parts, sparsify=sparsifier)
            yield asked, _canonical(asked_for)


def alone(configs: Sequence[Config]) -> list[Config]:
    """Return each expert of the merges of some configs by itself, on the benchmarks of its merges: each once, of
    however many methods and ratios.
    """
    found: dict[tuple[object, ...], Config] = {}
    for config in (config for config in configs if len(config.experts) > 1):
        names = dict(zip(config.experts, config.skills or config.experts, strict=True))
        others = [text for text in config.overrides if not text.startswith("pair.")]
        is_own = config.family == "local" or len(others) < len(config.overrides)
        for shown, source in config.experts.items():
            how = (config.family, config.base, config.dtype, config.limit, *(one.text for one in config.evaluators))
            if (shown, source, *how) in found:
                continue
            words = (*others, *([f"pair.experts=[{word(names[shown])}]"] if is_own else []))
            single = replace(config, pair=shown, experts={shown: source}, skills={}, overrides=words)
            found[shown, source, *how] = single
    return list(found.values())


def _keywords(axis: str, params: Parameters) -> Parameters:
    return {f"{axis}.{key}": value for key, value in params.items()}


def _seed(sparsifier: Parameters | None) -> int | None:
    seed = (sparsifier or {}).get("seed")
    return seed if isinstance(seed, int) else None


def _canonical(recipe: Recipe) -> Recipe:
    form = canonical(recipe)
    return form if form.check_lineage == recipe.check_lineage else replace(form, check_lineage=recipe.check_lineage)


def _sparsifiers(config: Config) -> list[Parameters | None]:
    """Return a config's sparsifier as recipes hold it: once for each seed, or once if it draws nothing."""
    chosen = config.sparsify
    if chosen is None:
        return [None]
    seeds = range(config.draws) if config.mask_seed is None else ()
    drawn = [mask_seed(config.seed, draw) for draw in seeds] or [config.mask_seed or 0]
    sparsifiers = [sparsify.asked(chosen.target, chosen.params, seed) for seed in drawn]
    return [*(sparsifiers if "seed" in sparsifiers[0] else sparsifiers[:1])]


def tokenizer(config: Config, evaluator: EvaluatorSpec) -> Source:
    """Return whose tokenizer renders a benchmark's prompts: its skill's expert, else the pair's first one."""
    return config.skills.get(evaluator.skill) or merge_tokenizer(config)


def merge_tokenizer(config: Config) -> Source:
    """Return the model whose tokenizer, chat template and config go along with a checkpoint.

    `tokenizer=base`, `0`, `1` or its name name the base or an expert. With `none` only the first expert's config goes
    along, with `union` the base's.
    """
    if config.tokenizer in ("base", "union"):
        return config.base
    if config.tokenizer in config.experts:
        return config.experts[config.tokenizer]
    return list(config.experts.values())[0 if config.tokenizer == "none" else int(config.tokenizer)]


def merge_tokens(config: Config) -> str:
    """Return by whose tokens the rows of a checkpoint's vocabulary are laid out; empty where they stay as they are."""
    if config.tokenizer == "union":
        return config.tokenizer
    return str(merge_tokenizer(config)) if config.tokenizer in ("base", *config.experts) else ""


def _collapse_notes(plan: Plan, asked: int) -> tuple[str, ...]:
    if asked == len(plan.cells):
        return ()
    lines = [f"{asked - len(plan.cells)} of {asked} cells are the same as another and run once"]
    seen: set[tuple[str, ...]] = set()
    for cell in (cell for cell in plan.cells if len(cell.labels) > 1):
        shown = tuple(map(label_text, cell.labels))
        if shown not in seen:
            seen.add(shown)
            lines.append("  " + " = ".join(shown))
    return tuple(lines)


@dataclass(frozen=True, order=True)
class _Draw:
    """A draw of the experts' shares: the same in every method, pair and family."""

    alpha: float
    number: int
    shares: tuple[float, ...]

    def __str__(self) -> str:
        place = f"alpha {self.alpha:g}, draw {self.number}:"
        if len(self.shares) != 2:
            return place
        lam, other = self.shares
        return f"{place} lambda {f'{lam:.2g}' if lam < 0.5 else f'1 - {other:.2g}'}, that is"


def _one_sided_notes(plan: Plan, configs: Sequence[Config]) -> list[str]:
    """Name the draws of which one expert has more than 0.98: a line a draw, at most `_TOLD` lines."""
    experts = {config.pair: list(config.experts) for config in configs}
    by_draw: dict[_Draw, dict[str, str]] = {}
    for label in (label for cell in plan.cells for label in cell.labels):
        if label.alpha is not None and label.draw is not None and label.point:
            draw, said = _Draw(label.alpha, label.draw, label.point), one_sided(label.point, experts[label.pair])
            if said is not None:
                by_draw.setdefault(draw, {})[label.pair] = said
    lines = [_one_sided_line(draw, by_draw[draw]) for draw in sorted(by_draw)]
    if len(lines) <= _TOLD:
        return lines
    of_two = all(len(draw.shares) == 2 for draw in by_draw)
    those = "with lambda outside [0.02, 0.98]" if of_two else "that are over 98 % one expert"
    return [*lines[: _TOLD - 1], f"and {len(lines) - _TOLD + 1} more draws {those}"]


def _one_sided_line(draw: _Draw, said: Mapping[str, str]) -> str:
    """Write a one-sided draw on one line. `said` maps each pair to its words, as in `99.99 % math`."""
    if len(said) == 1:
        ((pair, share),) = said.items()
        return f"{pair}, {draw} {share}"
    pairs = {share: ", ".join(pair for pair in said if said[pair] == share) for share in said.values()}
    return f"{draw} {', '.join(f'{share} ({named})' for share, named in pairs.items())}"


def label_text(label: Label) -> str:
    """Write a label on one line, as in `lm_math ties(scaling=1, retain=0.7) mixup(alpha=0.5, draw 0, lambda=0.31)`.

    The text is kept beside the label, which the cells of a recipe share.
    """
    if "_text" not in vars(label):
        vars(label)["_text"] = _label_text(label)
    return str(vars(label)["_text"])


def _label_text(label: Label) -> str:
    mixture = [
        *([f"alpha={value_text(label.alpha)}"] if label.alpha is not None else []),
        *(f"{key}={value_text(value)}" for key, value in extra_keywords(label, "ratio").items()),
        *([f"draw {label.draw}"] if label.draw is not None else []),
        *([f"lambda={label.lam:.4g}"] if label.lam is not None else []),
        *([mixture_text(label)] if label.lam is None and label.weights and not label.parts else []),
        *([parts_text(label)] if label.parts and label.draw is None else []),
    ]
    ratio = " ".join(mixture) if label.lam is not None and len(mixture) == 1 else _with_arguments(label.ratio, mixture)
    parts = [
        label.pair,
        _with_arguments(label.method, [f"{key}={value_text(value)}" for key, value in label.params.items()]),
    ]
    parts += [ratio] if label.ratio != "plain" else []
    keywords = [f"{key}={value_text(value)}" for key, value in extra_keywords(label, "sparsify").items()]
    parts += [_with_arguments(label.sparsify, keywords)] if label.sparsify != "none" else []
    return " ".join(parts)


def extra_keywords(label: Label, axis: str) -> Parameters:
    """Return the keywords of a label's ratio or sparsifier that have no field of their own, as {"tilt": 0.3}."""
    prefix = f"{axis}."
    return {key.removeprefix(prefix): value for key, value in label.axis_keywords.items() if key.startswith(prefix)}


def mixture_text(label: Label) -> str:
    """Write a label's weights by the names of the experts, as in `0.2 lm + 0.3 math + 0.5 code`; "" for lambda or none.

    Two weights that are no shares of a whole, and those of labels without names, stand alone: `weights 0.5:0.3`.
    """
    if label.lam is not None or not label.weights or label.parts:
        return ""
    if len(label.experts) != len(label.weights):
        return f"weights {value_text(label.weights)}"
    return part_words.weights_text(label.weights, label.experts)


def parts_text(label: Label) -> str:
    """Write what a merge by part takes, as in `attention 0.3, rest plain`; "" for one that is not by part."""
    return part_words.text(label.parts, label.weights or None, label.experts) if label.parts else ""


def table_name(label: Label, axis: Literal["ratio", "sparsify"]) -> str:
    """Return how tables name a label's ratio or sparsifier, as in `largest (density 0.4)`.

    Weights that share no whole are part of it, `fixed (0.5 lm + 0.3 math + 0.3 code)`, and so are those of parts:
    `depth (0.2 to 0.8, rest 0.5)`.
    """
    name = label.ratio if axis == "ratio" else label.sparsify
    texts = [f"{key} {value_text(value)}" for key, value in extra_keywords(label, axis).items()]
    if axis == "ratio" and label.draw is None:
        texts += [parts_text(label), "" if label.point else mixture_text(label)]
    text = ", ".join(filter(None, texts))
    return f"{name} ({text})" if text else name


def _with_arguments(name: str, parts: Sequence[str]) -> str:
    return f"{name}({', '.join(parts)})" if parts else name


def value_text(value: Parameter) -> str:
    """Write a keyword's value as plans and tables name it: `null` for None, `''` for an empty text."""
    if isinstance(value, tuple):
        return ":".join(map(value_text, value))
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value) or "''"


def same(one: Cell, other: Cell) -> bool:
    """Tell whether two cells have the same identity. Their labels may differ."""
    keys = [identity(replace(cell, labels=(), home=cell.tokenizer)) for cell in (one, other)]
    return keys[0] == keys[1]


def merge_line(label: Label, recipe: Recipe) -> str:
    """Return the `m3 merge` command that rebuilds a row's weights exactly, in any directory.

    It gives the weights themselves, not the ratio that made them: that one may have drawn them, or made several.
    """
    line = ["m3", "merge", *(f"--config-dir={folder}" for folder in label.config_dirs), f"family={label.family}"]
    line += label.pair_words
    moved = {text.partition("=")[0] for text in label.model_paths}
    line += [text for text in label.overrides if text.partition("=")[0] not in moved]
    line += label.model_paths
    if label.method != "single":
        line += [f"method={label.method}", *_overrides("method", label.params)]
    if label.parts:
        line += ["ratio=parts", part_words.override(label.parts), override("ratio.rest", label.weights or "plain")]
    elif label.weights:
        line += ["ratio=fixed", override("ratio.weights", label.weights)]
    elif label.lam is not None:
        line += ["ratio=fixed", override("ratio.lam", label.lam)]
    if label.sparsify != "none" and recipe.sparsify is not None:
        line += [f"sparsify={label.sparsify}", *_overrides("sparsify", recipe.sparsify)]
    return " ".join(shlex.quote(text) for text in (*line, f"dtype={recipe.dtype}", "out=DIR"))


def _overrides(axis: str, params: Parameters) -> list[str]:
    return [override(f"{axis}.{key}", value) for key, value in sorted(params.items()) if key != "target"]

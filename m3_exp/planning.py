"""Config -> Plan: everything random or defaulted is resolved here, before a weight is read.

Two requests that mean the same weights get the same recipe (`merging.canonical`) and become one cell with several
labels: it is merged and evaluated once, and the plan's notes say what collapsed.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from m3_exp.merging import ratio as ratios
from m3_exp.merging.canonical import canonical
from m3_exp.types import Cell, Config, EvaluatorSpec, Label, M3Error, Plan, Recipe, Source, Sparsify, identity

_TOLD = 6  # lines about one-sided draws


@dataclass(frozen=True)
class Variant:
    """One recipe of a config in its canonical form, with the label that says how it was asked for."""

    label: Label
    recipe: Recipe


def build(configs: Sequence[Config]) -> Plan:
    """Resolve configs to distinct cells, in the order they were asked for.

    Raises:
        M3Error: configs that cannot share a plan (different engines), or impossible parameters.
    """
    if len({config.engine for config in configs}) > 1:
        raise M3Error("one request uses one engine: engine.* and dtype must be the same in all its parts")
    cells: dict[str, Cell] = {}
    asked = 0
    for config in configs:
        for variant in variants(config):
            for evaluator in config.evaluators:
                whose = tokenizer(config, evaluator)
                cell = Cell(variant.recipe, evaluator, whose, (variant.label,), merge_tokenizer(config), config.limit)
                key = identity(replace(cell, labels=(), home=whose))
                found = cells.get(key)
                asked += 1
                if found is None:
                    cells[key] = cell
                elif variant.label not in found.labels:
                    cells[key] = replace(found, labels=(*found.labels, variant.label))
                else:
                    asked -= 1
    plan = Plan(cells=tuple(cells.values()), engine=configs[0].engine, seed=configs[0].seed)
    return replace(plan, notes=(*_collapsed(plan, asked), *_one_sided(plan, configs)))


def variants(config: Config) -> Iterator[Variant]:
    """Give every recipe of a config: lambda draws or nodes x DARE masks."""
    names = list(config.experts)
    single = len(names) == 1
    label = Label(
        family=config.family,
        pair=config.pair,
        method="single" if single else config.method,
        ratio="plain" if single else config.ratio.name,
        sparsify="none" if single or config.dare is None else "dare",
        params={} if single else config.params,
        overrides=config.overrides,
    )
    recipe = Recipe(
        base=config.base,
        experts=tuple(config.experts.values()),
        method=config.target,
        params=config.params,
        dtype=config.dtype,
        vocab=config.vocab,
        check_lineage=config.check_lineage,
    )
    if single:
        average = "m3_exp.merging.methods.average:average"
        yield _variant(label, replace(recipe, method=average, params={}, weights=(1.0,)))
        return
    for sparsify in _masks(config):
        seed = sparsify.seed if sparsify else None
        for ratio_label, weights in _weights(config, label):
            yield _variant(replace(ratio_label, mask_seed=seed), replace(recipe, weights=weights, sparsify=sparsify))


def _variant(label: Label, recipe: Recipe) -> Variant:
    return Variant(label, replace(canonical(recipe), check_lineage=recipe.check_lineage))


def _masks(config: Config) -> list[Sparsify | None]:
    dare = config.dare
    if dare is None:
        return [None]
    seeds = [dare.seed] if dare.seed is not None else [ratios.mask_seed(config.seed, i) for i in range(dare.draws)]
    return [Sparsify(dare.drop_rate, seed) for seed in seeds]


def _weights(config: Config, label: Label) -> Iterator[tuple[Label, tuple[float, ...] | None]]:
    ratio = config.ratio
    if ratio.name == "plain":
        yield label, None
        return
    if len(config.experts) != 2:
        raise M3Error(f"ratio={ratio.name} takes two experts, {config.pair} has {len(config.experts)}: use ratio=plain")
    if ratio.name == "mixup":
        for draw in range(ratio.draws):
            lam = ratios.mixup(ratio.alpha, config.seed, draw)
            yield replace(label, alpha=ratio.alpha, draw=draw, lam=lam), (lam, 1.0 - lam)
        return
    for lam in (ratios.fixed(ratio.lam),) if ratio.name == "fixed" else ratios.grid(ratio.nodes):
        yield replace(label, lam=lam), (lam, 1.0 - lam)
    for draw, lam in enumerate(ratios.sampled(config.seed, ratio.sampled) if ratio.name == "grid" else ()):
        yield replace(label, ratio="sampled", draw=draw, lam=lam), (lam, 1.0 - lam)


def tokenizer(config: Config, evaluator: EvaluatorSpec) -> Source:
    """Return whose tokenizer renders a benchmark's prompts: its skill's expert, else the pair's first one."""
    if evaluator.skill in config.experts:
        return config.experts[evaluator.skill]
    return merge_tokenizer(config)


def merge_tokenizer(config: Config) -> Source:
    """Return whose tokenizer, template and config go along with a checkpoint (`tokenizer=base|none|0|1`; none: only the
    first expert's config).
    """
    if config.tokenizer == "base":
        return config.base
    return list(config.experts.values())[0 if config.tokenizer == "none" else int(config.tokenizer)]


def _collapsed(plan: Plan, asked: int) -> tuple[str, ...]:
    if asked == len(plan.cells):
        return ()
    lines = [f"{asked - len(plan.cells)} of {asked} cells are the same as another and run once"]
    seen: set[tuple[str, ...]] = set()
    for cell in plan.cells:
        shown = tuple(spelled(label) for label in cell.labels)
        if len(shown) > 1 and shown not in seen:
            seen.add(shown)
            lines.append("  " + " = ".join(shown))
    return tuple(lines)


@dataclass(frozen=True, order=True)
class _Draw:
    """A draw of lambda: the same in every method, pair and family."""

    alpha: float
    number: int
    lam: float

    def __str__(self) -> str:
        lam = f"{self.lam:.2g}" if self.lam < 0.5 else f"1 - {1 - self.lam:.2g}"
        return f"alpha {self.alpha:g}, draw {self.number}: lambda {lam}, that is"


def _one_sided(plan: Plan, configs: Sequence[Config]) -> list[str]:
    """Say which draws are all but one of their experts, a line for each draw, `_TOLD` lines at most."""
    experts = {config.pair: [_called(name) for name in config.experts] for config in configs}
    found: dict[_Draw, dict[str, str]] = {}
    for label in (label for cell in plan.cells for label in cell.labels):
        if label.alpha is not None and label.draw is not None and label.lam is not None:
            draw, said = _Draw(label.alpha, label.draw, label.lam), ratios.one_sided(label.lam, *experts[label.pair])
            if said is not None:
                found.setdefault(draw, {})[label.pair] = said
    lines = [_whose(draw, found[draw]) for draw in sorted(found)]
    if len(lines) <= _TOLD:
        return lines
    return [*lines[: _TOLD - 1], f"and {len(lines) - _TOLD + 1} more draws with lambda outside [0.02, 0.98]"]


def _whose(draw: _Draw, said: Mapping[str, str]) -> str:
    """Write a one-sided draw on one line: `said` is what it comes to in each pair."""
    if len(said) == 1:
        ((pair, share),) = said.items()
        return f"{pair}, {draw} {share}"
    pairs = {share: ", ".join(pair for pair in said if said[pair] == share) for share in said.values()}
    return f"{draw} {', '.join(f'{share} ({named})' for share, named in pairs.items())}"


def _called(expert: str) -> str:
    return f"expert {expert}" if expert.isdigit() else expert


def spelled(label: Label) -> str:
    """Write a label on one line, as in `lm_math ties(scaling=1, retain=0.7) mixup(alpha=0.5, draw 0, lambda=0.31)`."""
    params = ", ".join(f"{key}={value:g}" for key, value in label.params.items())
    text = f"{label.pair} {label.method}" + (f"({params})" if params else "")
    if label.ratio == "mixup":
        text += f" mixup(alpha={label.alpha:g}, draw {label.draw}, lambda={label.lam:.4g})"
    elif label.ratio == "sampled":
        text += f" sampled(draw {label.draw}, lambda={label.lam:.4g})"
    elif label.lam is not None:
        text += f" lambda={label.lam:.4g}"
    return text + (" dare" if label.sparsify == "dare" else "")


_AXES = ("pair", "method", "ratio", "sparsify", "evaluator")


def narrowed(overrides: Sequence[str], cell: Cell) -> list[list[str]]:
    """Return a request's overrides narrowed to one of its cells, the narrowest first, the request itself last.

    They choose among a sweep's values on each axis; a sweep that sets several benchmarks up by name cannot be narrowed
    to one of them, so take the first that composes. What it holds beside the cell (other draws, say) is cached.
    """
    label, benchmark = cell.labels[0], cell.evaluator.name
    axes = {} if label.family == "local" else {"pair": label.pair}
    if label.method != "single":
        axes |= {"method": label.method, "ratio": _choice(label), "sparsify": label.sparsify}
        axes |= {f"method.{key}": repr(value) for key, value in sorted(label.params.items())}
        axes |= {"ratio.alpha": f"{label.alpha:g}"} if label.alpha is not None else {}
        axes |= {"ratio.lam": repr(label.lam)} if label.ratio == "fixed" else {}
    line = [text for text in overrides if _stays(_key(text), label)] + [f"{key}={value}" for key, value in axes.items()]
    others = [text for text in line if _key(text) != "evaluator"]
    own = [t for t in others if not _key(t).startswith("evaluator.") or _key(t).split(".")[1] == benchmark]
    return [[*own, f"evaluator=[{benchmark}]"], line, list(overrides)]


def same(one: Cell, other: Cell) -> bool:
    """Tell whether two cells are the same, whatever they are called."""
    keys = [identity(replace(cell, labels=(), home=cell.tokenizer)) for cell in (one, other)]
    return keys[0] == keys[1]


def _choice(label: Label) -> str:
    """Return the choice of ratio that makes a label: sampled lambdas come with a grid."""
    return "grid" if label.ratio == "sampled" else label.ratio


def _key(override: str) -> str:
    return override.split("=", 1)[0]


def _stays(key: str, label: Label) -> bool:
    """Tell whether an override of a request says something about one of its cells that its axes do not say."""
    group, _, parameter = key.partition(".")
    if group not in _AXES or group == "evaluator":
        return True
    if group == "ratio":
        return parameter in {"mixup": ("draws",), "grid": ("nodes", "sampled")}.get(_choice(label), ())
    return parameter != "" and (group == "pair" or (group == "sparsify" and label.sparsify == "dare"))


def merge_line(label: Label, recipe: Recipe) -> str:
    """Return the `m3 merge` command that rebuilds a row's weights exactly."""
    parts = [f"m3 merge family={label.family}"]
    if label.family != "local":
        parts.append(f"pair={label.pair}")
    parts += [shlex.quote(override) for override in label.overrides]
    if label.method != "single":
        parts.append(f"method={label.method}")
        parts += [f"method.{key}={value!r}" for key, value in sorted(label.params.items())]
    if label.lam is not None:
        parts += ["ratio=fixed", f"ratio.lam={label.lam!r}"]
    if label.mask_seed is not None and recipe.sparsify is not None:
        parts += [
            "sparsify=dare",
            f"sparsify.drop_rate={recipe.sparsify.drop_rate!r}",
            f"sparsify.seed={label.mask_seed}",
        ]
    parts += [f"dtype={recipe.dtype}", "out=DIR"]
    return " ".join(parts)

"""Ratios: how much of each expert a merge takes. A ratio is a function named in yaml that returns mixtures.

    def mixup(n_experts, *, seed, alpha, draws) -> list[Mixture]

`seed` is the request's; the other keyword-only arguments are the ratio's own and come from its yaml. The shares
themselves are computed in `merging.simplex`, those of two experts in `merging.ratio`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from m3_exp.merging import simplex
from m3_exp.merging.plugins import PluginFunction, imported
from m3_exp.types import Choice, Drawn, M3Error, Parameter, Part, is_point

PLAIN = f"{__name__}:plain"
CURVE = Choice("grid", f"{__name__}:grid", {"nodes": None, "sampled": 16})  # what answers for every alpha
_MANY = 10_000  # draws: more is a slip of the pen


@dataclass(frozen=True)
class Mixture:
    """How much of each expert a merge takes: one weight an expert, or None for the method's own default.

    `draw` is the number of a random draw, 0 for the first; with `alpha` its shares are drawn from Dirichlet(alpha, ...,
    alpha), which is Beta(alpha, alpha) for two. `parts` have weights of their own, the first one that names a tensor;
    `weights` is for the rest of the model then. `sampled`: drawn beside the nodes of a grid, to correct its curve.
    `facts`: the ratio's keywords that tell two rows of a table apart, as {"tilt": 0.3}.
    """

    weights: tuple[float, ...] | None
    alpha: float | None = None
    draw: int | None = None
    sampled: bool = False
    facts: Mapping[str, Parameter] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if self.weights is not None:  # a list, or numbers of numpy, would not read back as they are printed
            object.__setattr__(self, "weights", tuple(float(weight) for weight in self.weights))
        object.__setattr__(self, "facts", dict(self.facts))
        number, whole = isinstance(self.alpha, float | int | None), isinstance(self.draw, int | None)
        if not number or not whole or (self.draw or 0) < 0:
            raise M3Error(f"{self} is no mixture: give a number as alpha, a whole number from 0 as draw, or None")
        if self.draw is None and (self.alpha is not None or self.sampled):
            raise M3Error(f"{self} is a draw without a number: give it draw=0, the next draw=1")
        if self.sampled and self.lam is None and not is_point(self.weights or ()):
            raise M3Error(f"{self} is sampled, but its weights are no shares: those of all experts must sum to 1")

    @property
    def lam(self) -> float | None:
        """The first expert's share, where two share the whole model."""
        if self.parts or self.weights is None or len(self.weights) != 2 or abs(sum(self.weights) - 1) > 1e-12:
            return None
        return self.weights[0]

    @property
    def is_lam(self) -> bool:
        """Whether lambda says the weights to the last digit."""
        return self.lam is not None and self.weights == (self.lam, 1.0 - self.lam)


def plain(n_experts: int, *, seed: int) -> list[Mixture]:
    """Return the method's own default."""
    return [Mixture(None)]


def fixed(n_experts: int, *, seed: int, lam: float, weights: tuple[float, ...] | None = None) -> list[Mixture]:
    """Return the weights as they are given: one an expert, or lambda, the first of two."""
    if weights is not None:
        return [Mixture(weights)]
    if n_experts != 2:
        some = ",".join(["0.5", *[f"{0.5 / max(1, n_experts - 1):.3g}"] * (n_experts - 1)])
        raise M3Error(f"ratio.lam is a share of two experts, there are {n_experts}: give ratio.weights=[{some}]")
    if not 0 <= lam <= 1:
        raise M3Error(f"ratio.lam={lam} is outside [0, 1]: lambda is the first expert's share")
    return [Mixture((lam, 1.0 - lam))]


def mixup(n_experts: int, *, seed: int, alpha: float, draws: int, per: str = "model") -> list[Mixture]:
    """Return M3's: shares ~ Dirichlet(alpha, ..., alpha), of two lambda ~ Beta(alpha, alpha); stratified draws.

    Each is one for the whole model, or (`per`) one for each block (decoder layer) or tensor; what lies in no block has
    that of the whole model.
    """
    if not 1 <= draws <= _MANY:
        raise M3Error(f"ratio.draws={draws} is out of range: give 1 to {_MANY}")
    drawn = [Mixture(simplex.mixup(n_experts, alpha, seed, k), alpha=alpha, draw=k) for k in range(draws)]
    return drawn if per == "model" else [_by_place(one, alpha, seed, per) for one in drawn]


def _by_place(mixture: Mixture, alpha: float, seed: int, per: str) -> Mixture:
    if per not in ("block", "tensor"):
        raise M3Error(f"ratio.per={per} is not known; allowed: model, block, tensor")
    drawn = Drawn(alpha, seed, mixture.draw or 0, "block" if per == "block" else "tensor")
    part = Part("blocks" if per == "block" else "all", drawn=drawn)
    return replace(mixture, parts=(part,), facts={"per": per})


def grid(n_experts: int, *, seed: int, nodes: int | None, sampled: int) -> list[Mixture]:
    """Return shares at fixed nodes, and `sampled` random ones that correct the curve or surface between the nodes.

    `nodes` is how many, None for 9 of two experts, 15 of three, and the least that a fitted surface needs of more.
    """
    return [
        *map(Mixture, simplex.grid(n_experts, nodes, seed)),
        *(Mixture(shares, draw=k, sampled=True) for k, shares in enumerate(simplex.sampled(n_experts, seed, sampled))),
    ]


def load(target: str) -> PluginFunction:
    """Import a ratio by `module:function`; it is not called.

    Raises:
        M3Error: there is no such function, or it is no ratio.
    """
    named = imported("ratio", target, PLAIN)
    if named.has_varargs or named.positional != ("n_experts",) or "seed" not in named.keywords:
        raise M3Error(f"ratio {target!r} is {named}: a ratio is NAME(n_experts, *, seed, ...) -> list[Mixture]")
    return named


def points(chosen: Choice, n_experts: int, seed: int) -> Sequence[Mixture]:
    """Return the mixtures of a ratio.

    Raises:
        M3Error: its parameters are impossible, or what it returns is no list of mixtures.
    """
    named = load(chosen.target)
    named.check("ratio", ["seed", *chosen.params], ())
    try:
        by_part = {"parts": chosen.parts} if chosen.parts else {}
        mixtures = named.function(n_experts, seed=seed, **chosen.params, **by_part)
    except M3Error:
        raise
    except (Exception, SystemExit) as error:  # a function of one's own may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise M3Error(f"ratio {chosen.target} cannot be asked for {n_experts} experts ({reason})") from error
    if not isinstance(mixtures, Sequence) or not mixtures or not all(isinstance(one, Mixture) for one in mixtures):
        raise M3Error(f"ratio {chosen.target} returned {type(mixtures).__name__}: a list of Mixture is needed")
    every = [weights for one in mixtures for part in (one, *one.parts) if (weights := part.weights) is not None]
    for weights in (weights for weights in every if len(weights) != n_experts):
        raise M3Error(f"ratio {chosen.target} gives {len(weights)} weights for {n_experts} experts: one each is needed")
    if any(one.sampled for one in mixtures) and chosen.target != CURVE.target:
        raise M3Error(f"ratio {chosen.target} gives sampled mixtures, which correct the curve of ratio=grid alone")
    for key, value in (fact for one in mixtures for fact in one.facts.items()):
        if key not in named.keywords or not isinstance(value, int | float | str | tuple | None):
            raise M3Error(f"ratio {chosen.target} has the fact {key}={value!r}: give its keywords, as numbers or texts")
    draws = [(one.draw, one.alpha, str(one.facts)) for one in mixtures if one.draw is not None]
    if (different := len({*draws})) < len(draws):
        raise M3Error(f"ratio {chosen.target} gives {len(draws)} draws {different} numbers: give each its own, from 0")
    return mixtures

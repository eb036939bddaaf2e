"""The algebra of recipes: what means the same weights is one recipe, and one key whatever the paths."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m3_exp.merging.canonical import AVERAGE, TASK_ARITHMETIC, canonical, recipe_key
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe, Source
from tests.models import TIES, Shape, fine_tuned, random_weights, write_model

MASKED = {"drop_rate": 0.2, "seed": 7}
BASE, A, B, C = Source("base"), Source("a"), Source("b"), Source("c")


def average(*weights: float, experts: tuple[Source, ...] = (A, B), **more: object) -> Recipe:
    return replace(Recipe(BASE, experts, AVERAGE, {}, weights or None), **more)


def task(scaling: float, *weights: float, experts: tuple[Source, ...] = (A, B), **more: object) -> Recipe:
    return replace(Recipe(BASE, experts, TASK_ARITHMETIC, {"scaling": scaling}, weights or None), **more)


def ties(*weights: float, experts: tuple[Source, ...] = (A, B)) -> Recipe:
    return Recipe(BASE, experts, TIES, {"scaling": 1.0, "retain": 0.7}, weights or None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (task(0.5), average()),  # TA(s=0.5) = average
        (task(1.0, 0.3, 0.7), average(0.3, 0.7)),  # equations 4 and 5 are one model
        (average(1.0, 0.0), average(1.0, experts=(A,))),  # M3 at lambda = 1 is the first expert
        (task(1.0, 0.0, 1.0), average(1.0, experts=(B,))),
        (average(0.3, 0.7), average(1 - 0.3, 1 - 0.7, experts=(B, A))),  # swap, and lambda -> 1 - lambda
        (ties(0.3, 0.7), ties(1 - 0.3, 1 - 0.7, experts=(B, A))),
        (ties(), ties(0.5, 0.5)),  # plain is the disjoint mean
        (ties(), ties(3.0, 3.0)),
        (average(sparsify={"drop_rate": 0.0, "seed": 7}), average()),  # DARE(p=0) = none
        (average(0.3, 0.7, sparsify=MASKED), task(1.0, 0.3, 0.7, sparsify=MASKED)),
        (task(2.0, 0.5, 0.0, sparsify=MASKED), task(1.0, 1.0, experts=(A,), sparsify=MASKED)),
        (average(0.4, 0.6, experts=(BASE, A)), task(0.6, experts=(A,))),  # the base's own delta is 0
        (ties(0.2, 0.8, experts=(A, BASE)), ties(experts=(A,))),
        (task(1.0, experts=(BASE,)), average(experts=(BASE,))),
        (task(0.0), average(1.0, experts=(BASE,))),
        (average(experts=(A, A)), average(1.0, experts=(A,))),
        (average(check_lineage=False), average()),
        (average(0.2, 0.3, 0.5, experts=(A, B, C)), task(0.1, 5, 2, 3, experts=(C, A, B))),
    ],
)
def test_same_weights_same_recipe(one: Recipe, other: Recipe) -> None:
    assert canonical(one) == canonical(other)
    assert canonical(canonical(one)) == canonical(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (task(1.0), average()),  # plain task arithmetic adds both deltas whole
        (ties(1.0, 0.0), average(1.0, experts=(A,))),  # TIES stays TIES at the ends
        (ties(1.0, 0.0), ties(1.0, experts=(A,))),
        (ties(0.3, 0.7), ties(0.7, 0.3)),
        (average(0.3, 0.7), average(0.7, 0.3)),
        (average(sparsify=MASKED), average(sparsify={"drop_rate": 0.2, "seed": 8})),
        (average(1.0, 0.0, sparsify=MASKED), average(1.0, experts=(A,))),  # DARE changes a single expert
        (average(), average(dtype="float16")),
        (average(0.5, 0.5), average(0.5 + 1e-9, 0.5 - 1e-9)),
    ],
)
def test_other_weights_other_recipe(one: Recipe, other: Recipe) -> None:
    assert canonical(one) != canonical(other)


def test_forms() -> None:
    assert canonical(task(0.5)) == Recipe(BASE, (A, B), AVERAGE, {}, (0.5, 0.5))
    assert canonical(task(0.7)) == Recipe(BASE, (A, B), TASK_ARITHMETIC, {"scaling": 1.0}, (0.7, 0.7))
    assert canonical(task(0.0)) == Recipe(BASE, (BASE,), AVERAGE, {}, (1.0,))


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (replace(average(), params={"retain": 0.5}), ["average", "retain", "allowed are none", "ties"]),
        (replace(task(1.0), params={}), ["task_arithmetic", "method.scaling"]),
        (replace(ties(), params={"scaling": 1.0, "retain": 0.0}), ["retain=0.0", "above 0"]),
        (replace(ties(), params={"scaling": float("nan"), "retain": 0.5}), ["scaling=nan", "finite"]),
        (replace(average(), method="m3_exp.merging.methods.slurp:slurp"), ["slurp", "average", "ties"]),
        (average(0.5), ["1 weights", "2 experts"]),
        (average(float("inf"), 0.0), ["finite"]),
        (average(1.0, -1.0), ["sum to 0"]),
        (average(sparsify={"drop_rate": 1.0, "seed": 0}), ["drop_rate=1.0", "below 1"]),
        (average(dtype="int8"), ["dtype=int8", "bfloat16"]),
        (average(experts=()), ["at least one expert"]),
    ],
)
def test_refusals(recipe: Recipe, words: list[str]) -> None:
    with pytest.raises(M3Error) as caught:
        canonical(recipe)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_key_sees_content_not_paths(tmp_path: Path) -> None:
    store, base = Store(tmp_path / "store"), random_weights(Shape(), 0)
    write_model(tmp_path / "base", base)
    write_model(tmp_path / "a", fine_tuned(base, 1))
    write_model(tmp_path / "b", fine_tuned(base, 2))
    shutil.copytree(tmp_path / "a", tmp_path / "zz-other-name")
    write_model(tmp_path / "a-sharded", fine_tuned(base, 1), shards=4)
    source = {name: Source(str(tmp_path / name)) for name in ("base", "a", "b", "zz-other-name", "a-sharded")}

    def key(first: str, second: str, lam: float, method: str = TIES, base: str = "base") -> str:
        params = {"scaling": 1.0, "retain": 0.7} if method == TIES else {}
        experts = (source[first], source[second])
        return recipe_key(Recipe(source[base], experts, method, params, (lam, 1 - lam)), store)

    for method in (TIES, AVERAGE):
        same = {key("a", "b", 0.3, method), key("b", "zz-other-name", 0.7, method), key("a-sharded", "b", 0.3, method)}
        assert len(same) == 1
        assert key("a", "b", 0.7, method) not in same
    assert key("a", "b", 0.3, AVERAGE, base="zz-other-name") == key("a", "b", 0.3, AVERAGE)  # it is not in the weights
    assert key("a", "b", 0.3, TIES, base="zz-other-name") != key("a", "b", 0.3, TIES)
    assert key("a", "a-sharded", 0.3, AVERAGE) == key("a", "zz-other-name", 1.0, AVERAGE)


@pytest.mark.parametrize("n", [2, 3, 5, 8])
@pytest.mark.parametrize("method", [AVERAGE, TASK_ARITHMETIC, TIES])
def test_random_shares_of_any_number_of_experts_stay_what_they_are(n: int, method: str) -> None:
    """Rounded to 12 decimals they need not sum to 1: in canonical form once more, they are the same."""
    random = np.random.default_rng(n)
    params = {AVERAGE: {}, TASK_ARITHMETIC: {"scaling": 1.0}, TIES: {"scaling": 1.0, "retain": 0.7}}[method]
    for shares in random.dirichlet([0.5] * n, size=300):
        experts = tuple(Source(name) for name in "abcdefgh"[:n])
        form = canonical(Recipe(BASE, experts, method, params, tuple(map(float, shares))))
        assert form.method == (TIES if method == TIES else AVERAGE)
        again = canonical(replace(form, base=Source("other")))
        assert again == replace(form, base=Source("other"))
        turned = canonical(replace(form, experts=form.experts[::-1], weights=(form.weights or ())[::-1]))
        assert turned == form

"""fisher and regmean: their formulas in float64, fusion_bench's numbers, and merges by statistics in a store."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from m3_exp import config
from m3_exp.merging.canonical import canonical, recipe_key
from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.methods import Measured, load
from m3_exp.merging.statistics.kept import write_part
from m3_exp.merging.statistics.wanted import Wanted, wanted
from m3_exp.merging.stream import stream, write
from m3_exp.planning import build, label_text, merge_line
from m3_exp.store import Measured as Record
from m3_exp.store import Store
from m3_exp.types import M3Error, Part, Recipe, Source
from m3_exp.upkeep.files import check
from m3_exp.upkeep.reader import Shelf
from tests.models import Shape, Weights, fine_tuned, linear_shapes, random_weights, resized, write_model

SMALL = Shape(vocab=270, hidden=16, inner=24, layers=2)
SETTINGS = {"sequences": 4.0, "length": 8.0}
NAMES = ("fisher", "regmean")
STATISTIC = {"fisher": "fisher", "regmean": "grams"}


def merged(
    name: str, models: Sequence[Tensor], values: Sequence[Tensor] | None, weights: Sequence[float] | None = None,
    norms: Sequence[float] = (), **params: float | str,
) -> Tensor:  # fmt: skip
    method = load(f"m3_exp.merging.methods.{name}:{name}")
    measured = None if values is None else Measured(values, tuple(norms or [1.0] * len(models)))
    keywords = method.keywords({**SETTINGS, **params})
    kept = [one.clone() for one in (*models, *(values or ()))]
    out: Tensor = method.named.function(models, weights, measured, **keywords)
    assert all(map(torch.equal, kept, (*models, *(values or ()))))  # its arguments stay
    assert out.dtype == torch.float32
    return out


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def element(i: int, r: int, c: int, shift: int) -> float:
    return math.sin(1 + 5 * i + 3 * r + 7 * c + r * c * (i + 1) + shift)


def matrices(n: int, rows: int, columns: int, shift: int = 0) -> list[Tensor]:
    def matrix(i: int) -> list[list[float]]:
        return [[element(i, r, c, shift) for c in range(columns)] for r in range(rows)]

    return [torch.tensor(matrix(i), dtype=torch.float64) for i in range(n)]


# Of fusion_bench 0.2.33, in float64 and printed to six decimals: `merging_with_regmean_weights` of `matrices(3, 4, 3)`
# with the Gram matrices of `matrices(3, 6, 3, 2)`, at each reduce_non_diagonal_ratio; `merging_with_fisher_weights`
# with the squares of `matrices(3, 4, 3, 4)`, coefficients 0.2, 0.3, 0.5, with normalize_fisher_weight and without.
REGMEAN = {
    0.9: [[-0.119909, 0.475077, 0.360995], [0.175558, -0.754108, 0.838451], [-0.351913, -0.539764, -0.25709],
          [0.525377, 0.19904, -0.100652]],
    0.1: [[-0.085839, 0.3966, 0.442667], [0.194191, -0.703521, 0.796734], [-0.312904, -0.637708, -0.200324],
          [0.425074, 0.24296, -0.086194]],
}  # fmt: skip
FISHER = {
    "none": [[-0.168325, 0.517892, 0.421443], [0.288313, -0.790732, 0.855604], [-0.379978, -0.720209, -0.03332],
             [0.443617, -0.189302, 0.108549]],
    "norm": [[-0.343638, 0.493441, 0.381823], [0.462527, -0.825394, 0.832506], [-0.540758, -0.768246, -0.017889],
             [0.582666, -0.354746, 0.19742]],
}  # fmt: skip


@pytest.mark.parametrize("ratio", list(REGMEAN))
def test_regmean_is_that_of_fusion_bench(ratio: float) -> None:
    grams = [(x.T @ x / 6).float() for x in matrices(3, 6, 3, 2)]
    found = merged("regmean", [one.float() for one in matrices(3, 4, 3)], grams, off_diagonal=ratio)
    torch.testing.assert_close(found, torch.tensor(REGMEAN[ratio]), rtol=0, atol=2e-5)


@pytest.mark.parametrize("scale", list(FISHER))
def test_fisher_is_that_of_fusion_bench(scale: str) -> None:
    """Up to the 1e-6 that is added to each element there."""
    squares = [one**2 for one in matrices(3, 4, 3, 4)]
    models, values = ([one.float() for one in of] for of in (matrices(3, 4, 3), squares))
    norms = [float(one.norm()) for one in squares]
    found = merged("fisher", models, values, (0.2, 0.3, 0.5), norms, scale=scale)
    torch.testing.assert_close(found, torch.tensor(FISHER[scale]), rtol=0, atol=2e-4)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_fisher_formula(n: int) -> None:
    models, values = [drawn(i, 4, 7) for i in range(n)], [drawn(i + 50, 4, 7) ** 2 * 1e-9 for i in range(n)]
    weights = [(i + 1) / 4 for i in range(n)]
    up = sum(w * f.double() * m.double() for w, f, m in zip(weights, values, models, strict=True))
    expected = up / sum(w * f.double() for w, f in zip(weights, values, strict=True))
    torch.testing.assert_close(merged("fisher", models, values, weights), expected.float(), rtol=1e-6, atol=1e-7)
    moved = [value * 3.0 for value in values]
    torch.testing.assert_close(merged("fisher", models, moved, weights), expected.float(), rtol=1e-5, atol=1e-7)


def test_fisher_where_nothing_counts_is_the_average() -> None:
    models, values = [drawn(1, 6), drawn(2, 6)], [drawn(3, 6) ** 2, drawn(4, 6) ** 2]
    for value in values:
        value[2] = 0.0
    values[0][4] = 0.0
    found = merged("fisher", models, values, (0.3, 0.7))
    assert float(found[2]) == pytest.approx(float(0.3 * models[0][2] + 0.7 * models[1][2]), rel=1e-6)
    assert float(found[4]) == float(models[1][4])  # only the other expert's likelihood depends on it
    torch.testing.assert_close(merged("fisher", models, None, (0.3, 0.7)), 0.3 * models[0] + 0.7 * models[1])


@pytest.mark.parametrize("weights", [None, (0.2, 0.3, 0.5)])
def test_regmean_is_the_regression(weights: Sequence[float] | None) -> None:
    """With full Gram matrices: the least squares solution over all inputs, found here by a QR decomposition."""
    inputs, models = [drawn(i, 40, 6).double() for i in range(3)], [drawn(i + 9, 5, 6) for i in range(3)]
    roots = [math.sqrt(weight) for weight in weights or (1.0, 1.0, 1.0)]
    left = torch.cat([root * x for root, x in zip(roots, inputs, strict=True)])
    right = torch.cat([root * x @ w.double().T for root, x, w in zip(roots, inputs, models, strict=True)])
    expected = torch.linalg.lstsq(left, right, driver="gels").solution.T
    grams = [(x.T @ x / 40).float() for x in inputs]
    found = merged("regmean", models, grams, weights, off_diagonal=1.0)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)


def test_regmean_where_no_input_reaches_is_the_average() -> None:
    inputs, models = [drawn(i, 40, 6) for i in range(2)], [drawn(i + 9, 5, 6) for i in range(2)]
    for x in inputs:
        x[:, 3] = 0.0
    found = merged("regmean", models, [x.T @ x / 40 for x in inputs], (0.25, 0.75), off_diagonal=0.9)
    average = 0.25 * models[0] + 0.75 * models[1]
    torch.testing.assert_close(found[:, 3], average[:, 3])
    assert not torch.allclose(found[:, 2], average[:, 2], atol=1e-2)
    none = [torch.zeros(6, 6)] * 2
    torch.testing.assert_close(merged("regmean", models, none, (0.25, 0.75), off_diagonal=0.9), average)


@pytest.mark.parametrize("name", NAMES)
def test_of_equal_statistics_it_is_the_average_and_of_equal_models_the_model(name: str) -> None:
    models, x = [drawn(1, 5, 6), drawn(2, 5, 6)], drawn(3, 40, 6)
    value = x.T @ x / 40 if name == "regmean" else drawn(4, 5, 6) ** 2
    other = value + (torch.eye(6) if name == "regmean" else 1.0)
    params = {"off_diagonal": 0.9} if name == "regmean" else {}
    same = merged(name, models, [value, value], (0.3, 0.7), **params)
    torch.testing.assert_close(same, 0.3 * models[0] + 0.7 * models[1], rtol=1e-4, atol=1e-4)
    one = merged(name, [models[0], models[0]], [value, other], (0.3, 0.7), **params)
    torch.testing.assert_close(one, models[0], rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------- merges, by what is stored


def values_of(statistic: str, weights: Weights, seed: int) -> dict[str, Tensor]:
    """Return a statistic as it could be measured: of fisher without the head, of grams of the linear layers."""
    if statistic == "fisher":
        return {
            n: drawn(seed + i, *w.shape) ** 2 for i, (n, w) in enumerate(sorted(weights.items())) if "head" not in n
        }
    inputs = {name: drawn(seed + i, 64, width) for i, (name, (_, width)) in enumerate(linear_shapes(SMALL).items())}
    return {name: x.T @ x / 64 for name, x in inputs.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and three experts, of which b has more rows; a text; and a store that holds the experts' statistics."""
    root = tmp_path_factory.mktemp("measured")
    base = random_weights(SMALL, 0)
    (root / "text.txt").write_text("A text that nobody reads here.")
    write_model(root / "base", base, SMALL)
    for seed, name in enumerate("abc", 1):
        weights = fine_tuned(base, seed)
        write_model(root / name, weights if name != "b" else resized(weights, 275, 5), SMALL)
        for statistic in ("fisher", "grams"):
            put(root, name, statistic, seed)
    return root


def put(root: Path, name: str, statistic: str, seed: int) -> None:
    store, labels = Store(root / "store"), "model" if statistic == "fisher" else ""
    one = Wanted(statistic, Source(str(root / name)), str(root / "text.txt"), 4, 8, labels)
    values = values_of(statistic, load_file(root / name / "model.safetensors"), 100 * seed)
    write_part(store.statistic(one.key(store)) / "all.safetensors", values, {})
    norm = sum(float((value.double() ** 2).sum()) for value in values.values()) ** 0.5
    store.statistics.put(one.key(store), Record(statistic, "", "", 4, 8, ("all.safetensors",), norm, "cpu"))


def recipe(
    world: Path, name: str, experts: str, weights: Sequence[float] | None = None, **params: float | str
) -> Recipe:
    own = {"off_diagonal": 0.9} if name == "regmean" else {}
    given = {"text": str(world / "text.txt"), **SETTINGS, **own, **params}
    sources = tuple(Source(str(world / expert)) for expert in experts)
    target = f"m3_exp.merging.methods.{name}:{name}"
    return Recipe(Source(str(world / "base")), sources, target, given, weights and tuple(weights), dtype="float32")


def digest(world: Path, of: Recipe, block: int = 1 << 16, threads: int = 2) -> str:
    flow = stream(of, Store(world / "store"), block=block, threads=threads)
    for _ in flow:
        pass
    return flow.digest


@pytest.mark.parametrize("name", NAMES)
def test_each_tensor_is_what_the_function_makes_of_it(world: Path, name: str) -> None:
    weights, statistic = (0.3, 0.7), STATISTIC[name]
    flow = stream(recipe(world, name, "ac", weights), Store(world / "store"))
    output = dict(flow)
    files = [load_file(world / expert / "model.safetensors") for expert in "ac"]
    values = [values_of(statistic, one, 100 * seed) for one, seed in zip(files, (1, 3), strict=True)]
    params = {"off_diagonal": 0.9} if name == "regmean" else {}
    averaged = []
    for tensor, made in output.items():
        known = [value[tensor] for value in values if tensor in value]
        expected = merged(name, [one[tensor].float() for one in files], known or None, weights, **params)
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-6)
        averaged += [] if known else [tensor]
    assert flow.report["averaged"] == averaged
    assert averaged == ["lm_head.weight"] or name == "regmean"
    measured = flow.report["measured"]
    assert isinstance(measured, dict)
    assert [Path(expert).name for expert in sorted(measured)] == ["a", "c"]


@pytest.mark.parametrize("name", NAMES)
def test_no_order_block_or_thread_reaches_a_byte(world: Path, name: str) -> None:
    first = digest(world, recipe(world, name, "abc", (0.2, 0.3, 0.5)))
    assert digest(world, recipe(world, name, "cab", (0.5, 0.2, 0.3)), 77, 1) == first
    assert digest(world, recipe(world, name, "abc", (2.0, 3.0, 5.0))) == first  # weights are shares of their sum
    assert digest(world, recipe(world, name, "abc")) == digest(world, recipe(world, name, "abc", (3.0, 3.0, 3.0)))


def test_rows_that_an_expert_lacks_are_those_of_the_other(world: Path) -> None:
    output = dict(stream(recipe(world, "fisher", "ab"), Store(world / "store")))
    longer = load_file(world / "b" / "model.safetensors")["model.embed_tokens.weight"].float()
    torch.testing.assert_close(output["model.embed_tokens.weight"][270:], longer[270:], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_the_ends_are_the_experts_and_by_part(world: Path, name: str) -> None:
    average = "m3_exp.merging.methods.average:average"
    alone = canonical(replace(recipe(world, name, "a"), method=average, params={}, weights=(1.0,)))
    assert canonical(recipe(world, name, "ac", (1.0, 0.0))) == alone
    assert not wanted(recipe(world, name, "ac", (1.0, 0.0)))
    whole = [dict(stream(recipe(world, name, "ac", w), Store(world / "store"))) for w in ((0.2, 0.8), (0.6, 0.4))]
    by_part = replace(recipe(world, name, "ac", (0.6, 0.4)), parts=(Part("attention", (0.2, 0.8)),))
    for tensor, made in stream(by_part, Store(world / "store")):
        assert torch.equal(made, whole["self_attn" not in tensor][tensor]), tensor


def test_a_recipe_is_known_by_the_content_of_its_text(world: Path, tmp_path: Path) -> None:
    store, one = Store(world / "store"), recipe(world, "fisher", "ac")
    (tmp_path / "copy.txt").write_text((world / "text.txt").read_text())
    (tmp_path / "other.txt").write_text("Another text.")
    copied, other = (replace(one, params={**one.params, "text": str(tmp_path / f"{n}.txt")}) for n in ("copy", "other"))
    assert recipe_key(copied, store) == recipe_key(one, store) != recipe_key(other, store)
    changed = [{"sequences": 5.0}, {"length": 9.0}, {"labels": "text"}, {"scale": "norm"}]
    keys = {recipe_key(replace(one, params={**one.params, **params}), store) for params in changed}
    assert len(keys | {recipe_key(one, store)}) == 1 + len(changed)
    stated = replace(one, params={**one.params, "labels": "model", "scale": "none"})
    assert recipe_key(stated, store) == recipe_key(one, store)


def test_a_checkpoint_says_what_was_measured(world: Path, tmp_path: Path) -> None:
    (written,) = write(
        [recipe(world, "regmean", "ac")], [tmp_path / "out"], Store(world / "store"), Source(str(world / "a")),
        verify=False,
    )  # fmt: skip
    assert "model.norm.weight" in str(written.report["averaged"])
    said = "7 tensors are plain averages (embeddings, head, norms): nothing is measured of them"
    assert written.report["notes"] == [said]
    assert open_model(Source(str(tmp_path / "out")), Store(world / "store")).digest == written.digest


@pytest.mark.parametrize(
    ("params", "weights", "said"),
    [
        ({}, (1.5, -0.5), "take none below 0: give lambda from 0 to 1"),
        ({"labels": "mine"}, None, "method.labels=mine is not known: model or text is allowed"),
        ({"sequences": 2.5}, None, "method.sequences=2.5 is not a whole number"),
        ({"length": 1.0}, None, "method.length=1.0 is out of range"),
        ({"text": ""}, None, "method.text is no text"),
        ({"text": "/nowhere/text.txt"}, None, "/nowhere/text.txt does not exist"),
        ({"text": "wikitext"}, None, "method.text=wikitext is no calibration text"),
    ],
)
def test_refused(world: Path, params: dict[str, float | str], weights: Sequence[float] | None, said: str) -> None:
    with pytest.raises(M3Error, match=said) as refused:
        digest(world, recipe(world, "fisher", "ac", weights, **params))
    assert "\n" not in str(refused.value)


def test_a_sparsifier_and_a_model_without_tokenizer_are_refused(world: Path, tmp_path: Path) -> None:
    one = recipe(world, "fisher", "ac")
    with pytest.raises(M3Error, match=r"takes the experts themselves .* give sparsify=none"):
        canonical(replace(one, sparsify={"drop_rate": 0.2, "seed": 1}))
    write_model(tmp_path / "mute", fine_tuned(random_weights(SMALL, 0), 4), SMALL, tokenizer=False)
    with pytest.raises(M3Error, match="mute holds no tokenizer"):
        digest(world, replace(one, experts=(one.experts[0], Source(str(tmp_path / "mute")))))


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["pair=lm_math", "method=fisher", "method.sequences=8", "evaluator=[gsm8k]"]
    (cell,) = build(config.request(asked).configs).cells
    assert cell.recipe.params == {"sequences": 8.0, "length": 256.0}
    assert label_text(cell.labels[0]).endswith("fisher(sequences=8, length=256)")
    (cell,) = build(config.request([*asked, "method.text=own.txt", "method.labels=text"]).configs).cells
    assert cell.recipe.params["text"] == str(tmp_path / "own.txt")
    assert f"method.text={tmp_path / 'own.txt'}" in merge_line(cell.labels[0], cell.recipe)
    nodes = build(config.request([*asked, "ratio=grid", "ratio.nodes=3"]).configs).cells
    assert len(nodes) == 3
    with pytest.raises(M3Error, match=r"method\.labels=all is not known"):
        build(config.request([*asked, "method.labels=all"]).configs)
    with pytest.raises(M3Error, match="quoted"):
        build(config.request([*asked, "method.text=1e-4"]).configs)


def test_m3_verify_misses_a_file_of_a_statistic(tmp_path: Path) -> None:
    store, key = Store(tmp_path / "store"), "0" * 64
    part = store.statistic(key) / "all.safetensors"
    write_part(part, {"weight": torch.ones(3)}, {})
    store.statistics.put(key, Record("fisher", "", "", 4, 8, ("all.safetensors",), 1.0, "cpu"))
    looked = check(Shelf(store.root))
    assert (looked.faults, looked.notes) == ([], [])
    part.unlink()
    (fault,) = check(Shelf(store.root)).faults
    assert "its file all.safetensors is not there; remove it: it is made again" in str(fault)

"""What is measured of an expert on calibration text, against plain float64 passes through the whole model."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from m3_exp.command_line import ROOT
from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.statistics import text as calibration
from m3_exp.merging.statistics.cost import check_disk, cost, words
from m3_exp.merging.statistics.cost import forecast as forecast_of
from m3_exp.merging.statistics.kept import Statistic, find, is_whole, write_part
from m3_exp.merging.statistics.measuring import measure
from m3_exp.merging.statistics.process import ensure
from m3_exp.merging.statistics.wanted import Wanted
from m3_exp.merging.tokenizer import open_tokenizer
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe, Source, plain
from tests.models import Shape, fine_tuned, random_weights, write_model, write_tokenizer
from tests.test_layouts_by_architecture import ROWS, class_of, config_of

SHAPE = Shape(vocab=264, hidden=32, inner=48, layers=3)
COUNT, LENGTH = 5, 12
WORDS = "Each of 27 hens laid 3 eggs, so there were 81. A poem about the sea is not a proof! def f(x): return x\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("statistics")
    for name, shape in (("expert", SHAPE), ("tied", replace(SHAPE, tied=True))):
        write_model(root / name, fine_tuned(random_weights(shape, 0, torch.float32), 1), shape)
    (root / "text.txt").write_text(WORDS * 4)
    return root


def wanted(world: Path, statistic: str = "grams", expert: str = "expert", labels: str = "") -> Wanted:
    return Wanted(statistic, Source(str(world / expert)), str(world / "text.txt"), COUNT, LENGTH, labels)


@pytest.fixture(scope="module")
def store(world: Path) -> Store:
    return Store(world / "store")


def measured(one: Wanted, store: Store) -> Statistic:
    if find(store, one.key(store)) is None:
        measure(one, store)
    found = find(store, one.key(store))
    assert found is not None
    return found


def whole(world: Path, expert: str) -> tuple[Any, Tensor]:
    """Return the expert in float64, as transformers loads it, and the sequences, cut here."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(world / expert)
    ids = [*tokenizer(WORDS * 4).input_ids, 2]  # </s> ends the document
    pieces = len(ids) // LENGTH
    starts = [LENGTH * (i * pieces // COUNT) for i in range(COUNT)]
    model = AutoModelForCausalLM.from_pretrained(world / expert, dtype=torch.float64)
    return model, torch.tensor([ids[start : start + LENGTH] for start in starts])


def close(statistic: Statistic, expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        found = statistic.read(name, 0, value.numel()).view(value.shape).double()
        assert float((found - value).norm()) <= 1e-5 * float(value.norm()) + 1e-9 * statistic.record.norm, name


@pytest.mark.slow
@pytest.mark.parametrize("expert", ["expert", "tied"])
def test_grams_are_those_of_a_plain_forward_pass(world: Path, store: Store, expert: str) -> None:
    model, ids = whole(world, expert)
    sums: dict[str, Tensor] = {}

    def add(name: str) -> Any:
        def hook(module: Any, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            rows = arguments[0].reshape(-1, arguments[0].shape[-1])
            sums[name] = sums.get(name, torch.zeros(1, dtype=torch.float64)) + rows.T @ rows / (COUNT * LENGTH)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.register_forward_hook(add(f"{name}.weight"))
    with torch.no_grad():
        model(input_ids=ids)
    found = measured(wanted(world, "grams", expert), store)
    assert found.entries.keys() == sums.keys()
    assert len(sums) == 7 * SHAPE.layers
    close(found, {name: value.detach() for name, value in sums.items()})
    stored = sum(path.stat().st_size for path in store.statistic(wanted(world, "grams", expert).key(store)).iterdir())
    assert stored <= cost(wanted(world, "grams", expert), open_model(Source(str(world / expert)), store)).kept


def by_sequence(model: Any, ids: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return the mean of the squared gradients of each sequence's log-likelihood."""
    sums = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for row, following in zip(ids, targets, strict=True):
        model.zero_grad()
        likely = torch.log_softmax(model(input_ids=row[None]).logits[0], dim=-1)
        sum(likely[place, token] for place, token in enumerate(following.tolist())).backward()
        for name, parameter in model.named_parameters():
            sums[name] += parameter.grad**2 / len(ids)
    return {name: value.detach() for name, value in sums.items()}


@pytest.mark.slow
@pytest.mark.parametrize("expert", ["expert", "tied"])
def test_fisher_of_the_text_is_the_mean_of_squared_gradients(world: Path, store: Store, expert: str) -> None:
    """Of a tied embedding, both uses are one parameter."""
    model, ids = whole(world, expert)
    expected = by_sequence(model, ids, ids[:, 1:])
    found = measured(wanted(world, "fisher", expert, "text"), store)
    assert found.entries.keys() == expected.keys()
    close(found, expected)
    norm = sum(float((value**2).sum()) for value in expected.values()) ** 0.5
    assert found.record.norm == pytest.approx(norm, rel=1e-4)


@pytest.mark.slow
def test_fisher_of_the_model_draws_from_its_own_distribution(world: Path, store: Store) -> None:
    """Drawn tokens are not known here: over every head's bias-free gradient, E[F] is the exact Fisher of the model.

    Of the head's weights alone it has a closed form, sum over positions of (diag(p) - p p^T) h^2 on its diagonal.
    """
    model, ids = whole(world, "expert")
    expected = torch.zeros(SHAPE.vocab, SHAPE.hidden, dtype=torch.float64)
    with torch.no_grad():
        for row in ids:
            out = model.model(input_ids=row[None]).last_hidden_state[0, :-1]
            p = torch.softmax(out @ model.lm_head.weight.T, dim=-1)
            expected += torch.einsum("tv,th->vh", p * (1 - p), out**2) / COUNT
    found = measured(wanted(world, "fisher", "expert", "model"), store)
    drawn = found.read("lm_head.weight", 0, expected.numel()).view(expected.shape).double()
    assert float(drawn.sum() / expected.sum()) == pytest.approx(1, abs=0.25)
    other = measured(wanted(world, "fisher", "expert", "text"), store)
    assert not torch.equal(drawn.flatten().float(), other.read("lm_head.weight", 0, expected.numel()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "qwen2", "falcon", "opt", "mamba"])
def test_other_architectures(tmp_path: Path, kind: str) -> None:
    """Fisher of what transformers saves and loads: positions, windows, biases, layers of other kinds."""
    torch.manual_seed(0)
    more = {"num_key_value_heads": 2} if kind == "qwen2" else {}
    model = class_of(kind).from_config(config_of(kind, **more), dtype=torch.float32)
    model.save_pretrained(tmp_path / "model")
    write_tokenizer(tmp_path / "model", ROWS)
    (tmp_path / "text.txt").write_text(WORDS)
    one = Wanted("fisher", Source(str(tmp_path / "model")), str(tmp_path / "text.txt"), 2, 10, "text")
    found = measured(one, Store(tmp_path / "store"))
    loaded = class_of(kind).from_pretrained(tmp_path / "model", dtype=torch.float64)
    ids = torch.tensor(calibration.sequences(one.text, open_tokenizer(tmp_path / "model"), 2, 10))
    expected = by_sequence(loaded, ids, ids[:, 1:])
    short = {name.removeprefix(f"{loaded.base_model_prefix}."): value for name, value in expected.items()}
    assert found.entries.keys() <= expected.keys() | short.keys()
    assert len(found.entries) == len(expected)
    close(found, {name: (expected | short)[name] for name in found.entries})
    grams = replace(one, statistic="grams", labels="")
    if kind == "gpt2":
        with pytest.raises(M3Error, match=r"GPT2LMHeadModel has no torch\.nn\.Linear in its decoder layers"):
            measured(grams, Store(tmp_path / "store"))
    else:
        linear = {f"{n}.weight" for n, m in loaded.named_modules() if isinstance(m, torch.nn.Linear)}
        unused = {"backbone.layers.0.mixer.dt_proj.weight"}  # Mamba computes with that weight by itself
        measured_ones = {*measured(grams, Store(tmp_path / "store")).entries}
        assert measured_ones == linear - unused - {"lm_head.weight", "embed_out.weight"}


class Killed(BaseException):
    """The process ends here."""


def steps(one: Wanted, store: Store) -> Iterator[int]:
    """Measure, and be killed before step 0, 1, ... of what is left, until it is done; give how often it said a step."""
    for number in range(100):
        said = []

        def say(line: str, said: list[str] = said, number: int = number) -> None:
            said.append(line)
            if len(said) == 2 + number % 2:
                raise Killed

        try:
            measure(one, store, say)
        except Killed:
            yield len(said)
        else:
            return
    raise AssertionError("it does not get on")


@pytest.mark.slow
@pytest.mark.parametrize(("statistic", "labels"), [("grams", ""), ("fisher", "model")])
def test_killed_at_every_layer_it_goes_on_to_the_same_bytes(
    world: Path, store: Store, tmp_path: Path, statistic: str, labels: str
) -> None:
    one = wanted(world, statistic, "expert", labels)
    whole_one, again = measured(one, store), Store(tmp_path / "store")
    kills = sum(1 for _ in steps(one, again))
    assert kills >= SHAPE.layers
    found = find(again, one.key(again))
    assert found is not None
    for name in found.record.parts:
        folders = [each.statistic(one.key(each)) for each in (store, again)]
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert found.record == whole_one.record
    assert not (again.statistic(one.key(again)) / "scratch").exists()


@pytest.mark.slow
def test_a_child_killed_in_the_middle_and_one_that_goes_on(world: Path, store: Store, tmp_path: Path) -> None:
    one, again = wanted(world), Store(tmp_path / "store")
    question = json.dumps({"wanted": plain(one), "store": str(again.root)}).encode() + b"\n"
    command = [sys.executable, "-m", "m3_exp.merging.statistics.child"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(question)
        child.stdin.flush()
        for line in child.stdout:
            if b"layer 2" in line:
                child.send_signal(signal.SIGKILL)
    said: list[str] = []
    found = ensure(one, again, said.append)
    assert "forward, layer 1 of 3" not in said
    assert said[-1] == "forward, layer 3 of 3"
    expected = measured(one, store)
    for name, entry in found.entries.items():
        assert torch.equal(found.read(name, 0, entry.numel), expected.read(name, 0, entry.numel))
    assert not list(again.log.iterdir())


@pytest.mark.slow
def test_a_damaged_file_is_measured_again(world: Path, store: Store, tmp_path: Path) -> None:
    one, again = wanted(world), Store(tmp_path / "store")
    measure(one, again)
    folder = again.statistic(one.key(again))
    damaged = folder / "layer-00001.safetensors"
    data = damaged.read_bytes()
    damaged.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    assert not is_whole(damaged)
    assert find(again, one.key(again)) is None
    measure(one, again)
    assert damaged.read_bytes() == data


def test_what_a_key_is_made_of(world: Path, tmp_path: Path) -> None:
    """Not of paths: the same expert and text elsewhere have the same key."""
    store, one = Store(tmp_path / "store"), wanted(world)
    copy = tmp_path / "copy"
    write_model(copy, fine_tuned(random_weights(SHAPE, 0, torch.float32), 1), SHAPE)
    (tmp_path / "same.txt").write_text(WORDS * 4)
    assert replace(one, expert=Source(str(copy)), text=str(tmp_path / "same.txt")).key(store) == one.key(store)
    (tmp_path / "other.txt").write_text(WORDS * 5)
    write_model(tmp_path / "moved", fine_tuned(random_weights(SHAPE, 0, torch.float32), 2), SHAPE)
    respelled = tmp_path / "respelled"
    write_model(respelled, fine_tuned(random_weights(SHAPE, 0, torch.float32), 1), SHAPE, tokenizer=False)
    write_tokenizer(respelled, 263)
    others = [
        replace(one, text=str(tmp_path / "other.txt")),
        replace(one, expert=Source(str(tmp_path / "moved"))),
        replace(one, expert=Source(str(respelled))),
        replace(one, length=LENGTH + 1),
        replace(one, sequences=COUNT + 1),
        replace(one, statistic="fisher"),
        replace(one, statistic="fisher", labels="text"),
    ]
    assert len({other.key(store) for other in (one, *others)}) == 1 + len(others)


class Letters:
    """A tokenizer of which a token is a letter."""

    eos_token_id = 0

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


def test_a_text_is_cut_into_pieces_that_are_spread_over_it(tmp_path: Path) -> None:
    file = tmp_path / "text.jsonl"
    file.write_text('{"text": "abcdefg"}\n\n{"text": "hij", "id": 7}\n{"text": " "}\n')
    cut = calibration.sequences(str(file), Letters(), 2, 3)
    assert ["".join(map(chr, piece)) for piece in cut] == ["abc", "g\0h"]  # of abc def g0h ij0
    one = tmp_path / "text.txt"
    one.write_text("abcdefg")
    assert calibration.documents(str(one)) == ("abcdefg",)
    assert calibration.digest(str(one)) != calibration.digest(str(file))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.txt", None, "does not exist"),
        ("text.csv", "abc", "is no calibration text: give"),
        ("empty.txt", " \n", "holds no text to measure on"),
        ("empty.jsonl", '{"text": ""}\n', "holds no text to measure on"),
        ("bare.jsonl", '{"prompt": "a"}\n', r'bare.jsonl:1 has no "text"'),
        ("number.jsonl", '{"text": "a"}\n{"text": 3}\n', r'number.jsonl:2 has no "text"'),
        ("list.jsonl", "[1]\n", "holds an array, an object is needed"),
        ("broken.jsonl", "{\n", "is not valid JSON"),
        ("short.txt", "abcdefgh", "gives 3 sequences of 3 tokens, method.sequences=4 asks for more"),
    ],
)
def test_texts_that_are_refused(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(M3Error, match=said) as refused:
        calibration.sequences(str(tmp_path / name), Letters(), 4, 3)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "is no causal language model"),
        ({"architectures": ["NoSuchModel"], "model_type": "nosuch"}, "is no causal language model"),
        ({"intermediate_size": 40}, r"computes with .*gate_proj.weight \(40, 32\), which the checkpoint stores as"),
        ({"num_hidden_layers": 4}, "which the checkpoint lacks"),
    ],
)
def test_models_that_are_refused(world: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    folder = write_model(tmp_path / "model", random_weights(SHAPE, 0), SHAPE, **changes)
    with pytest.raises(M3Error, match=said) as refused:
        measure(replace(wanted(world), expert=Source(str(folder))), Store(tmp_path / "store"))
    assert "\n" not in str(refused.value)


def test_what_a_plan_says_of_it(world: Path, tmp_path: Path) -> None:
    """Passes, tokens and bytes follow from the sizes of the model."""
    store, one = Store(tmp_path / "store"), wanted(world, "fisher", "expert", "model")
    model = open_model(one.expert, store)
    elements = sum(entry.numel for entry in model.tensors.values())
    of_fisher = cost(one, model)
    assert (of_fisher.forward, of_fisher.backward, of_fisher.kept) == (2, 1, 4 * elements)
    of_grams = cost(wanted(world), model)
    assert (of_grams.forward, of_grams.backward) == (1, 0)
    assert of_grams.kept == 4 * SHAPE.layers * (6 * 32 * 32 + 48 * 48)
    params = {"text": one.text, "sequences": COUNT, "length": LENGTH}
    recipe = Recipe(one.expert, (one.expert, Source(str(world / "tied"))), FISHER, params, (0.5, 0.5))
    found = forecast_of([recipe, replace(recipe, weights=(0.2, 0.8))], store)
    assert [each.state for each in found] == ["to do", "to do"]
    assert words(found)[0].startswith(
        "fisher of 2 experts: 0 measured already; 2 forward passes and a backward one over 120"
    )
    with pytest.raises(M3Error, match=r"of disk, .* free: make room"):
        check_disk(replace(one, sequences=10**15), model, tmp_path)


FISHER = "m3_exp.merging.methods.fisher:fisher"


def test_what_is_not_finite_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(M3Error, match=r"layer-1 holds NaN or Inf"):
        write_part(tmp_path / "layer-1", {"weight": torch.tensor([1.0, float("nan")])}, {})
    assert not list(tmp_path.iterdir())

"""`chat_args`: arguments of a chat template, part of the prompts; and how settings name a cell and its answers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators.gsm8k import GSM8K
from m3_exp import chat, config, planning
from m3_exp.merging.tokenizer import open_tokenizer
from m3_exp.results import Results
from m3_exp.running import Outcome, Run
from m3_exp.store import Store
from m3_exp.types import M3Error
from tests.files import write_lines
from tests.models import SMALL, random_weights, write_model, write_tokenizer

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    "{% if enable_thinking is defined and enable_thinking is false %} no thought{% endif %}"
    "{% if words %} {{ words | join('+') }}{% endif %}{% if add_generation_prompt %} model:{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = random_weights(SMALL, seed=0, dtype=torch.float32)
    return write_model(tmp_path_factory.mktemp("chat_args") / "base", weights, SMALL, template=TEMPLATE)


@pytest.fixture(scope="module")
def items(model: Path) -> Path:
    return write_lines(
        model.parent / "items.jsonl", ({"question": f"{k} + 1?", "answer": f"#### {k + 1}"} for k in range(2))
    )


def request(model: Path, items: Path, store: Path, *settings: str) -> planning.Plan:
    line = [
        "family=local", f"family.base={model}", f"family.experts=[{model}]", "engine=transformers", "dtype=float32",
        "evaluator=[gsm8k]", f"items={items}", f"store={store}", "evaluator.gsm8k.max_tokens=4", *settings,
    ]  # fmt: skip
    return planning.build(config.request(line).configs)


def carried_out(planned: planning.Plan, store: Path) -> Outcome:
    return Run(planned, Store(store)).carry_out()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "t"
    folder.mkdir()
    write_tokenizer(folder, SMALL.vocab, TEMPLATE)
    return folder


@pytest.mark.slow
def test_arguments_reach_the_template(template: Path) -> None:
    plain = chat.render(template, ["hello"])
    both = chat.render(template, ["hello"], {"enable_thinking": False, "words": ["a", "b"]})
    decode = open_tokenizer(template).decode
    assert decode(both[0]) == decode(plain[0]).replace(" model:", " no thought a+b model:")


@pytest.mark.slow
def test_an_argument_that_the_template_does_not_read_is_refused(template: Path) -> None:
    with pytest.raises(M3Error, match=r"reads no 'enable_thinkng' .*it reads enable_thinking, words"):
        chat.render(template, ["hello"], {"enable_thinkng": False})


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"messages": []}, "chat_args.messages is not the template's own argument"),
        ({"x": 1, "tokenize": False}, "chat_args.tokenize is not the template's own argument"),
        ({"add_generation_prompt": False}, "chat_args.add_generation_prompt is not"),
        ({"conversation": []}, "chat_args.conversation is not"),
        ([1], "is not a mapping of names: give 'chat_args="),
        ("enable_thinking", "is not a mapping of names"),
        (True, "is not a mapping of names"),
        ({"a b": 1}, "is not a mapping of names"),
        ({1: 1}, "is not a mapping of names"),
        ({"x": float("nan")}, "holds more than plain values"),
        ({"x": {1, 2}}, "holds more than plain values"),
        ({"x": Path("a")}, "holds more than plain values"),
    ],
)
def test_what_is_no_argument_is_refused(found: Any, message: str) -> None:
    with pytest.raises(M3Error, match=message):
        GSM8K(chat_template=True, chat_args=found)


def test_without_a_chat_template_they_are_refused_and_none_are_none() -> None:
    with pytest.raises(M3Error, match=r"has no effect without chat_template=true"):
        GSM8K(chat_args={"enable_thinking": False})
    assert GSM8K(chat_args={}).chat_args is GSM8K(chat_args=None).chat_args is None


@pytest.mark.parametrize("setting", [
    "chat_args={enable_thinking: false}", "evaluator.gsm8k.chat_args={enable_thinking: false}",
    "chat_args={enable_thinking:false}",
])  # fmt: skip
def test_the_command_line(model: Path, items: Path, tmp_path: Path, setting: str) -> None:
    planned = request(model, items, tmp_path / "s", "chat_template=true", setting)
    assert planned.cells[0].evaluator.settings["chat_args"] == {"enable_thinking": False}
    spec = config.evaluator("gsm8k", [f"items={items}", "chat_template=true", setting])
    assert spec.settings["chat_args"] == {"enable_thinking": False}


def test_they_belong_to_the_cell(model: Path, items: Path, tmp_path: Path) -> None:
    args = ["{enable_thinking: false}", "null", "{enable_thinking: true}", "{}"]
    plans = [request(model, items, tmp_path, "chat_template=true", f"chat_args={a}") for a in args]
    desk = Results(Store(tmp_path), plans[0].engine)
    keys = [desk.cell_key(planned.cells[0]) for planned in plans]
    assert len(set(keys)) == 3
    assert keys[1] == keys[3]


@pytest.mark.slow
def test_they_belong_to_the_prompts(model: Path, items: Path, tmp_path: Path) -> None:
    args = ["{enable_thinking: false}", "null"]
    plans = [request(model, items, tmp_path, "chat_template=true", f"chat_args={a}") for a in args]
    desk = Results(Store(tmp_path), plans[0].engine)
    prompts = [[prompt.token_ids for prompt in desk.tasks.task(planned.cells[0]).prompts] for planned in plans]
    assert prompts[0] != prompts[1]


def test_a_default_and_its_value_are_one_cell(model: Path, items: Path, tmp_path: Path) -> None:
    def key(*settings: str) -> str:
        planned = request(model, items, tmp_path, *settings)
        return Results(Store(tmp_path), planned.engine).cell_key(planned.cells[0])

    assert key() == key("thought=keep") == key("thought=null") != key("thought=drop")
    assert key("chat_template=true") == key("chat_template=true", "thought=drop")
    assert key("chat_template=true") != key("chat_template=true", "thought=keep")


@pytest.mark.engine
@pytest.mark.usefixtures("living_engine")
def test_stored_answers_are_scored_again_without_generating(
    model: Path, items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    with monkeypatch.context() as before:
        before.setattr(GSM8K, "version", "0")
        old = request(model, items, store)
        assert carried_out(old, store).generated == 2
        assert Results(Store(store), old.engine).largest(old.cells[0]) is not None
    new = request(model, items, store)
    desk = Results(Store(store), new.engine)
    assert desk.largest(new.cells[0]) is None
    outcome = carried_out(new, store)
    assert (outcome.failures, outcome.generated, outcome.cached) == ((), 0, 0)
    found = desk.largest(new.cells[0])
    assert found is not None
    assert found.evaluator.version == GSM8K.version
    other = request(model, items, store, "thought=drop")
    assert desk.largest(other.cells[0]) is None
    assert carried_out(other, store).generated == 0
    assert len(list(Store(store).answer_sets)) == 1

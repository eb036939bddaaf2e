"""What plan and status know of prompts without a tokenizer: the digest that the store keeps of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from m3_exp import prompts
from m3_exp.store import Store
from m3_exp.tasks import Task, Tasks
from m3_exp.types import Cell, EvaluatorSpec, Json, M3Error, Recipe, Source, identity
from tests.files import write_lines
from tests.models import write_tokenizer

SETTINGS: list[Json] = [{"chat_template": True}, {"chat_template": True, "chat_args": {"words": "!"}}]
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}{{ words }}"


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    folder = tmp_path / "model"
    folder.mkdir()
    write_tokenizer(folder, 400, TEMPLATE)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"weights are not looked at")
    items = write_lines(tmp_path / "items.jsonl", ({"question": f"{k} + 1?", "answer": "#### 1"} for k in range(3)))
    source = Source(str(folder))
    spec = EvaluatorSpec("gsm8k", "evaluators.gsm8k:GSM8K", {}, str(items))
    return Cell(Recipe(source, (source,), "m3_exp.merging.methods.average:average"), spec, source, (), source)


def with_settings(cell: Cell, **settings: object) -> Cell:
    return replace(cell, evaluator=replace(cell.evaluator, settings=settings))


def edited(path: Path, change: Callable[[Json], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def by_hand(task: Task) -> str:
    pairs = zip(task.problems, task.prompts, strict=True)
    return identity([[problem.id, problem.row, prompt.token_ids] for problem, prompt in pairs])


def refuse(folder: Path) -> None:
    raise AssertionError(f"{folder} was opened")


@pytest.mark.slow
@pytest.mark.parametrize("chatted", [{}, *SETTINGS])
def test_a_known_digest_is_that_of_the_prompts(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chatted: Json
) -> None:
    asked, store = with_settings(cell, **chatted), Store(tmp_path / "store")
    first = Tasks(store).task(asked)
    assert first.items_digest == by_hand(first)
    with monkeypatch.context() as patched:
        patched.setattr(prompts, "open_tokenizer", refuse)
        again = Tasks(store).task(asked)
        assert again.items_digest == first.items_digest
        assert again.answers == 3
    assert again.prompts == first.prompts


def test_without_a_known_digest_the_tokenizer_is_opened(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "open_tokenizer", refuse)
    with pytest.raises(AssertionError, match="was opened"):
        Tasks(Store(tmp_path / "store")).task(cell)


def put(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


FILES: dict[str, Callable[[Path], object]] = {
    "an added token": lambda at: edited(at / "tokenizer.json", lambda v: v["model"]["vocab"].update({"<new>": 400})),
    "its settings": lambda at: edited(at / "tokenizer_config.json", lambda v: v.update(add_bos_token=True)),
    "the model's config": lambda at: edited(at / "config.json", lambda v: v.update(model_type="mistral")),
    "a file of no known name": lambda at: put(at / "emoji.map", "x"),
    "a further template": lambda at: put(at / "additional_chat_templates" / "tool.jinja", "x"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_changed_file_has_another_key(cell: Cell, tmp_path: Path, what: str) -> None:
    store = Store(tmp_path / "store")
    Tasks(store).task(cell)
    FILES[what](tmp_path / "model")
    Tasks(store).task(cell)
    assert len(list(store.rendered)) == 2


@pytest.mark.slow
def test_other_settings_and_items_have_other_keys(cell: Cell, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for other in (cell, *(with_settings(cell, **given) for given in SETTINGS), replace(cell, limit=2)):
        Tasks(store).task(other)
    assert len(list(store.rendered)) == 4


def test_another_version_of_transformers_renders_again(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    Tasks(store).task(cell)
    monkeypatch.setattr(prompts, "_versions", lambda: ["transformers 99"])
    Tasks(store).task(cell)
    assert len(list(store.rendered)) == 2


def test_weights_beside_a_tokenizer_do_not_matter(cell: Cell, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    Tasks(store).task(cell)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"others")
    Tasks(store).task(cell)
    assert len(list(store.rendered)) == 1


@pytest.mark.slow
def test_a_refused_prompt_is_not_remembered(cell: Cell, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for _ in range(2):
        with pytest.raises(M3Error, match="reads no 'wrods'"):
            Tasks(store).task(with_settings(cell, chat_template=True, chat_args={"wrods": 1}))
    assert list(store.rendered) == []

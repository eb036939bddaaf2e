"""Benchmarks that need the model to make their items; and prompts through a tokenizer's chat template."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from m3_exp import chat, config, planning
from m3_exp.config import ROOT
from m3_exp.results import Results
from m3_exp.running import Outcome, Run
from m3_exp.store import Store
from m3_exp.types import M3Error
from tests.models import SMALL, random_weights, write_model, write_tokenizer

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ strftime_now('%d %b %Y') }} {{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} <model>{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = random_weights(SMALL, seed=0, dtype=torch.float32)
    return write_model(tmp_path_factory.mktemp("asking") / "base", weights, SMALL, template=TEMPLATE)


def carried_out(model: Path, store: Path, *settings: str) -> tuple[Outcome, Results, planning.Plan]:
    conf = store.parent / "conf"
    (conf / "evaluator").mkdir(parents=True, exist_ok=True)
    lines = ["asking:", "  target: tests.asking:Asking", "  break_after: 9", "  chat_template: ${chat_template}"]
    (conf / "evaluator" / "asking.yaml").write_text("\n".join(lines) + "\n")
    line = [
        "family=local", f"family.base={model}", f"family.experts=[{model}]", "engine=transformers", "dtype=float32",
        "evaluator=[asking]", f"store={store}", *settings,
    ]  # fmt: skip
    planned = planning.build(config.request(line, config_dirs=[conf]).configs)
    run = Run(planned, Store(store))
    outcome = run.carry_out()
    return outcome, Results(Store(store), planned.engine), planned


@pytest.fixture(scope="module")
def whole(model: Path, living_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an undisturbed run."""
    store = tmp_path_factory.mktemp("whole") / "store"
    outcome, _, _ = carried_out(model, store)
    assert (outcome.failures, outcome.generated) == ((), 4 + 4 + 4)
    return store


@pytest.mark.engine
@pytest.mark.usefixtures("living_engine")
class TestPrepare:
    def test_items_are_made_once_frozen_and_scored(self, model: Path, whole: Path) -> None:
        again, desk, planned = carried_out(model, whole)
        assert (again.generated, again.cached, again.engine_starts) == (0, 1, 0)
        found = desk.get(desk.tasks.task(planned.cells[0]))
        assert found is not None
        assert sorted(score.id for score in found.scores) == [f"{i}@made" for i in range(4)]
        (held,) = desk.store.prepared.values()
        assert [p.row["text"] for p in held.problems] == [score.extracted for score in found.scores]

    def test_a_broken_preparation_is_a_failure_and_the_next_run_replays_its_questions(
        self, model: Path, whole: Path, tmp_path: Path
    ) -> None:
        broken, desk, planned = carried_out(model, tmp_path / "store", "evaluator.asking.break_after=1")
        assert [failure.reason for failure in broken.failures] == ["RuntimeError: killed"]
        assert (broken.generated, list(desk.store.prepared)) == (4, [])
        rest, desk, _ = carried_out(model, tmp_path / "store", "evaluator.asking.break_after=1")
        assert (rest.failures, rest.generated) == ((), 4 + 4)
        undisturbed = Results(Store(whole), planned.engine)
        results = [d.get(d.tasks.task(planned.cells[0])) for d in (undisturbed, desk)]
        assert results[0] is not None
        assert results[1] is not None
        assert results[0].scores == results[1].scores

    def test_an_operational_setting_is_not_part_of_a_results_identity(self, model: Path, whole: Path) -> None:
        again, _, _ = carried_out(model, whole, "evaluator.asking.break_after=5")
        assert (again.cached, again.generated) == (1, 0)

    def test_chat_template_is_another_prompt_and_another_cell(self, model: Path, whole: Path) -> None:
        _, plain_desk, plain = carried_out(model, whole)
        outcome, desk, chatted = carried_out(model, whole, "chat_template=true")
        assert (outcome.cached, outcome.failures) == (0, ())
        one, other = plain_desk.tasks.task(plain.cells[0]), desk.tasks.task(chatted.cells[0])
        assert one.prompts[0].token_ids != other.prompts[0].token_ids
        spelled = desk.tasks.prompts.tokenizer(other.cell.tokenizer).decode(other.prompts[0].token_ids)
        assert "26 Jul 2024" in spelled
        assert desk.cell_key(other.cell) != plain_desk.cell_key(one.cell)


def _tokenizer(folder: Path, template: str | None) -> Path:
    folder.mkdir()
    write_tokenizer(folder, SMALL.vocab, template)
    return folder


class TestChat:
    @pytest.mark.slow
    def test_a_template_that_never_ends_is_stopped(self, tmp_path: Path) -> None:
        endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        with pytest.raises(M3Error, match="took more than 5 s; use chat_template=false"):
            chat.render(_tokenizer(tmp_path / "t", endless), ["hello"], seconds=5)

    @pytest.mark.slow
    def test_a_template_cannot_reach_the_machine(self, tmp_path: Path) -> None:
        escape = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
        with pytest.raises(M3Error, match="unsafe"):
            chat.render(_tokenizer(tmp_path / "t", escape), ["hello"])

    @pytest.mark.slow
    def test_no_template_is_one_line(self, tmp_path: Path) -> None:
        folder = _tokenizer(tmp_path / "t", None)
        (folder / "chat_template.jinja").unlink()
        with pytest.raises(M3Error, match="has no chat template; use chat_template=false"):
            chat.render(folder, ["hello"])

    @pytest.mark.slow
    def test_the_child_imports_no_torch(self, tmp_path: Path) -> None:
        told = "print(sorted(name for name in sys.modules if name.startswith('torch.')))"
        program = f"import sys; from m3_exp import chat; chat._main(sys.argv[1]); {told}"
        done = subprocess.run(
            [sys.executable, "-c", program, str(_tokenizer(tmp_path / "t", TEMPLATE))],
            input='[["hello"], {}]', capture_output=True, text=True, cwd=ROOT, check=True,
        )  # fmt: skip
        assert done.stdout.endswith("]][]\n")

    def test_the_child_knows_no_keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "secret")
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        assert "secret" not in json.dumps(chat._environment())

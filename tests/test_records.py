"""What is stored is believed only as it was written, and only of the models and items that are there now."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evaluators.alpaca.transport import Replies
from m3_exp import cli, config
from m3_exp.engines import recorded
from m3_exp.engines.protocol import EngineDied
from m3_exp.engines.recorded import _read_lines
from m3_exp.merging import checkpoint
from m3_exp.merging.checkpoint import file_identity, open_model
from m3_exp.merging.stream import stream
from m3_exp.planning import build
from m3_exp.reading.records import read_record, sealed, unsealed
from m3_exp.results import look_up
from m3_exp.store import Journal, Store, dumps, write_atomic
from m3_exp.types import EngineSettings, M3Error, Prompt, Recipe, Sampling, Source
from tests.files import recorded_run, write_lines
from tests.models import TIES, Shape, random_weights, write_model, write_three
from tests.records import kind

# ----------------------------------------------------------------------------------------------------------- records


@pytest.mark.parametrize("value", [{}, {"a": 1.5, "b": ["é\ud800", None]}, {"n": {"x": True}}])
def test_a_record_comes_back_as_it_was_written(tmp_path: Path, value: Mapping[str, Any]) -> None:
    store = Store(tmp_path)
    kind(store, "results").put("k", value)
    assert kind(Store(tmp_path), "results").get("k") == value
    assert "checksum" in json.loads(kind(store, "results").path("k").read_bytes()), "it is JSON for others to read"


def test_no_changed_byte_of_a_record_is_believed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    kind(store, "results").put("k", {"score": 80.0, "n": 10})
    path = kind(store, "results").path("k")
    whole = path.read_bytes()
    changed = [whole[:i] + bytes([whole[i] ^ bit]) + whole[i + 1 :] for i in range(len(whole)) for bit in (1, 4, 32)]
    cut = [whole[:i] for i in range(len(whole) - 1)]
    for wrong in [*changed, *cut, whole + whole, whole + b" ", b"[]", b"null", b"80", b"\xff\xfe", b"[" * 100_000]:
        path.write_bytes(wrong)
        assert kind(store, "results").get("k") is None, wrong
        assert not path.exists(), "it was set aside"
        said = capsys.readouterr().err
        assert said.startswith(f"m3: {path} is damaged (")
        assert said.count("\n") == 1
    path.write_bytes(whole)
    assert kind(store, "results").get("k") == {"score": 80.0, "n": 10}


def test_a_record_under_another_ones_name_is_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kind(store, "scans").put("a", {"magnitude": 0.5})
    shutil.copy(kind(store, "scans").path("a"), kind(store, "scans").path("b"))
    assert kind(store, "scans").get("b") is None
    assert kind(store, "scans").get("a") == {"magnitude": 0.5}


def test_what_cannot_be_moved_away_is_named_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    kind(store, "results").put("k", {"n": 1})
    kind(store, "results").path("k").write_text('{"n": 2}')

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refused)
    assert kind(store, "results").get("k") is None
    assert kind(store, "results").get("k") is None
    assert capsys.readouterr().err.count("is damaged") == 1, "said once"


def test_a_store_of_before_is_read_but_for_what_changes_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_atomic(tmp_path / "format.json", b'{"format":1}')
    old = Store(tmp_path)
    kinds = ("results", "merges", "answer_sets", "prepared", "inputs", "scans")
    for name in kinds:
        write_atomic(kind(old, name).path("k"), b'{"a":1}\n')
    believed = [name for name in kinds if kind(old, name).get("k") == {"a": 1}]
    assert believed == ["results", "merges", "answer_sets", "prepared"]
    kind(old, "results").put("new", {"a": 2})
    path = kind(old, "results").path("new")
    path.write_bytes(path.read_bytes().replace(b'"a":2', b'"a":3'))
    assert kind(old, "results").get("new") is None, "what has a checksum is held to it"
    assert json.loads((tmp_path / "format.json").read_bytes()) == {"format": 3, "began": 1}
    assert kind(Store(tmp_path), "results").get("k") == {"a": 1}
    write_atomic(tmp_path / "format.json", b'{"format":2}')
    capsys.readouterr()
    assert kind(Store(tmp_path), "results").get("k") is None
    assert "it has no checksum" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"2", b"null", b"{}", b'{"format":"2"}', b'{"format":true}', b'{"format":0}', b"\xff\xfe\x00",
     b'{"format":2.0}', b'{"format":null}', b"[" * 100_000, b'{"format":' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_a_damaged_format_is_set_aside_and_written_again(
    tmp_path: Path, text: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    kind(store, "results").put("k", {"a": 1})
    (tmp_path / "format.json").write_bytes(text)
    assert kind(Store(tmp_path), "results").get("k") == {"a": 1}
    assert capsys.readouterr().err.count("\n") == 1
    assert json.loads((tmp_path / "format.json").read_bytes()) == {"format": 3}
    assert [path.read_bytes() for path in (tmp_path / "quarantine").iterdir()] == [text]
    Store(tmp_path)
    assert capsys.readouterr().err == ""


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    write_atomic(tmp_path / "format.json", b'{"format": 4}')
    with pytest.raises(M3Error, match="has format 4, this m3 writes format 3"):
        Store(tmp_path)


def test_where_nothing_can_be_written_a_store_serves_as_far_as_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with store.scan_lock("k"):
        kind(store, "scans").put("k", {"magnitude": 0.5})
        kind(store, "inputs").put("k", {"tensors": {}})
    assert kind(store, "scans").get("k") is None
    with pytest.raises(PermissionError, match="give a folder that you may write by store=DIR"):
        kind(store, "results").put("k", {"n": 1})


def test_terminal_codes_in_a_folders_name_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "a\x1b[31m\u202eb")
    kind(store, "results").put("k", {})
    kind(store, "results").path("k").write_text("")
    assert kind(store, "results").get("k") is None
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert r"a\x1b[31m\u202eb" in said


def test_a_kept_judgment_that_was_changed_is_asked_for_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {"key": "ab12", "choice": {"message": {"content": "first"}}}
    replies = Replies(tmp_path / "judgments")
    replies.put(kept)
    (path,) = replies.folder.rglob("*.json")
    assert replies.get("ab12") == kept
    path.write_bytes(path.read_bytes().replace(b"first", b"other"))
    assert replies.get("ab12") is None
    assert "is damaged" in capsys.readouterr().err
    path.write_text(json.dumps(kept))
    assert replies.get("ab12") == kept, "paid for before replies had a checksum"


def test_records_hold_any_json_text() -> None:
    for body in ("{}", '{"a":1}', '{"checksum!":1}', dumps({"é": "\n"})):
        assert unsealed(sealed(body, "k"), "k") == json.loads(body)


# ---------------------------------------------------------------------------------------------------------- journals


def written(folder: Path, count: int = 4) -> tuple[Path, bytes, list[dict[str, Any]]]:
    records = [{"id": f"item {i}", "text": f"answer {i}"} for i in range(count)]
    with Journal(folder) as journal:
        for record in records:
            journal.append(record)
    (path,) = folder.glob("*.jsonl")
    return path, path.read_bytes(), records


def test_a_damaged_line_is_set_aside_and_the_others_stand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, data, records = written(tmp_path / "k")
    wrong = data.replace(b"answer 1", b"answer 9")
    path.write_bytes(wrong)
    quarantine = tmp_path / "quarantine"
    assert Journal(tmp_path / "k", quarantine).read() == [records[0], *records[2:]]
    said = capsys.readouterr().err
    assert said.startswith(f"m3: {path}:2 holds a damaged line (checksum)")
    assert [copy.read_bytes() for copy in quarantine.iterdir()] == [wrong]
    assert Journal(tmp_path / "k", quarantine).read() == [records[0], *records[2:]]
    assert capsys.readouterr().err == "", "the damaged line is gone"


def test_no_changed_byte_of_a_journal_is_believed(tmp_path: Path) -> None:
    path, data, records = written(tmp_path / "k", 3)
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 9]) + data[place + 1 :])
        left = Journal(tmp_path / "k").read()
        assert all(record in records for record in left), place
        assert len(left) >= 1, place


def test_the_journal_of_a_living_writer_is_left_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(tmp_path) as journal:
        journal.append({"id": "a"})
        (path,) = tmp_path.glob("*.jsonl")
        with path.open("ab") as file:
            file.write(b"00000000 {}\n")
        journal.append({"id": "b"})
        assert Journal(tmp_path).read() == [{"id": "a"}, {"id": "b"}]
        assert "passed over" in capsys.readouterr().err
        journal.append({"id": "c"})
    assert Journal(tmp_path).read() == [{"id": "a"}, {"id": "b"}, {"id": "c"}]


# ------------------------------------------------------------------------------------------------- identity of inputs


def rewrite(path: Path, place: int, data: bytes) -> None:
    """Change bytes in place; size and modification time are as before."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_file_changed_in_place_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(1 << 20))
    before = file_identity(path)
    assert file_identity(path) == before
    rewrite(path, 300_000, b"\1")
    assert file_identity(path) != before


@pytest.mark.parametrize("place", [0, 4095, 131_072, 524_287, (1 << 20) - 1])
def test_the_sample_sees_what_times_do_not(tmp_path: Path, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(1 << 20))
    times = SimpleNamespace(st_dev=1, st_ino=2, st_size=1 << 20, st_mtime_ns=3, st_ctime_ns=4)
    monkeypatch.setattr(checkpoint.os, "stat", lambda _: times)
    before = file_identity(path)
    rewritten = bytearray(1 << 20)
    rewritten[place] = 1
    path.write_bytes(rewritten)
    assert file_identity(path) != before


def test_runs_and_cut_offs_of_the_old_weights_are_not_used(tmp_path: Path) -> None:
    recipe, store = ties_of_three(tmp_path), Store(tmp_path / "store")
    digests = [merged(recipe, store)]
    file = tmp_path / "a" / "model.safetensors"
    size = file.stat().st_size
    rewrite(file, size - 4096, torch.full((1024,), 0.5).numpy().tobytes())
    digests.append(merged(recipe, store))
    assert digests[1] == merged(recipe, Store(tmp_path / "fresh"))
    assert digests[1] != digests[0]


def ties_of_three(folder: Path) -> Recipe:
    base, *experts = (Source(str(path)) for path in write_three(folder, Shape(vocab=320), torch.float32))
    return Recipe(base, tuple(experts), TIES, {"scaling": 1.0, "retain": 0.3}, dtype="float32")


def merged(recipe: Recipe, store: Store) -> str:
    merge = stream(recipe, store)
    for _ in merge:
        pass
    return str(merge.digest)


def test_damaged_inputs_and_scans_are_made_again(tmp_path: Path) -> None:
    recipe, store = ties_of_three(tmp_path), Store(tmp_path / "store")
    true = merged(recipe, store)
    shapes: Sequence[Callable[[bytes], bytes]] = (
        lambda data: data.replace(b"0.", b"1.", 1),
        lambda data: data[: len(data) // 2],
        lambda data: b"null",
        lambda data: b"[1, 2]",
        lambda data: b'{"tensors": 3, "not_finite": false}',
        lambda data: b"",
    )
    for name in ("scans", "inputs"):
        for change in shapes:
            for path in sorted((store.root / name).glob("*.json")):
                path.write_bytes(change(path.read_bytes()))
            checkpoint._OPEN.clear()
            assert merged(recipe, store) == true
    assert open_model(recipe.base, store).digest == open_model(recipe.base, Store(tmp_path / "fresh")).digest


# ------------------------------------------------------------------------------------------------ results of items


class World:
    """Ten items of one's own, their recorded answers (the first six and the last two are right), and a store."""

    def __init__(self, folder: Path) -> None:
        self.items = folder / "items.jsonl"
        self.answers = folder / "answers.jsonl"
        self.store = folder / "store"
        self.model = write_model(folder / "model", random_weights(Shape(vocab=320), 0, torch.float32), Shape(vocab=320))
        self.give(range(10))
        right = [0, 1, 2, 3, 4, 5, 8, 9]
        with self.answers.open("w") as file:
            for i in range(14):
                number = 100 + i if i in right else 0
                line = {"benchmark": "gsm8k", "id": str(i), "text": f"The answer is: {number}"}
                file.write(json.dumps(line) + "\n")

    def give(self, numbers: Sequence[int], asked: str = "How much is {}?") -> None:
        rows = [{"question": asked.format(100 + i), "answer": f"So.\n#### {100 + i}"} for i in numbers]
        write_lines(self.items, rows)

    def overrides(self, *more: str) -> list[str]:
        settings = [f"items={self.items}", f"store={self.store}", "dtype=float32", "tracker=none"]
        return [*recorded_run(self.answers, self.model), *settings, "evaluator=[gsm8k]", *more]

    def run(self, *more: str) -> None:
        assert cli.main(["run", *self.overrides(*more)]) == 0

    def shown(self, *more: str) -> tuple[float | None, int] | None:
        """Return the score in percent and the number of items that tables show; None for a missing cell."""
        request = config.request(self.overrides(*more))
        (cell,) = look_up(build(request.configs), Store(request.store))
        return (cell.record.result.score, cell.record.result.n) if cell.record else None


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_result_of_items_that_changed_is_not_shown(world: World) -> None:
    world.run()
    assert world.shown() == (80.0, 10)
    world.give(range(8))
    assert world.shown() is None
    assert world.shown("limit=8") is None
    world.run()
    assert world.shown() == (75.0, 8)
    world.give(range(10), asked="What is {}?")
    assert world.shown() is None
    world.give(range(10))
    assert world.shown() == (80.0, 10)


def test_the_largest_first_part_of_the_items_is_shown(world: World) -> None:
    world.run("limit=4")
    part = world.shown()
    assert part is not None
    assert part[1] == 4
    assert world.shown("limit=4") == part
    assert world.shown("limit=5") is None
    world.run()
    assert world.shown() == (80.0, 10)
    assert world.shown("limit=4") == part
    assert world.shown("limit=40") == (80.0, 10)


def test_where_items_or_models_are_gone_the_store_is_believed(world: World) -> None:
    world.run()
    for path in world.model.iterdir():
        path.unlink()
    assert world.shown() == (80.0, 10), "items are compared without a tokenizer"
    request = config.request(world.overrides())
    world.give(range(8))
    assert world.shown() is None
    world.items.unlink()
    (cell,) = look_up(build(request.configs), Store(request.store))
    assert cell.record is not None
    assert cell.record.result.score == 80.0


def test_results_from_before_are_compared_by_their_prompts(world: World) -> None:
    world.run()
    store = Store(world.store)
    (path,) = (store.root / "results").glob("*/*.json")
    record = kind(store, f"results/{path.parent.name}").get(path.stem)
    assert record is not None
    del record["rows_digest"]
    write_atomic(path, dumps(record).encode())
    write_atomic(store.root / "format.json", b'{"format":1}')
    assert world.shown() == (80.0, 10)
    world.give(range(8))
    assert world.shown() is None


def test_a_digit_changed_in_a_result_is_not_printed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.run()
    (path,) = (world.store / "results").glob("*/*.json")
    path.write_bytes(path.read_bytes().replace(b'"score":80.0', b'"score":90.0'))
    capsys.readouterr()
    assert world.shown() is None
    assert "is damaged (its checksum does not match)" in capsys.readouterr().err
    world.run()
    assert world.shown() == (80.0, 10)
    (path.parent / "notes.json").write_text("my own")
    assert world.shown() == (80.0, 10), "a file of the user's is no result"


# ------------------------------------------------------------------------------------------------- recorded answers


def line(**fields: object) -> str:
    return json.dumps({"benchmark": "gsm8k", "id": "0", "text": "x", **fields}, ensure_ascii=False)


@pytest.mark.parametrize("text", ["a\u2028b", "a\u2029b\u0085c", "a\x1cb\x0bc\x0cd", "a\0b", "\ufeff", "", " ", "𝔘"])
def test_any_text_is_one_answer(tmp_path: Path, text: str) -> None:
    path = tmp_path / "answers.jsonl"
    raw = line(text=text) + "\n"
    for data in (raw, "\ufeff" + raw, raw.replace("\n", "\r\n"), f"\n{raw}\n", raw.rstrip("\n")):
        path.write_bytes(data.encode())
        found = _read_lines(path)[0]
        assert [(key, answer.text) for key, answer in found.items()] == [(("gsm8k/0", 0), text)]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds an array"),
        ("3", "holds the number 3"),
        ("null", "holds null"),
        ("\0", "not valid JSON"),
        ('{"benchmark": "gsm8k", "id": "0", "text": "a\0b"}', "not valid JSON"),
        ('{"benchmark": "gsm8k", "id": "0"}', "text is missing"),
        ('{"id": "0", "text": "x"}', "benchmark is missing"),
        (line(text=None), "text must be a text"),
        (line(text=3), "text must be a text"),
        (line(text=["x"]), "text must be a text"),
        (line(id=None), "id must be"),
        (line(id=1.5), "id must be"),
        (line(id=True), "id must be"),
        (line(benchmark=1), "benchmark must be a text"),
        (line(sample="0"), "sample must be a whole number"),
        (line(sample=1.0), "sample must be a whole number"),
        (line(sample=-1), "sample "),
        (line(sample=10**30), "sample "),
        (line(sample=True), "sample must be a whole number"),
        (line(repeat=10**12), "repeat "),
        (line().replace('"0"', "9" * 5000), "too many digits"),
        (line().replace('"x"', r'"\ud800"'), "half of a surrogate pair"),
        ("[" * 100_000, "nested too deep"),
        (line(text="y"), "a second time (before: line 1)"),
        (line(text="x"), "a second time (before: line 1)"),
        (line(id=0), "a second time (before: line 1)"),
    ],
)
def test_a_line_that_is_no_answer_is_named(tmp_path: Path, wrong: str, reason: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(f"{line()}\n{wrong}\n")
    with pytest.raises(M3Error) as error:
        _read_lines(path)
    assert f"{path}:2" in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 300


@pytest.mark.parametrize("data", [b"\xff\xfe{\0}\0", b"caf\xe9"])
def test_answers_in_another_encoding_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(data)
    with pytest.raises(M3Error, match="is not UTF-8"):
        _read_lines(path)


@pytest.mark.parametrize("answers", ["", "/no/such/file", "x" * 5000, "a\0b", "/dev/null/x"])
def test_answers_that_are_not_there_are_refused(answers: str) -> None:
    with pytest.raises(M3Error, match="does not exist"):
        recorded.fingerprint(EngineSettings(name="recorded", answers=answers))


def test_a_closed_record_says_nothing_more(tmp_path: Path) -> None:
    """Between two answers, and between two tensors of a merge that only finds a digest."""
    answers = write_lines(tmp_path / "answers.jsonl", ({"benchmark": "b", "id": i, "text": "x"} for i in range(2)))
    recipe, settings = ties_of_three(tmp_path / "models"), EngineSettings(name="recorded", answers=str(answers))
    engine = recorded.start(settings, recipe, recipe.base, Store(tmp_path / "store"))
    given = engine.generate([Prompt("b/0", (1,)), Prompt("b/1", (1,))], Sampling(1), recipe.base)
    assert next(given).id == "b/0"
    engine.close()
    for act in (lambda: next(given), lambda: engine.load(recipe)):
        with pytest.raises(EngineDied, match="interrupted"):
            act()


def test_a_record_without_a_file_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "k.json", "k", tmp_path / "quarantine") is None
    assert not (tmp_path / "quarantine").exists()

"""`m3 verify`: what does not agree in a store is found and named, whatever file it is in, and nothing is changed."""

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from m3_exp import cli
from m3_exp.reading.records import sealed
from m3_exp.store import Store
from m3_exp.types import ResultRecord
from m3_exp.upkeep.reader import KINDS, NESTED, SIGNS
from tests.files import write_lines
from tests.test_outlive import ROWS, World

GRID = ("ratio=grid", "ratio.nodes=3", "ratio.sampled=0", "method=average")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A store of three lambdas, scored on four items, and of one cell that failed, since an item has no answer."""
    made = World(tmp_path_factory.mktemp("world"))
    assert cli.main(["run", *made.line(*GRID)]) == 0
    write_lines(made.folder / "more.jsonl", [*ROWS, {"question": "9 + 9?", "answer": "#### 18"}])
    assert cli.main(["run", *failing(made)]) == 1
    return made


def failing(world: World) -> list[str]:
    return world.line("ratio=fixed", "ratio.lam=0.3", items=world.folder / "more.jsonl")


@pytest.fixture
def store(world: World, tmp_path: Path) -> Path:
    return Path(shutil.copytree(world.store, tmp_path / "store"))


Asked = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Asked:
    def asked(*words: object) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = cli.main(["verify", "--json", *map(str, words)])
        return code, json.loads(capsys.readouterr().out)

    return asked


def counts(found: dict[str, Any]) -> tuple[int, int, int, int]:
    return found["scored"], found["failed"], found["missing"], found["wrong"]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_of(store: Path, kind: str) -> Path:
    """Return a file of a kind; of results one of the grid."""
    files = sorted(path for path in (store / kind).rglob("*.json*") if "000005" not in path.name)
    return files[0]


def record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def edit(store: Path, path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a record and give it the checksum of its new content."""
    held = record(path)
    del held["checksum"]
    change(held)
    name = path.relative_to(store).as_posix().removesuffix(".json")
    path.write_bytes(sealed(json.dumps(held, separators=(",", ":")), name))


def edit_lines(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the answers of a journal and give each line the checksum of its new content."""
    held = [json.loads(line.partition(b" ")[2]) for line in path.read_bytes().splitlines()]
    change(held)
    bodies = [json.dumps(line, sort_keys=True, separators=(",", ":")).encode() for line in held]
    path.write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(body), body) for body in bodies))


# ----------------------------------------------------------------------------------------------------------- states


def test_every_planned_cell_has_a_state(world: World, store: Path, verify: Asked) -> None:
    code, found = verify(f"store={store}")
    assert (code, counts(found), found["faults"]) == (1, (3, 1, 0, 0), [])
    (failed,) = (state for state in found["states"] if state["state"] == "failed")
    assert "1 of 5 items are unscored" in failed["why"]
    assert found["files"] == sum(path.suffix in (".json", ".jsonl") for path in store.rglob("*")) - 1  # format.json


def test_a_run_and_a_request_are_verified_by_themselves(world: World, verify: Asked) -> None:
    grid = verify(*world.line(*GRID))
    assert (grid[0], counts(grid[1])) == (0, (3, 0, 0, 0))
    last = verify("--run", "last", f"store={world.store}")
    assert (last[0], counts(last[1])) == (1, (0, 1, 0, 0))
    more = verify(*world.line("ratio=grid", "ratio.nodes=5", "ratio.sampled=0", "method=average"))
    assert (more[0], counts(more[1])) == (1, (3, 0, 2, 0)), "the larger grid has two more nodes"


def test_models_and_items_are_not_needed(world: World, store: Path, verify: Asked) -> None:
    moved = [*world.experts, world.items]
    for path in moved:
        path.rename(path.with_name(f"{path.name}-moved"))
    try:
        code, found = verify(f"store={store}")
    finally:
        for path in moved:
            path.with_name(f"{path.name}-moved").rename(path)
    assert (code, counts(found)) == (1, (3, 1, 0, 0))
    assert found["notes"] == ["the items of gsm8k are not at hand: ids are not compared"]


def test_a_lost_result_is_missing_and_no_longer_done(world: World, store: Path, verify: Asked) -> None:
    one_of(store, "results").unlink()
    code, found = verify(f"store={store}")
    assert (code, counts(found)) == (1, (2, 1, 1, 0))


def test_a_run_that_calls_done_what_its_store_does_not_hold_says_so(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A result that is lost as it is written: the run counts it, the check after the run does not find it."""
    from m3_exp.results import Results

    lost: list[ResultRecord] = []
    monkeypatch.setattr(Results, "put", lambda self, task, record: lost.append(record))
    line = [word for word in world.line() if not word.startswith("store=")]
    assert cli.main(["run", *line, f"store={tmp_path / 'new'}"]) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert len(lost) == 1
    assert "wrong: 1 cell called done, which the store does not hold, such as" in said
    assert "see: m3 verify" in said


# ----------------------------------------------------------------------------------------------------------- damage

HELD = [
    kind
    for kind in KINDS
    if kind not in (*SIGNS, "repeats", "repeat_sets", "prepared", "rates", "scans", "loading", "statistics")
]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "a bit": flipped,
    "another": lambda data: b'{"checksum":"0123456789abcdef"}\n',
    "no checksum": lambda data: b"{" + data.partition(b",")[2],
}


def test_the_store_of_these_tests_has_every_kind_that_such_a_run_writes(store: Path) -> None:
    assert {path.name for path in store.iterdir() if path.is_dir()} - {"locks", "answers"} >= set(HELD)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", HELD)
def test_a_damaged_record_of_any_kind_is_named_and_stays_as_it_is(
    store: Path, verify: Asked, kind: str, way: str
) -> None:
    path = one_of(store, kind)
    path.write_bytes(WAYS[way](path.read_bytes()))
    before = snapshot(store)
    code, found = verify(f"store={store}")
    assert code == 3
    assert path.relative_to(store).as_posix() in {fault["file"] for fault in found["faults"]}
    assert snapshot(store) == before, "nothing is set aside, repaired or written"


@pytest.mark.parametrize("kind", [kind for kind in HELD if kind not in ("rendered", "inputs")])
def test_records_that_changed_places_are_named(store: Path, verify: Asked, kind: str) -> None:
    files = sorted((store / kind).rglob("*.json"))
    assert len(files) > 1 or kind == "failures"
    other = files[-1] if len(files) > 1 else files[0].with_name(f"{'0' * 64}.json")
    one, two = files[0].read_bytes(), other.read_bytes() if other.exists() else files[0].read_bytes()
    files[0].write_bytes(two)
    other.write_bytes(one)
    code, found = verify(f"store={store}")
    assert code == 3
    assert other.relative_to(store).as_posix() in {fault["file"] for fault in found["faults"]}


def test_a_damaged_format_is_named_and_stays(store: Path, verify: Asked) -> None:
    for data in (b"", b'{"format":"3"}', b"[]"):
        (store / "format.json").write_bytes(data)
        code, found = verify(f"store={store}")
        assert (code, [fault["file"] for fault in found["faults"]]) == (3, ["format.json"])
        assert (store / "format.json").read_bytes() == data
    (store / "format.json").unlink()
    assert verify(f"store={store}")[0] == 3


def scores(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda held: change(held["scores"])


def without_first(held: dict[str, Any]) -> None:
    columns = {name: values[1:] if len(values) > 1 else values for name, values in held["scores"].items()}
    held["scores"] = columns


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "a score out of range": ("results", scores(lambda s: s["value"].__setitem__(0, 1.5)), "not lie between 0 and 1"),
    "a negative score": ("results", scores(lambda s: s["value"].__setitem__(0, -0.5)), "not lie between 0 and 1"),
    "another mean": ("results", lambda r: r["result"].update(score=100.0, high=100.0), "its items' scores give 75.0"),
    "another count": ("results", lambda r: r["result"].update(n=5, n_scored=5), "its n is 5, its items' scores give 4"),
    "a better score of an item": (
        "results", scores(lambda s: s.update(value=[1.0] * 4)), "its score is 75.0, its items' scores give 100.0"),
    "an interval beside the score": ("results", lambda r: r["result"].update(low=80.0), "does not lie in its interval"),
    "an item removed": ("results", without_first, "its items' scores give"),
    "an item twice": ("results", scores(lambda s: s["id"].__setitem__(1, s["id"][0])), "scored twice"),
    "unscored without a reason": (
        "results", scores(lambda s: s.update(value=[1.0, None, 1.0, 1.0], reason=[None])), "unscored without a reason"),
    "other weights": ("results", lambda r: r.update(weights="0" * 64), "it is of the weights 000000000000"),
    "another recipe": ("results", lambda r: r.update(recipe_key="0" * 64), "which its weights come from, is not there"),
    "another setting": (
        "results", lambda r: r["evaluator"]["settings"].update(extractor="flexible"), "are those of another cell"),
    "other texts": ("results", lambda r: r.update(texts_digest="0" * 64), "holds other texts than it scored"),
    "other items": ("results", lambda r: r.update(items_digest="0" * 64), "it is the result of other items"),
    "another plan": ("plans", lambda p: p.update(seed=p["seed"] + 1), "its content is that of another plan"),
    "another engine": ("answer_sets", lambda a: a["engine"].update(version="2"), "its content is that of the key"),
    "another run": ("history", lambda h: h.update(name="other"), "it is the run 'other'"),
    "a plan that is gone": ("history", lambda h: h.update(plan="0" * 64), "is not there"),
    "another type": ("merges", lambda m: m.update(digest=7), "is not what this version of m3 writes"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_record_with_the_right_checksum_and_the_wrong_content_is_named(
    store: Path, verify: Asked, change: str
) -> None:
    kind, how, said = CHANGES[change]
    path = one_of(store, kind)
    edit(store, path, how)
    code, found = verify(f"store={store}")
    assert code == 3
    own = [fault["what"] for fault in found["faults"] if fault["file"] == path.relative_to(store).as_posix()]
    assert any(said in what for what in own), own


def test_a_result_of_other_items_than_were_planned_is_no_result_of_the_cell(
    world: World, store: Path, verify: Asked
) -> None:
    """Consistent in itself, yet of three items where four were planned."""

    def fewer(held: dict[str, Any]) -> None:
        without_first(held)
        values = held["scores"]["value"]
        values = values if len(values) == 3 else values * 3
        mean = 100 * sum(values) / 3
        held["result"].update(n=3, n_scored=3, n_unscored=0, score=mean, low=0.0, high=100.0)
        held.pop("texts_digest")

    path = one_of(store, "results")
    edit(store, path, fewer)
    code, found = verify(f"store={store}")
    assert code == 3
    assert any("result of other items: 000003" in fault["what"] for fault in found["faults"])
    renamed = path.with_name(path.name.replace("000004", "000003"))
    path.rename(renamed)
    edit(store, renamed, lambda held: held.pop("rows_digest"))
    code, found = verify(f"store={store}")
    assert (code, counts(found)) == (1, (2, 1, 1, 0))
    assert any("there is one of 3 other items" in state["why"] for state in found["states"])


@pytest.mark.parametrize("kind", ["merges", "answer_sets", "plans"])
def test_a_record_that_others_refer_to_is_missed(store: Path, verify: Asked, kind: str) -> None:
    path = one_of(store, kind)
    path.unlink()
    code, found = verify(f"store={store}")
    assert code == 3
    assert any(path.relative_to(store).as_posix() in fault["what"] for fault in found["faults"])


@pytest.mark.parametrize("kind", ["inputs", "rendered", "spelled", "conditions"])
def test_what_can_be_made_again_is_not_missed(store: Path, verify: Asked, kind: str) -> None:
    shutil.rmtree(store / kind)
    code, found = verify(f"store={store}")
    assert (code, counts(found)) == (1, (3, 1, 0, 0))


# ---------------------------------------------------------------------------------------------------------- answers


def own_result(store: Path, journal: Path) -> str:
    (found,) = [path for path in (store / "results").rglob("000004-*.json") if journal.parent.name in path.read_text()]
    return found.relative_to(store).as_posix()


ANSWERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "one missing": (lambda path: edit_lines(path, lambda held: held.pop(0)), "has no answer to its item"),
    "all missing": (lambda path: path.write_bytes(b""), "has no answer to its item '0' and 3 more"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "has no answer to its item"),
    "another text": (
        lambda path: edit_lines(path, lambda held: held[0].update(text="The answer is: 99")), "holds other texts"),
    "another prompt": (
        lambda path: edit_lines(path, lambda held: held[0].update(prompt="0" * 32)), "has no answer to its item"),
    "gone": (lambda path: shutil.rmtree(path.parent), "has no answer to its item"),
}  # fmt: skip


@pytest.mark.parametrize("way", ANSWERS)
def test_answers_are_held_against_the_result_that_was_made_of_them(store: Path, verify: Asked, way: str) -> None:
    change, said = ANSWERS[way]
    path = one_of(store, "answers")
    result = own_result(store, path)
    change(path)
    code, found = verify(f"store={store}")
    assert code == 3
    assert any(fault["file"] == result and said in fault["what"] for fault in found["faults"]), found["faults"]


def test_a_damaged_line_is_named_with_its_number(store: Path, verify: Asked) -> None:
    path = one_of(store, "answers")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = flipped(lines[1])
    path.write_bytes(b"".join(lines))
    code, found = verify(f"store={store}")
    own = [f["what"] for f in found["faults"] if f["file"] == path.relative_to(store).as_posix()]
    assert (code, own) == (3, ["line 2: its checksum does not match"])
    assert path.read_bytes() == b"".join(lines)


def test_answers_of_another_benchmark_are_named(store: Path, verify: Asked) -> None:
    path = one_of(store, "answers")
    edit_lines(path, lambda held: held[0].update(id="humaneval/0"))
    code, found = verify(f"store={store}")
    assert code == 3
    assert any("'humaneval/0' is no item of gsm8k" in fault["what"] for fault in found["faults"])


def test_scoring_again_finds_a_verdict_that_its_answer_does_not_give(store: Path, verify: Asked) -> None:
    """Everything agrees but the verdicts: only scoring tells."""
    code, found = verify("--rescore", f"store={store}")
    assert (code, found["rescored"], found["skipped"]) == (1, 4, [])

    def turned(held: dict[str, Any]) -> None:
        held["scores"]["value"] = [1.0 - value for value in held["scores"]["value"]]
        held["result"].update(score=25.0, low=0.0, high=100.0)

    edit(store, one_of(store, "results"), turned)
    assert verify(f"store={store}")[0] == 1
    code, found = verify("--rescore", f"store={store}")
    assert code == 3
    assert any("4 of 4 answers score otherwise" in fault["what"] for fault in found["faults"])


# ------------------------------------------------------------------------------------------- weights and leftovers


def test_a_model_whose_bytes_changed_behind_its_times_is_named(
    world: World, store: Path, verify: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The identity of a file follows every change; here it is held still, as a faulty disk would."""
    from m3_exp.merging import checkpoint

    kept = {path: checkpoint.file_identity(path) for path in world.experts[0].rglob("*") if path.is_file()}
    weights = world.experts[0] / "model.safetensors"
    data = weights.read_bytes()
    own = checkpoint.file_identity
    monkeypatch.setattr(checkpoint, "file_identity", lambda path: kept.get(Path(path)) or own(path))
    try:
        weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        code, found = verify(f"store={store}")
    finally:
        weights.write_bytes(data)
    assert code == 3
    assert any(str(world.experts[0]) in fault["what"] for fault in found["faults"])


def test_what_lies_beside_the_records_is_listed(store: Path, verify: Asked) -> None:
    (store / "results" / ".x.0123abcd-99999999-0123456789ab.tmp").write_bytes(b"")
    (store / "quarantine").mkdir()
    (store / "quarantine" / "merges-x.json").write_bytes(b"123")
    (store / "merges" / "notes.txt").write_bytes(b"mine")
    code, found = verify(f"store={store}")
    assert code == 1, "none of it is wrong"
    said = "\n".join(found["notes"])
    assert "1 temporary file of writers that were killed" in said
    assert "1 damaged file set aside in quarantine (3 B)" in said
    assert "merges/notes.txt is nothing of m3's" in said


def test_a_store_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", f"store={tmp_path / 'none'}"]) == 2
    assert "does not exist: give the folder of a store" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_text_names_what_is_wrong_and_what_to_do(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = one_of(store, "results")
    path.write_bytes(b"")
    capsys.readouterr()
    assert cli.main(["verify", f"store={store}"]) == 3
    said = capsys.readouterr().out
    assert said.startswith("4 cells: 2 scored, 1 failed, 1 wrong; ")
    assert f"wrong: {path.relative_to(store)}: it is not JSON; remove it: the same m3 run makes it again" in said


def test_nested_kinds_are_those_of_the_store(tmp_path: Path) -> None:
    """The reader names every kind that the store has an accessor for."""
    made = Store(tmp_path)
    own = {one._kind for one in vars(made).values() if hasattr(one, "_kind")}
    assert own | set(NESTED) == set(KINDS)

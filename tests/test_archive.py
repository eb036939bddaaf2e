"""`m3 export store` and `m3 import`: the same tables elsewhere, and no archive does more than bring records."""

import contextlib
import datetime
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from m3_exp import cli
from m3_exp.types import M3Error
from m3_exp.upkeep import intake
from tests.test_outlive import World, gone
from tests.test_verify import GRID, edit, edit_lines, one_of, snapshot


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world"))
    assert cli.main(["run", *made.line(*GRID)]) == 0
    assert cli.main(["run", *made.line()]) == 0
    return made


@pytest.fixture(scope="module")
def archive(world: World) -> Path:
    out = world.folder / "store.tar.gz"
    assert cli.main(["export", "store", f"store={world.store}", "--out", str(out)]) == 0
    return out


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert cli.main(list(map(str, words))) == 0
    return capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------- round trips


class Noon(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "Noon":
        return cls(2026, 1, 1, 12, tzinfo=tz)


def test_another_machine_without_models_makes_the_same_tables_byte_for_byte(
    world: World, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both places call their store `store`, and make their page in the same minute: nothing may differ."""
    monkeypatch.setattr("m3_exp.views.page.datetime", Noon)
    line = ["store=store" if word.startswith("store=") else word for word in world.line(*GRID)]
    asks = [["table", "--run", "last", "store=store"], ["table", "lambda_response", *line, "--format", "csv"],
            ["response", *line, "--repeats", "20"], ["status", *line], ["report", *line]]  # fmt: skip
    with contextlib.chdir(tmp_path):
        said(capsys, "import", archive, "store=store")
    printed: list[list[str]] = []
    with gone(world.base), gone(world.experts[0]), gone(world.experts[1]), gone(world.items), gone(world.answers):
        for place in (world.folder, tmp_path):
            with contextlib.chdir(place):
                printed.append([said(capsys, *ask) for ask in asks])
        assert cli.main(["verify", f"store={tmp_path / 'store'}"]) == 0
    assert printed[0] == printed[1]
    pages = [(place / "report" / "index.html").read_bytes() for place in (world.folder, tmp_path)]
    assert pages[0] == pages[1]
    assert "75.0" in printed[1][0]


def test_the_same_store_gives_the_same_bytes_and_travels_on_unchanged(
    world: World, archive: Path, tmp_path: Path
) -> None:
    again, copy, onward = tmp_path / "again.tar.gz", tmp_path / "copy", tmp_path / "onward.tar.gz"
    assert cli.main(["export", "store", f"store={world.store}", "--out", str(again)]) == 0
    assert cli.main(["import", str(archive), f"store={copy}"]) == 0
    assert cli.main(["export", "store", f"store={copy}", "--out", str(onward)]) == 0
    assert again.read_bytes() == archive.read_bytes() == onward.read_bytes()


def test_a_request_takes_only_what_its_tables_need(
    world: World, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, there = tmp_path / "small.tar.gz", tmp_path / "there"
    assert cli.main(["export", "store", "--run", "last", f"store={world.store}", "--out", str(small)]) == 0
    assert cli.main(["import", str(small), f"store={there}"]) == 0
    assert len(list((there / "plans").iterdir())) == 1
    assert len(list((there / "results").iterdir())) == 3, "the merge, and its experts by themselves"
    assert len(list((world.store / "results").iterdir())) == 4
    before = said(capsys, "table", "--run", "last", f"store={world.store}")
    assert said(capsys, "table", "--run", "last", f"store={there}") == before
    assert cli.main(["verify", f"store={there}"]) == 0


def test_what_is_made_again_and_what_belongs_to_a_machine_stays_behind(world: World, archive: Path) -> None:
    with tarfile.open(archive) as tar:
        kinds = {member.name.partition("/")[0] for member in tar}
    assert kinds.isdisjoint({"inputs", "rendered", "scans", "loading", "locks", "runs", "log", "quarantine"})
    assert {"manifest.json", "format.json", "plans", "history", "results", "answers", "merges", "spelled"} <= kinds


def test_importing_twice_changes_nothing(world: World, archive: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    first = intake.take(archive, there)
    before = snapshot(there)
    second = intake.take(archive, there)
    assert (second.new, second.kept) == (0, ())
    assert first.new > 0
    assert snapshot(there) == before


def test_a_store_gets_what_it_lacks_and_keeps_what_it_has(world: World, archive: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(world.store, tmp_path / "there"))
    lost = one_of(there, "results")
    data = lost.read_bytes()
    lost.unlink()
    journal = one_of(there, "answers")
    edit_lines(journal, lambda held: held.pop(0))
    intake.take(archive, there)
    assert lost.read_bytes() == data
    assert len(list(journal.parent.iterdir())) == 2, "the missing answer came in a file of its own"
    assert cli.main(["verify", f"store={there}"]) == 0


def test_results_of_other_texts_are_not_taken_over(world: World, archive: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(world.store, tmp_path / "there"))
    journal = one_of(there, "answers")
    edit_lines(journal, lambda held: held[0].update(text="another"))
    (result,) = [path for path in (there / "results").rglob("*.json") if journal.parent.name in path.read_text()]
    result.unlink()
    found = intake.take(archive, there)
    assert not result.exists()
    assert any("it was made of other texts" in line for line in found.kept)


def test_another_run_of_the_same_name_gets_another_name(world: World, archive: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(world.store, tmp_path / "there"))
    name = one_of(there, "history")
    edit(there, name, lambda held: held.update(run="0" * 16))
    found = intake.take(archive, there)
    assert any(f"the run {name.stem}: there is another of that name" in line for line in found.kept)
    assert (there / "history" / f"{name.stem}-2.json").exists()


def test_other_weights_of_the_same_recipe_are_refused(world: World, archive: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(world.store, tmp_path / "there"))
    edit(there, one_of(there, "merges"), lambda held: held.update(digest="0" * 64))
    before = snapshot(there)
    with pytest.raises(M3Error, match="of the same recipe: one of the machines is at fault"):
        intake.take(archive, there)
    assert snapshot(there) == before


@pytest.mark.parametrize("kind", ["results", "plans", "answers"])
def test_a_damaged_store_is_not_exported(
    world: World, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Path(shutil.copytree(world.store, tmp_path / "there"))
    path = one_of(there, kind)
    path.write_bytes(path.read_bytes()[:20] + b"x" + path.read_bytes()[21:])
    assert cli.main(["export", "store", f"store={there}", "--out", str(tmp_path / "a.tar.gz")]) == 2
    assert f"m3: {path} is damaged" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.tar.gz")) + list(tmp_path.glob(".*.tmp"))


# -------------------------------------------------------------------------------------------------- hostile archives

DATA = b"{}"
Made = Mapping[str, bytes]


def entry(name: str, data: bytes = DATA, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def packed(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=form) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return gzip.compress(held.getvalue())


def manifest(*members: tuple[str, bytes], **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    rows = [[name, len(data), hashlib.sha256(data).hexdigest()] for name, data in members]
    return entry("manifest.json", json.dumps({"m3_archive": 1, "m3": "0", "members": rows, **fields}).encode())


FORMAT = ("format.json", b'{"format":3}')


def naming(name: str, **fields: Any) -> bytes:
    """Return an archive with a member of that name, which its manifest has as well."""
    inner = sorted([FORMAT, (name, DATA)])
    return packed(manifest(*inner), *(entry(key, data, **(fields if key == name else {})) for key, data in inner))


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}
HOSTILE: dict[str, tuple[bytes, str]] = {
    "absolute": (naming("/tmp/x.json"), "is no file of a store that travels"),
    "traversal": (naming("plans/../../x.json"), "is no file of a store that travels"),
    "dots": (naming("plans/..json"), "is no file of a store that travels"),
    "a hidden file": (naming(".bashrc"), "is no file of a store that travels"),
    "another folder": (naming("checkpoints/x/model.safetensors"), "is no file of a store that travels"),
    "digests of models": (naming("inputs/x.json"), "is no file of a store that travels"),
    "a tokenizer": (naming("tokenizers/x/tokenizer.json"), "is no file of a store that travels"),
    "too deep": (naming("results/a/b/c.json"), "is no file of a store that travels"),
    "a line break": (naming("plans/a\nb.json"), "is no file of a store that travels"),
    "a blank": (naming("plans/a b.json"), "is no file of a store that travels"),
    "a link": (naming("plans/x.json", **LINK), "is no plain file"),
    "a hard link": (naming("plans/x.json", **{**LINK, "type": tarfile.LNKTYPE}), "is no plain file"),
    "a device": (naming("plans/x.json", type=tarfile.CHRTYPE, size=0), "is no plain file"),
    "a pipe": (naming("plans/x.json", type=tarfile.FIFOTYPE, size=0), "is no plain file"),
    "a folder": (naming("plans/x.json", type=tarfile.DIRTYPE, size=0), "is no plain file"),
    "a sparse file": (naming("plans/x.json", type=tarfile.GNUTYPE_SPARSE, size=0), "is no plain file"),
    "twice": (packed(manifest(FORMAT, FORMAT), entry(*FORMAT), entry(*FORMAT)), "stands twice"),
    "out of order": (packed(manifest(("plans/x.json", DATA), FORMAT), entry("plans/x.json")), "or out of order"),
    "a member more": (
        packed(manifest(FORMAT), entry(*FORMAT), entry("plans/x.json")), "its manifest does not name 'plans/x.json'"),
    "a member less": (packed(manifest(FORMAT, ("plans/x.json", DATA)), entry(*FORMAT)), "ends where its manifest has"),
    "another member": (
        packed(manifest(FORMAT, ("plans/x.json", DATA)), entry(*FORMAT), entry("plans/y.json")), "has 'plans/y.json'"),
    "other content": (
        packed(manifest(FORMAT, ("plans/x.json", DATA)), entry(*FORMAT), entry("plans/x.json", b"[]")),
        "plans/x.json is not what its manifest says"),
    "no manifest": (packed(entry(*FORMAT)), "has no manifest.json at its beginning"),
    "no format": (packed(manifest(("plans/x.json", DATA)), entry("plans/x.json")), "has no format.json"),
    "a long name": (
        packed(entry("plans/" + "x" * 300 + ".json"), form=tarfile.GNU_FORMAT), "is no plain file"),
    "an extended header": (
        packed(entry("plans/é" + "x" * 200 + ".json"), form=tarfile.PAX_FORMAT), "is no plain file"),
    "a later version": (packed(manifest(FORMAT, m3_archive=2), entry(*FORMAT)), "is an archive of version 2"),
    "a later store": (
        packed(manifest(("format.json", b'{"format":99}')), entry("format.json", b'{"format":99}')), "format 99"),
    "a manifest of another kind": (packed(manifest(members=7)), "names no members"),
    "a manifest that is no JSON": (packed(entry("manifest.json", b"{")), "manifest.json"),
    "a record that is none": (naming("plans/x.json"), "plans/x.json: it has no checksum"),
    "no archive": (b"PK\x03\x04 a zip", "is damaged, or no archive"),
    "nothing": (b"", "is damaged, or no archive"),
    "something after it": (
        gzip.compress(gzip.decompress(packed(manifest(FORMAT), entry(*FORMAT)))[:-1] + b"x"),
        "something stands after its end"),
    "a bomb": (
        packed(manifest(("answers/a/b.jsonl", bytes(40 << 20)), FORMAT), entry("answers/a/b.jsonl", bytes(40 << 20)),
               entry(*FORMAT)), "no store is like that"),
    "a record without measure": (
        packed(manifest(members=[["format.json", 2 << 30, "0" * 64]])), "has 2.15 GB, a record at most"),
    "padding without an end": (
        gzip.compress(gzip.decompress(packed(manifest(FORMAT), entry(*FORMAT))) + bytes(1 << 20)),
        "something stands after its end"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("new", [True, False])
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    world: World, tmp_path: Path, kind: str, new: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    data, why = HOSTILE[kind]
    path, store = tmp_path / "in" / "a.tar.gz", tmp_path / "out" / "store"
    path.parent.mkdir()
    path.write_bytes(data)
    if not new:
        shutil.copytree(world.store, store)
    store.parent.mkdir(exist_ok=True)
    before = snapshot(tmp_path)
    capsys.readouterr()
    assert cli.main(["import", str(path), f"store={store}"]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert len(said.strip().splitlines()) == 1
    assert snapshot(tmp_path) == before
    assert os.listdir(store.parent) == ([] if new else ["store"])


@pytest.mark.parametrize("how", ["half", "a byte less", "a bit"])
def test_a_damaged_archive_is_refused(
    archive: Path, tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = archive.read_bytes()
    ways: Mapping[str, Callable[[], bytes]] = {
        "half": lambda: data[: len(data) // 2],
        "a byte less": lambda: data[:-1],
        "a bit": lambda: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    }
    path = tmp_path / "a.tar.gz"
    path.write_bytes(ways[how]())
    assert cli.main(["import", str(path), f"store={tmp_path / 'store'}"]) == 2
    assert "damaged" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["a.tar.gz"]


def test_a_killed_import_leaves_no_store_and_the_next_one_cleans_up(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill leaves is a temporary folder beside the store, by a process that has ended."""
    dead = tmp_path / ".store.0123abcd-1-0123456789ab.tmp"
    dead.mkdir()
    os.utime(dead, (0, 0))
    intake.take(archive, tmp_path / "store")
    assert os.listdir(tmp_path) == ["store"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["export", "store"], "--out  must name an archive"),
        (["export", "store", "--out", "a.zip"], "must name an archive, as in --out store.tar.gz"),
        (["export", "store", "--out", "a.tar.gz", "--format", "csv"], "--format csv has no effect"),
        (["export", "everything"], "takes answers or store first"),
        (["import"], "takes an archive first"),
        (["import", "store=x"], "takes an archive first"),
        (["import", "none.tar.gz"], "none.tar.gz"),
        (["import", "none.tar.gz", "method=ties"], "method=ties has no effect"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(
    words: list[str], why: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    where = [] if any("=" in word for word in words) else [f"store={world.store}"]
    capsys.readouterr()
    assert cli.main([*words, *where]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert len(said.strip().splitlines()) == 1

"""Paths as people write them: names that Hydra's grammar does not take show the quoting that works, and ~ is home."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from m3_exp import cli, config
from m3_exp.command_line import quoted
from m3_exp.config import overrides
from m3_exp.reading.paths import expanded, is_file
from m3_exp.types import M3Error

NASTY = [
    "lr=1e-4", "a b", "run(1)", "a#b", "a,b", "[x]", "{x: y}", "it's", 'say "so"', "'quoted' twice'", "模型", "naïve",
    "a&b;c|d", "50%", "a!b", "a^b", "a`b", "a<b>", "1e-4", "1_000", "true", "null", "nan", "007", "a:b", "a@b", "a+b",
    "$HOME", "~tilde", "-m", "a?b*", "x\\", "a\\'b", "(", "=", "'", "a=b,c=[d](e)#f 'g' é",
]  # fmt: skip


def asked(lines: list[str]) -> config.Request:
    """Compose lines as a person would who follows each error's word on quoting."""
    for _ in range(len(lines) + 1):
        try:
            return config.request(lines)
        except M3Error as error:
            (line,) = shlex.split(str(error).partition("quoted: ")[2]) or [str(error)]
            lines = [line if other.partition("=")[0] == line.partition("=")[0] else other for other in lines]
    raise AssertionError(lines)


@pytest.mark.parametrize("name", NASTY)
def test_a_nasty_name_works_as_it_is_or_in_the_quotes_that_the_error_shows(name: str, tmp_path: Path) -> None:
    model = tmp_path / name
    model.mkdir()
    other = tmp_path / "other"
    other.mkdir(exist_ok=True)
    items = tmp_path / f"{name}.jsonl"
    items.write_text("")
    experts = f"family.experts=[{model},{other}]"
    if (
        "," in name or name.startswith(("'", "[", "{")) or name.endswith("\\")
    ):  # where an element of a list ends is the writer's to say
        experts = f"family.experts=[{quoted(str(model))},{other}]"
    request = asked([
        "family=local", f"family.base={model}", experts, f"out={tmp_path}/out/{name}", f"store={tmp_path}/store/{name}",
        f"items={items}", "engine=recorded", f"engine.answers={model}", f"tracker.dir={tmp_path}/wandb {name}",
        "evaluator=[gsm8k]",
    ])  # fmt: skip
    (found,) = request.configs
    assert request.out == tmp_path / "out" / name
    assert request.store == tmp_path / "store" / name
    assert found.base.location == str(model)
    assert [source.location for source in found.experts.values()] == [str(model), str(other)]
    assert found.engine.answers == str(model)
    assert [spec.items for spec in found.evaluators] == [str(items)]
    assert request.tracker is not None
    assert request.tracker.dir == f"{tmp_path}/wandb {name}"


@pytest.mark.parametrize("name", ["1e-4", "1_000", "[x]", "{x: y}", "a,b"])
def test_a_bare_name_that_hydra_takes_for_something_else_shows_its_quotes(name: str) -> None:
    assert asked([f"out={name}"]).out == Path(name)


def test_a_comma_that_splits_a_path_in_two_is_named(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    with pytest.raises(M3Error, match=f"split at the comma in {tmp_path}/a,b; such a path is quoted: '{tmp_path}/a,b'"):
        config.request(["family=local", f"family.base={tmp_path}", f"family.experts=[{tmp_path}/a,b,{tmp_path}]"])


def test_the_quoting_is_what_a_shell_hands_over(tmp_path: Path) -> None:
    with pytest.raises(M3Error) as caught:
        config.request(["out=/data/lr=1e-4"])
    assert str(caught.value).endswith("""quoted: out="'/data/lr=1e-4'\"""")
    for name in NASTY:
        text = overrides.shell_text(f"out=/data/{name}")
        said = subprocess.run(["sh", "-c", f"printf %s {text}"], capture_output=True, text=True, check=True).stdout
        assert said == shlex.split(text)[0]


def test_home_is_home_in_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("base", "a", "b", "adapter"):
        (tmp_path / name).mkdir()
    (tmp_path / "items.jsonl").write_text("")
    request = config.request([
        "family=local", "family.base='~/base'", "family.experts=['~/a','~/base+~/adapter']", "out='~/merged'",
        "store='~/store'", "items='~/items.jsonl'", "engine=recorded", "engine.answers='~/a'", "tracker.dir='~/w'",
        "evaluator=[alpaca_eval,prompt_bench_sst2]", "evaluator.alpaca_eval.annotations='~/notes.json'",
        "evaluator.prompt_bench_sst2.masked_lm='~/b'",
    ])  # fmt: skip
    (found,) = request.configs
    assert (request.out, request.store) == (tmp_path / "merged", tmp_path / "store")
    assert found.base.location == f"{tmp_path}/base"
    assert [str(source) for source in found.experts.values()] == [
        f"{tmp_path}/a",
        f"{tmp_path}/base+{tmp_path}/adapter",
    ]
    assert {spec.items for spec in found.evaluators} == {f"{tmp_path}/items.jsonl"}
    assert found.engine.answers == f"{tmp_path}/a"
    settings = {spec.name: spec.settings for spec in found.evaluators}
    assert settings["alpaca_eval"]["annotations"] == f"{tmp_path}/notes.json"
    assert settings["prompt_bench_sst2"]["masked_lm"] == f"{tmp_path}/b"
    assert request.tracker is not None
    assert request.tracker.dir == f"{tmp_path}/w"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("~")]


def test_home_is_home_in_options_and_in_files_to_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (tmp_path / "lr=1 (2)").mkdir()
    (tmp_path / "lr=1 (2)" / "items.jsonl").write_text('{"question": "1 + 1?", "answer": "#### 2"}\n')
    (tmp_path / "answers.jsonl").write_text('{"id": "0", "text": "The answer is: 2"}\n')
    for items in ("~/lr=1 (2)/items.jsonl", "'~/lr=1 (2)/items.jsonl'"):
        line = ["score", "gsm8k", "~/answers.jsonl", f"items={items}", "store=~/store", "--out", "~/scores.jsonl"]
        assert cli.main(line) == 0, capsys.readouterr().err
        assert (tmp_path / "scores.jsonl").is_file()
    folder = tmp_path / "more, (choices)=é"
    (folder / "family").mkdir(parents=True)
    yaml = (config.ROOT / "conf/family/lab.yaml").read_text().replace("name: lab", "name: mine")
    (folder / "family" / "mine.yaml").write_text(yaml)
    capsys.readouterr()
    assert cli.main(["plan", "--cfg", "job", "--config-dir", "~/more, (choices)=é", "family=mine"]) == 0
    assert "\n  name: mine\n" in capsys.readouterr().out
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("~nobody-of-this-name/x", "the home of ~nobody-of-this-name is not known here"),
        ("", "out is empty"),
        ("a\0b", "holds a NUL"),
        ("/data/\udce9", "is not UTF-8"),
    ],
)
def test_what_is_no_path_is_refused(text: str, says: str) -> None:
    with pytest.raises(M3Error, match=says):
        expanded(text, "out")


def test_a_name_that_no_file_can_have_is_none(tmp_path: Path) -> None:
    assert not is_file(tmp_path / ("a" * 300))
    assert not is_file(tmp_path / "a\0b")
    assert not is_file(tmp_path)
    (tmp_path / "a").write_text("")
    assert is_file(tmp_path / "a")
    assert not is_file(tmp_path / "a" / "b")


def test_a_path_that_is_not_utf_8_is_one_line_of_a_real_process() -> None:
    command = [sys.executable, "-m", "m3_exp.cli", "plan", b"out=/data/\xe9"]
    done = subprocess.run(command, capture_output=True, cwd=config.ROOT, check=False)  # type: ignore[arg-type]
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        r"m3: out=/data/\udce9 is not UTF-8: rename what it names, or give another path to it"
    ]

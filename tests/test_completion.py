"""What TAB offers, in Python and through the script that bash reads; the examples of `m3 COMMAND --help`."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from m3_exp import arguments, cli, config
from m3_exp.completion import SCRIPTS, words
from m3_exp.store import PastRun, Store

METHODS = (
    "average", "consensus", "fisher", "iso_c", "karcher", "model_stock", "nearswap", "nuslerp", "regmean", "sce",
    "slerp", "task_arithmetic", "ties", "tsv_m",
)  # fmt: skip


def offered(line: str) -> list[str]:
    return words(line, cli.COMMANDS)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("m3 ta", ["table "]),
        ("M3_DATA=/data m3 ta", ["table "]),
        ("m3 run method=ti", ["method=ties "]),
        ("m3 run method=", [f"method={name} " for name in METHODS]),
        ("m3 run -m method=ties,av", ["method=ties,average "]),
        ("m3 run method=ties,ti", []),
        ("m3 run 'evaluator=[gsm8k,hum", ["evaluator=[gsm8k,humaneval"]),
        ("m3 run ratio.al", ["ratio.alpha="]),
        ("m3 run ratio=fixed ratio.", ["ratio.lam=", "ratio.weights="]),
        (
            "m3 run sparsify=dare method=ties method.",
            ["method.combine=", "method.retain=", "method.scaling=", "method.sign=", "method.trim="],
        ),
        ("m3 run method=nuslerp method.by=", ["method.by=column ", "method.by=row ", "method.by=tensor "]),
        ("m3 run sparsify=dare sparsify.rescale=", ["sparsify.rescale=l1 ", "sparsify.rescale=p "]),
        ("m3 run rat", ["ratio.", "ratio="]),
        ("m3 run evaluator.gs", ["evaluator.gsm8k."]),
        ("m3 run evaluator.gsm8k.extractor=b", ["evaluator.gsm8k.extractor=boxed "]),
        ("m3 run evaluator.humaneval.al", ["evaluator.humaneval.allow_weak="]),
        ("m3 run evaluator.gsm8k.al", []),
        ("m3 run sandbox.driver=b", ["sandbox.driver=bubblewrap "]),
        ("m3 run items=", ["items=dev ", "items=lab ", "items=official "]),
        ("m3 run verify=", ["verify=false ", "verify=true "]),
        ("m3 run sweeps=al", ["sweeps=alpha_grid "]),
        ("m3 table tab", ["table1 ", "table2 ", "table3_search ", "table5 ", "table6 "]),
        ("m3 table table1 --sel", ["--select "]),
        ("m3 table --select ", ["crossfit ", "dev ", "test "]),
        ("m3 table --format=m", ["--format=md "]),
        ("m3 table --select dev tab", ["table1 ", "table2 ", "table3_search ", "table5 ", "table6 "]),
        ("m3 figure pd", ["pdr "]),
        ("m3 wandb s", ["sync "]),
        ("m3 wandb sync fam", ["family.", "family="]),
        ("m3 score gs", ["gsm8k "]),
        ("m3 score gsm8k answers.jsonl extractor=s", ["extractor=strict "]),
        ("m3 completion ", ["bash ", "fish ", "zsh "]),
        ("m3 report --out ", []),  # a path: the shell completes it
        ("m3 run store=", []),
        ("m3 nonsense method=", []),
        ("m3 run 'a' \"b", []),
    ],
)
def test_a_tab_offers(line: str, found: list[str]) -> None:
    assert offered(line) == found


FOLDER = {
    "method/tilted": "{name: tilted, target: 'x:y', slope: 1}",
    "method/torn": "{",
    "method/deep": "[" * 9999,
    "sweeps/ours": "",
}


@pytest.mark.parametrize("flag", ["--config-dir {}", "--config-dir={}", "--config-dir nowhere --config-dir '{}'"])
def test_choices_and_keys_of_a_config_dir_are_offered(tmp_path: Path, flag: str) -> None:
    for name, text in FOLDER.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "method/folder.yaml").mkdir()
    flags = flag.format(tmp_path)
    assert offered(f"m3 run {flags} method=folder method.") == []
    assert offered(f"m3 run {flags} method=til") == ["method=tilted "]
    assert offered(f"m3 run method=tilted {flags} method.") == ["method.slope="]
    assert offered(f"m3 run {flags} method.sl") == ["method.slope="]
    assert offered(f"m3 table {flags} ou") == ["ours "]


def test_the_runs_of_a_store_are_offered(tmp_path: Path) -> None:
    Store(tmp_path / "store").history.put("1", PastRun("lab-ties", "m3 run method=ties", "key", 1))
    store = f"store={tmp_path / 'store'}"
    assert offered(f"m3 table {store} --run ") == ["lab-ties ", "last "]
    assert offered(f"m3 status {store} --json --run lab") == ["lab-ties "]
    assert offered(f"m3 table store={tmp_path / 'none'} --run ") == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_says_what_it_takes(command: str) -> None:
    options = {text for action in arguments.declared(cli.COMMANDS[command])._actions for text in action.option_strings}
    assert {word.strip() for word in offered(f"m3 {command} --")} == {text for text in options if text.startswith("--")}


def test_every_key_that_is_offered_can_be_set() -> None:
    """As `config.request` knows them, of each choice of the axes that are functions."""
    for group, choice in (("ratio", "mixup"), ("ratio", "grid"), ("method", "ties"), ("sparsify", "dare")):
        keys = {word.rstrip("=") for word in offered(f"m3 run {group}={choice} {group}.")}
        assert keys == {f"{group}.{key}" for key in config.choices.keywords_of(group, choice)}


def test_a_command_fails_quietly_at_an_odd_line(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("", "m3", "m3 run \\", "m3 run 'x\" ", "m3 run é=\x1b", "x" * 5000):
        assert cli.main(["completion", "words", line]) == 0
    assert capsys.readouterr().err == ""


# What the script of a shell makes of the words: `m3` is a program that prints those of a file.
GLUE = """source ./script
export COMP_LINE="$2" COMP_POINT=${#2} COMP_WORDS=($2) COMP_CWORD=2
_m3 "$1"
printf '<%s>' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "whole", "left"),
    [
        ("m3 ta", "table ", "<table >"),
        ("m3 run method=ti", "method=ties \nmethod=tilted ", "<ties ><tilted >"),  # bash replaces what follows the =
        ("m3 run ratio.al", "ratio.alpha=", "<ratio.alpha=>"),
        ("m3 run 'evaluator=[gsm8k,hu", "evaluator=[gsm8k,humaneval", "<evaluator=[gsm8k,humaneval>"),
        ("m3 run store=", "", "<>"),
    ],
)
@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_bash_replaces_what_it_takes_for_a_word(line: str, whole: str, left: str, tmp_path: Path) -> None:
    (tmp_path / "script").write_text(SCRIPTS["bash"])
    (tmp_path / "m3").write_text(f"#!/bin/sh\nprintf '%s\\n' '{whole}'\n" if whole else "#!/bin/sh\n")
    (tmp_path / "m3").chmod(0o755)
    done = subprocess.run(["bash", "-c", GLUE, "bash", "./m3", line], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (left, "")


@pytest.mark.parametrize(("shell", "flag"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_a_script_is_what_its_shell_reads(shell: str, flag: str, tmp_path: Path) -> None:
    if not (program := shutil.which(shell)):
        pytest.skip(f"no {shell} here")
    (tmp_path / "script").write_text(SCRIPTS[shell])
    assert (
        subprocess.run([program, flag, tmp_path / "script"], env={**os.environ, "HOME": str(tmp_path)}).returncode == 0
    )


# ------------------------------------------------------------------------------------------------ examples of help

EXAMPLES = [(command, line) for command in cli.COMMANDS for line in arguments.examples(f"m3 {command}")]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_a_command_shows_two_examples_that_fit(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    shown = capsys.readouterr().out
    lines = arguments.examples(f"m3 {command}")
    assert len(lines) >= 2
    assert shown.endswith("\n".join(["examples:", *(f"  {line}" for line in lines), ""]))
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(("command", "line"), EXAMPLES)
def test_an_example_of_help_is_a_request(command: str, line: str) -> None:
    """Its options are the command's, and the rest composes; `tests/test_sweeps.py` composes the sweeps themselves."""
    words = re.search(rf"\bm3 {command}\b([^|)]*)", line)
    assert words
    parser = arguments.declared(cli.COMMANDS[command])
    options, asked = arguments.parsed(parser, shlex.split(words[1]))
    named = asked.values("sweeps")
    if parser.first == "NAME" and asked.overrides:
        name, *overrides = asked.overrides
        asked = asked.with_overrides(*overrides)
        assert f"{name} " in offered(f"m3 {command} {name}")
    elif (parser.first.islower() or parser.first == "FILE") and asked.overrides:
        words_first = 2 if asked.overrides[0] == "import" else 1  # import FILE
        asked = asked.with_overrides(*asked.overrides[words_first:])
    assert {*named} <= {*config.names("sweeps")}
    if command == "score":
        assert config.evaluator(options.benchmark, options.settings).name == options.benchmark
    else:
        assert config.compose(asked.without("sweeps")).configs

"""What a run shows while it works: on terminals of several widths, and where there is none."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from m3_exp import cli, progress
from m3_exp.config import ROOT
from m3_exp.progress import Progress
from m3_exp.reading.shown import Escaping
from tests.terminal import Screen, read_now, set_size
from tests.test_repeat import FIRST, line, models, write_answers

__all__ = ["models"]

LONG = "lm_math ties(scaling=1, retain=0.7) mixup(alpha=0.5, draw 0, lambda=0.9412) on a_benchmark_with_long_name"


@dataclass
class Terminal:
    """Both ends of a terminal in this process, and the screen that shows what was written to it."""

    near: int
    stream: Escaping
    screen: Screen

    def look(self) -> list[str]:
        """Return all rows so far; a live line stands nowhere but at the end."""
        self.screen.feed(read_now(self.near))
        rows = self.screen.rows
        live = [number for number, row in enumerate(rows) if re.match(r"cell \d+ of", row)]
        assert len(live) <= 1, rows
        assert self.screen.row == len(rows) - 1
        return rows

    def resize(self, columns: int) -> None:
        self.look()
        set_size(self.near, columns)
        self.screen.resize(columns)


@pytest.fixture(params=[80, 60, 120])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_PAUSE", 0.0)
    near, far = pty.openpty()
    set_size(near, request.param)
    with os.fdopen(far, "w") as raw:
        yield Terminal(near, Escaping(raw), Screen(request.param))  # type: ignore[arg-type]
    os.close(near)


def work(shown: Progress, name: str) -> None:
    shown.begin(name)
    for step in ("starting vllm", "merging", "examining the grader"):
        shown.doing(step)
    shown.cached(1)
    for _ in range(3):
        shown.generated(1000)
        shown.flow(1234.5)
    shown.doing("scoring")


def test_live_lines_fit_and_leave_nothing_behind(terminal: Terminal) -> None:
    with Progress(3, terminal.stream) as shown:
        shown.expect(12)
        for name in ("lm single on gsm8k", LONG):
            work(shown, name)
            *_, counts, at_work = terminal.look()
            assert counts.startswith(f"cell {shown.cells_done + 1} of 3, about ")
            assert at_work.startswith("  lm")
            assert at_work.endswith(": scoring")
            shown.scored(name, " 20.0 [7.5, 42.2]", 20)
        shown.begin("last")
        shown.failed("last", "the engine gave no answer")
        terminal.look()
    rows = terminal.look()
    assert terminal.screen.folds == 0
    assert rows[-1] == ""
    text = re.sub(r"\s+", " ", " ".join(rows))
    assert re.fullmatch(
        r"1/3 20\.0 \[7\.5, 42\.2\] lm single on gsm8k \(20 items, .* s\) "
        rf"2/3 20\.0 \[7\.5, 42\.2\] {re.escape(LONG)} \(20 items, .* s\) 3/3 failed last: the engine gave no answer ",
        text,
    )


def test_a_terminal_may_change_its_width_at_any_time(terminal: Terminal) -> None:
    with Progress(9, terminal.stream) as shown:
        shown.expect(36)
        for number, columns in enumerate((120, 50, 31, 90, 20, 80, 61, 60)):
            work(shown, f"{number} {LONG}")
            terminal.resize(columns)
            shown.generated(5)
            terminal.look()
            terminal.resize(columns + 7)
            shown.scored(f"{number} {LONG}", " 20.0 [7.5, 42.2]", 20)
            terminal.look()
    terminal.resize(300)
    text = re.sub(r"\s+", "", "".join(terminal.look()))
    assert re.findall(r"(\d)/9", text) == list("12345678")
    assert "cell" not in text
    assert text.count("20.0[7.5,42.2]") == 8


def test_what_others_print_stands_above(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    with Progress(1, terminal.stream) as shown:
        work(shown, "a cell")
        print("a warning\nof two lines", file=sys.stderr)
        for percent in (1, 50, 100):
            sys.stderr.write(f"\r{percent} %")
        sys.stderr.write("\n")
        rows = terminal.look()
        assert rows[:3] == ["a warning", "of two lines", "100 %"]
        assert rows[3].startswith("cell 1 of 1")
        assert rows[4:] == ["  a cell: scoring"]
    print("after", file=sys.stderr)
    assert terminal.look() == ["a warning", "of two lines", "100 %", "after", ""]


def test_names_of_wide_letters_fit_too(terminal: Terminal) -> None:
    with Progress(1, terminal.stream) as shown:
        for letters in (terminal.screen.columns // 2 + 5, 200):
            shown.begin("模" * letters)
            *_, last = terminal.look()
            assert last.startswith("  模模")
            assert len(last) + last.count("模") <= terminal.screen.columns - 3


def test_several_workers_have_a_line_each(terminal: Terminal) -> None:
    with Progress(2, terminal.stream) as shown:
        shown.turn("worker 1")
        shown.begin("a cell")
        shown.turn("worker 2")
        shown.begin("another cell")
        shown.turn("worker 1")
        shown.doing("merging")
        assert shown.at_work() == ("a cell: merging", "another cell")
        assert terminal.look()[-2:] == ["  a cell: merging", "  another cell"]
        shown.turn("worker 2")
        shown.rest()
        shown.turn("worker 1")
        shown.generated(1)
        assert terminal.look()[-1] == "  a cell"


def test_a_dumb_terminal_gets_plain_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with Progress(1, terminal.stream) as shown:
        work(shown, "a cell")
        shown.failed("a cell", "no")
    assert read_now(terminal.near) == "1/1  failed                a cell: no\r\n"


# ---------------------------------------------------------------------------------------------------------- commands

LAMBDAS = ["method=average", "ratio=fixed", "ratio.lam=0.25,0.5,0.75", "evaluator=[gsm8k]", "tracker=none"]
# The answers of the first cell come 50 ms apart, those of the others two seconds.
SLOW = """
import itertools, sys, time
from m3_exp import cli
from m3_exp.engines import recorded
generate, numbers = recorded.RecordedEngine.generate, itertools.count()
def slow(*args, **more):
    for answer in generate(*args, **more):
        yield answer
        time.sleep(0.05 if next(numbers) < 8 else 2)
recorded.RecordedEngine.generate = slow
sys.exit(cli.main(sys.argv[1:]))
"""


def asked(models: list[Path], folder: Path) -> list[str]:
    write_answers(folder / "answers.jsonl", {0: FIRST})
    return ["run", "-m", *line(models, folder), *LAMBDAS]


def shown(near: int, at_work: Callable[[str], bool]) -> Screen:
    """Return a screen of 80 columns with all that comes to a terminal until nothing is at work there."""
    screen, said = Screen(80), ""
    while at_work(said):
        said += (new := read_now(near))
        screen.feed(new)
        time.sleep(0.02)
    screen.feed(read_now(near))
    assert "cell 2 of 3" in said
    assert screen.folds == 0
    return screen


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_on_a_terminal_is_interrupted_and_continued(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C is typed, as its user does. The second run is one of this process."""
    command = [*asked(models, tmp_path), "--json"]
    near, far = pty.openpty()
    set_size(near, 80)
    monkeypatch.setenv("TERM", "xterm")

    def controlling() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # in the background of a shell it is ignored
        os.setsid()
        os.close(os.open(os.ttyname(2), os.O_RDWR))

    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, *command],
        cwd=ROOT, stdin=far, stdout=subprocess.PIPE, stderr=far, text=True, preexec_fn=controlling,
    )  # fmt: skip

    def at_work(said: str) -> bool:
        if "cell 2 of 3" in said and not typed:
            typed.append(os.write(near, b"\x03"))
        return child.poll() is None

    typed: list[int] = []
    rows = shown(near, at_work).rows
    assert (child.returncode, child.communicate()[0]) == (130, ""), rows
    assert rows[0] == "3 cells to do, 24 answers"
    assert re.fullmatch(r"1/3   50\.0 \[21\.5, 78\.5\]    a_b average lambda=0\.25 on gsm8k \(8 items, .* s\)", rows[1])
    assert [row for row in rows[2:] if row] == ["m3: interrupted; the same command continues where this one stopped"]
    with os.fdopen(far, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        again = threading.Thread(target=cli.main, args=(command,))
        again.start()
        rows = shown(near, lambda said: again.is_alive()).rows
    os.close(near)
    assert json.loads(capsys.readouterr().out)["done"] == 3
    assert re.fullmatch(r"1 of 3 cells there already; 2 cells to do, \d+ answers", rows[0])
    assert re.findall(r"^ *(\d/3) ", "\n".join(rows), re.MULTILINE) == ["2/3", "3/3"]  # a long line is folded
    assert rows[-1] == ""
    assert not [row for row in rows if row.startswith("cell ")]  # nothing stale


def test_elsewhere_a_cell_is_one_plain_line(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = asked(models, tmp_path)
    assert cli.main(command) == 0
    out, said = capsys.readouterr()
    first, *cells = said.splitlines()
    assert first == "3 cells to do, 24 answers"
    assert [line.split()[:4] for line in cells] == [[f"{n}/3", "50.0", "[21.5,", "78.5]"] for n in (1, 2, 3)]
    assert [line.split()[4:8] for line in cells] == [
        ["a_b", "average", f"lambda={lam}", "on"] for lam in (0.25, 0.5, 0.75)
    ]
    assert "50.0 [21.5, 78.5]" in out, "the table says the same"
    assert re.search(r"^3 of 3 cells done in .* s; 24 answers, ", out, re.MULTILINE)
    assert not {"\r", "\x1b"} & set(out + said)
    assert cli.main([*command, "--json"]) == 0
    out, said = capsys.readouterr()
    assert said == ""
    assert json.loads(out)["cached"] == 3
    assert cli.main(command) == 0
    *_, said, table = capsys.readouterr().out.splitlines()
    assert said == "nothing to do: all 3 cells were there already"
    assert table.startswith("its table: m3 table --run a_b-average-fixed")
    (tmp_path / "answers.jsonl").write_text((tmp_path / "answers.jsonl").read_text().split("\n", 1)[1])
    assert cli.main([*command, f"store={tmp_path / 'other'}", "ratio.lam=0.25"]) == 1
    out, said = capsys.readouterr()
    assert re.fullmatch(
        r"1/1  failed                a_b average lambda=0\.25 on gsm8k: 1 of 8 items are unscored: .*",
        said.splitlines()[-1],
    )
    assert "0 of 1 cell done, 1 failed in " in out

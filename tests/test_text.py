"""Tables as a terminal shows them: no line is too wide, nothing is lost, names stay unique."""

import html
import os
import random
import re
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from pathlib import Path

import pytest
from rich.cells import cell_len

from m3_exp import cli
from m3_exp.command_line import CommandLine
from m3_exp.config import ROOT
from m3_exp.reading.shown import columns, laid, length, wrapped
from m3_exp.reporting.glossary import WORDS
from m3_exp.reporting.page import assemble
from m3_exp.reporting.page import tables as page
from m3_exp.reporting.table import NO_FIGURE, NOTHING, Cell, Column, Figure, Mark, Table, named_columns, words
from m3_exp.reporting.tables import text as printed
from m3_exp.reporting.tables.formats import as_html, latex, markdown
from m3_exp.reporting.tables.text import lines, text
from m3_exp.reporting.wandb import logged
from m3_exp.views import tables
from tests.golden.commands import CONFIG, MASKS, RECORDED, WORLD
from tests.terminal import set_size

WIDTHS = (60, 80, 100, 120, 200)
ASKED = {
    "table1": (["table1", "pair=lm_math", "method=average", "limit=6"], {}),
    "every lambda": (["table1", "pair=lm_math", "method=ties", "limit=6"], {"all": True}),
    "by score": (["table1", "pair=lm_math", "method=average", "limit=6"], {"marks": "paper"}),
    "table2": (["table2", "limit=12"], {}),
    "table3": (["table3", "pair=lm_math", "limit=6"], {"all": True}),
    "figure4": (["figure4", "limit=6"], {}),
    "alpha_grid": (["alpha_grid", "pair=lm_math", "method=average", "limit=6"], {}),
    "masks": (["lambda_response", "pair=lm_math", "method=ties", *MASKS, "limit=8"], {}),
    "repeats": (["table1", "pair=lm_math", "method=average", "limit=6"], {"repeats": True}),
    "variance": (["lambda_response", "pair=lm_math", "method=average,ties", "limit=8"], {"variance": True}),
    "select": (["lambda_response", "pair=lm_math", "method=average", "limit=6"], {"select": "crossfit"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("world")
    with tarfile.open(WORLD) as tar:
        tar.extractall(folder, filter="data")
    with chdir(folder):
        yield folder


SLOW = ("table1", "table3", "figure4", "alpha_grid", "masks", "variance")  # their tables take a second each and more


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in ASKED]
)
def table(request: pytest.FixtureRequest, world: Path) -> Table:
    """Each kind of table, of the golden world."""
    asked, ways = ASKED[request.param]
    folder, family = CONFIG[1], CONFIG[2:]
    line = CommandLine((*asked, *family, "store=store", *RECORDED), config_dirs=(Path(folder),))
    return tables.table(tables.with_sweep(line), **ways)  # type: ignore[arg-type]


def _widest(shown: str) -> int:
    return max(map(cell_len, shown.splitlines()))


def _figures(table: Table) -> Counter[str]:
    """Count the numbers and signs of a table, and the parts of its intervals."""
    cells = [cell for row in table.rows for cell in row if cell.figure is not None]
    parts = (part for cell in cells for part in (cell.top, *str(cell.figure and cell.figure.interval).split()))
    return Counter(parts)


def _said(shown: str) -> Counter[str]:
    return Counter(shown.replace("*", "").replace("_", "").split())


def _shows_slash(table: Table, width: int) -> bool:
    return any(re.search(r"\s/(\s|$)", line) for line in lines(table, width))


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_too_wide_and_no_figure_is_lost(table: Table, width: int) -> None:
    shown = text(table, width, whole="m3 table NAME --format md > NAME.md")
    assert _widest(shown) <= width
    assert not _figures(table) - _said(shown)
    assert ("/: " in shown) == _shows_slash(table, width)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_name_of_a_row_and_a_column_is_there(table: Table, width: int) -> None:
    shown = re.sub(r"\s", "", text(table, width))
    heads = {part for column in table.columns if not column.names for part in re.findall(r"[^_ ]+_?", column.name)}
    named = [j for j, column in enumerate(table.columns) if column.names]
    names = {part for row in table.rows for j in named for part in str(row[j]).split() if part not in ("no", "yes")}
    assert {part for part in heads | names if len(part) <= 16 and part not in shown} == set()


def test_short_notes_are_few(table: Table) -> None:
    notes = [line for line in table.brief for line in laid(line, 80)]
    assert 1 <= len(notes) <= 6
    assert text(table, 80, whole="m3 table x --format md > x.md").rstrip().endswith("m3 table x --format md > x.md")


# ------------------------------------------------------------------------------------------------- tables of our own


def _made(benchmarks: Sequence[str], rows: int) -> Table:
    drawn = random.Random(1)
    signs = ("", "better", "worse", "untold", "same")
    heads = (*named_columns(["method", "models", "M3", "lambda"]), *(Column(b, ("n=20",), b) for b in benchmarks))
    made = []
    for i in range(rows):
        names = map(words, ("average", f"pair{i // 4}", "no" if i % 4 == 0 else "yes", "" if i % 4 == 0 else f"0.{i}"))
        values = [100 * drawn.random() for _ in benchmarks]
        figures = (Cell((), Figure(x, x - 9, x + 9), Mark(signs[drawn.randrange(5)])) for x in values)  # type: ignore[arg-type]
        made.append((*names, *(NOTHING if drawn.random() < 0.2 else cell for cell in figures)))
    return Table("made", heads, tuple(made), ("a note",))


NAMES = ["my_very_own_benchmark_of_forty_letters_a", "my_very_own_benchmark_of_forty_letters_b"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [0, 1, 9])
@pytest.mark.parametrize(
    "benchmarks",
    [["gsm8k"], NAMES, ["x" * 60, "y" * 60], ["模型" * 12, "e\u0301" * 30], [f"benchmark_{i}" for i in range(30)], []],
    ids=["one", "long", "endless", "wide letters", "thirty", "none"],
)
def test_any_table_fits(benchmarks: list[str], rows: int, width: int) -> None:
    made = _made(benchmarks, rows)
    shown = text(made, width)
    assert _widest(shown) <= width
    assert not _figures(made) - _said(shown)
    assert ("/: " in shown) == _shows_slash(made, width)
    for name in benchmarks:
        assert all(letter in shown for letter in name)


def test_long_names_that_differ_at_their_end_stay_different() -> None:
    head = text(_made(NAMES, 4), 80).split("──")[0].splitlines()
    parts = [re.split(r"\s{2,}", line.strip())[-2:] for line in head if "_" in line or "letters" in line]
    assert ["".join(own) for own in zip(*[p for p in parts if len(p) == 2], strict=True)] == NAMES


def test_a_table_says_once_what_is_the_same_in_all_rows() -> None:
    heads = (*named_columns(["method", "models", "M3", "DARE", "alpha"]), Column("gsm8k", (), "gsm8k"))
    rows = [("single", "lm", "", "", ""), ("ties", "pair", "no", "no", ""), ("ties", "pair", "yes", "no", "0.5")]
    made = tuple((*map(words, row), Cell((), Figure(50.0, 40.0, 60.0))) for row in rows)
    shown = text(Table("made", heads, made), 80)
    assert shown.startswith("All rows: no DARE\nRows with M3: alpha 0.5\n")
    assert [line.strip().split("  ")[0] for line in shown.splitlines()[5:11]] == [
        "single models", "lm", "pair", "ties", "no M3", "M3"
    ]  # fmt: skip


def test_an_interval_stands_below_where_two_columns_would_not_fit_beside_one_another() -> None:
    heads = (*named_columns(["method"]), *(Column(name, (), name) for name in ("gsm8k", "hendrycks_math")))
    rows = ((words("a method of ties"), *[Cell((), Figure(50.0, 40.0, 60.0), Mark("better"))] * 2),)
    assert "50.0 ▲ [40.0, 60.0]" in text(Table("made", heads, rows), 80)
    narrow = text(Table("made", heads, rows), 50)
    assert re.search(r"50\.0 ▲ +50\.0 ▲\n +\[40\.0, 60\.0\] +\[40\.0, 60\.0\]", narrow)


def test_benchmarks_of_one_area_stand_together() -> None:
    names = ["gsm8k", "humaneval", "hendrycks_math", "prompt_bench_sst2", "never_heard_of"]
    shown = text(_made(names, 4), 200)
    heads = [line for line in shown.splitlines() if any(name in line for name in names)]
    assert [line.split()[0] for line in heads] == ["maths", "code", "classification", "never_heard_of"]
    assert "gsm8k" in heads[0]
    assert "hendrycks_math" in heads[0]


# ------------------------------------------------------------------------------------------------------ lines


def test_lines_break_between_words_and_a_command_can_be_copied() -> None:
    assert laid("one two three", 8) == ["one two", "  three"]
    assert laid("one two", None) == ["one two"]
    path = "/a/path/that/is/longer/than/the/line"
    assert laid(f"see {path}", 20) == ["see", f"  {path}"]
    parts = laid("  again: m3 run sweeps=table1 family=lab store=/tmp/x", 24)
    assert parts[0] == "  again:"
    assert all(part.endswith(" \\") for part in parts[1:-1])
    assert " ".join(" ".join(parts[1:]).replace("\\", "").split()) == "m3 run sweeps=table1 family=lab store=/tmp/x"
    assert wrapped("livebench_instruction_following", 14) == ["livebench_", "instruction_", "following"]
    assert all(length(part) <= 5 for part in wrapped("模型" * 9, 5))


def test_a_file_or_pipe_gets_the_whole_and_columns_ask_for_a_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert columns(sys.stdout) is None
    monkeypatch.setenv("COLUMNS", "72")
    assert columns(sys.stdout) == 72
    assert cli.main(["plan", "--list"]) == 0
    assert _widest(capsys.readouterr().out) <= 72
    for useless in ("", "0", "wide", "-3"):
        monkeypatch.setenv("COLUMNS", useless)
        assert columns(sys.stdout) is None


def test_help_fits_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["--help"]) == 0
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
    assert _widest(capsys.readouterr().out) <= 80


def _on_a_terminal(command: Sequence[str], width: int, **environment: str) -> str:
    """Run `m3` on a terminal of its own and return what it shows there."""
    ours, theirs = os.openpty()
    set_size(theirs, width)
    env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    env |= {"PYTHONPATH": str(ROOT), **environment}
    child = subprocess.Popen([sys.executable, "-m", "m3_exp.cli", *command], stdout=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # the terminal ends with its last writer
        pass
    os.close(ours)
    assert child.wait() == 0
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.slow
def test_a_terminal_gets_its_width_and_bold(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["table", "alpha_grid", *CONFIG, "pair=lm_math", "method=average", "limit=6", "store=store", *RECORDED]
    shown = _on_a_terminal([*asked, "--marks", "paper"], 72)
    assert max(map(length, shown.splitlines())) <= 72
    assert re.search(r"\x1b\[1m\d+\.\d\x1b\[0m", shown)
    assert "**" not in shown.split("Percent")[0]
    plain = _on_a_terminal([*asked, "--marks", "paper"], 72, NO_COLOR="1")
    assert "\x1b" not in plain
    assert re.search(r"\*\*\d+\.\d\*\*", plain)
    monkeypatch.setenv("COLUMNS", "72")
    assert cli.main([*asked, "--wide"]) == 0
    assert capsys.readouterr().out.startswith("| method")


# ------------------------------------------------------------------------------------------------------ words


def test_the_readme_has_the_ten_words_in_its_second_screen() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(WORDS) == 10
    assert 25 <= readme.splitlines().index("## Ten words") <= 60
    said = " ".join(readme.replace("**", "").replace("`", "'").split())
    assert [word for word, what in WORDS.items() if f"{word}: {what}" not in said] == []


def _on_the_page(table: Table) -> str:
    return page.render(table, ())


@pytest.mark.parametrize("write", [markdown, latex, as_html, logged.markdown, _on_the_page])
def test_a_slash_is_explained_wherever_it_is_shown(write: Callable[[Table], str]) -> None:
    heads = (*named_columns(["method"]), Column("gsm8k", (), "gsm8k"))
    with_slash, without = (
        Table("made", heads, ((words("ties"), cell),), ("a note",)) for cell in (NOTHING, Cell((), Figure(50.0)))
    )
    assert NO_FIGURE[3:30] in write(with_slash)
    assert NO_FIGURE[3:30] not in write(without)


def test_a_page_shows_the_ten_words() -> None:
    shown = assemble._words()
    assert all(f"<dt>{html.escape(word)}</dt>" in shown for word in WORDS)


COMMANDS = {
    "plan": ["plan", "sweeps=table1", "pair=lm_math", "method=average,ties", "limit=6"],
    "status": ["status", "sweeps=table1", "pair=lm_math", "limit=6"],
    "response": ["response", "pair=lm_math", "method=average", "limit=8", "--repeats", "20"],
    "no draws": ["response", "pair=lm_math", "method=average", "limit=8", "--check"],
    "choices": ["plan", "--list"],
    "tables": ["table", "--list"],
    "figures": ["figure", "--list"],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_line_of_a_command_is_wider_than_asked(
    command: str, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = COMMANDS[command]
    others = [] if "--list" in asked else [*CONFIG, "store=store", *RECORDED]
    monkeypatch.setenv("COLUMNS", "60")
    cli.main([*asked, *others])
    out, err = capsys.readouterr()
    wide = [line for line in [*out.splitlines(), *err.splitlines()] if cell_len(line) > 60]
    assert [line for line in wide if len(line.removesuffix(" \\").split()) > 1] == []  # a path alone may be longer


def test_another_sparsifier_goes_by_its_name() -> None:
    assert printed._spoken("DARE", "yes") == "DARE"
    assert printed._spoken("DARE", "no") == "no DARE"
    assert printed._spoken("DARE", "magnitude (density 0.7)") == "magnitude (density 0.7)"

"""Words of others: nothing that a terminal, a spreadsheet or TeX would act on leaves the program as it is."""

import csv
import hashlib
import io
import json
import re
import sys
from collections.abc import Sequence

import pytest

from m3_exp import cli
from m3_exp.progress import Progress
from m3_exp.reading.shown import Escaping, abridged, escaped
from m3_exp.reporting.table import Cell, Column, Figure, Mark, Rebuild, Table, words
from m3_exp.reporting.tables import text as terminal
from m3_exp.reporting.tables.formats import as_csv, as_html, latex, markdown
from m3_exp.types import M3Error, Source, identity

NASTY = "a\x1b[31mred\x1b[0m\r\x07\x08\x7f\x85\x9b31m\u202eevil\u2066\u2028\u200b\ud800\tz\0"
RAW = [sign for sign in NASTY if not sign.isprintable()]


def _is_clean(text: str, keep: str = "\n") -> bool:
    return all(sign.isprintable() or sign in keep for sign in text)


def test_every_sign_that_is_not_printable_is_spelled() -> None:
    every = "".join(map(chr, range(0x3000))) + "".join(map(chr, range(0xD800, 0xE100))) + "\U000e0001\ufeff"
    assert escaped(every).isprintable()
    assert escaped("m\xfcller 模型 λ ≈ ▲") == "m\xfcller 模型 λ ≈ ▲"
    assert escaped("\x1b[31m\u202e\n") == r"\x1b[31m\u202e\n"
    assert escaped("\x1b\n", "\n") == "\\x1b\n"


def _say(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None = None, out: str = "", err: str = "", code: int = 0
) -> int:
    def command(args: Sequence[str]) -> int:
        print(out, end="")
        print(err, end="", file=sys.stderr)
        if error:
            raise error
        return code

    monkeypatch.setitem(cli.COMMANDS, "run", command)
    return cli.main(["run"])


def test_a_message_is_one_printable_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _say(monkeypatch, M3Error(f"{NASTY}\nm3: all is well")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.endswith("\n")
    assert _is_clean(error)
    assert r"a\x1b[31mred" in error
    assert r"\u202eevil" in error


def test_a_message_is_never_endless(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("x" * 10**6, "word " * 10**6):
        assert _say(monkeypatch, M3Error(f"begin {text} end")) == 2
        error = capsys.readouterr().err
        assert error.startswith("m3: begin ")
        assert error.endswith(" end\n")
        assert len(error) < 2000
    assert abridged("a short one") == "a short one"


def test_what_a_command_prints_is_printable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _say(monkeypatch, out=f"one {NASTY}\ntwo\n", err=f"note {NASTY}\n") == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 2
    assert _is_clean(captured.out, "\n\t")
    assert _is_clean(captured.err, "\n\t")
    assert sys.stdout.write("back\n") == 5
    assert not isinstance(sys.stdout, Escaping)


def test_json_stays_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _say(monkeypatch, out=json.dumps({"id": NASTY})) == 0
    out = capsys.readouterr().out
    assert _is_clean(out)
    assert json.loads(out) == {"id": NASTY}


def test_a_progress_bar_of_a_library_may_begin_its_line_again() -> None:
    stream = io.StringIO()
    Escaping(stream).write("\r 50%\r\x1b[A")
    assert stream.getvalue() == "\r 50%\\r\\x1b[A"


def test_a_stream_that_knows_few_letters_gets_them_spelled() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Escaping(stream).write("λ=0.5 ▲\n")
    stream.flush()
    assert raw.getvalue() == b"\\u03bb=0.5 \\u25b2\n"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_names_escaped() -> None:
    for stream in (io.StringIO(), _Terminal()):
        with Progress(10, stream) as progress:
            progress.begin(f"cell {NASTY}")
            progress.say(f"failed {NASTY}\n  again: m3 run")
            progress.scored(f"cell {NASTY}", "20.0", 1)
        said = re.sub("\r(\x1b\\[1A)?\x1b\\[J", "", stream.getvalue())
        assert _is_clean(said)
        assert r"cell a\x1b[31mred" in said
        assert "\n  again: m3 run\n" in said


TABLE = Table(
    title=NASTY,
    columns=(Column(NASTY), Column("score")),
    rows=(
        (
            Cell((NASTY,), record={"name": NASTY, "score": -1.5, "draws": [1, 2], "text": "=1+1"}),
            Cell(
                (),
                Figure(1.5, 1.0, 2.0),
                Mark("better", "bold", NASTY),
                record={"name": "@SUM(A1)", "score": None, "draws": [-1, 2], "text": "-1.5"},
            ),
        ),
        (
            Cell(("=HYPERLINK()|x",), record={"name": "+cmd|' /C calc'!A0", "score": 3, "draws": [], "text": "-x"}),
            words("-2.0"),
        ),
    ),
    notes=(f"note {NASTY}", Rebuild((("abc", f"m3 merge {NASTY}\rinput{{evil}}"),))),
)


def _on_a_terminal(table: Table) -> str:
    return terminal.text(table, 60)


@pytest.mark.parametrize("write", [markdown, as_csv, latex, as_html, _on_a_terminal])
def test_no_format_lets_a_control_through(write: object) -> None:
    assert callable(write)
    written = write(TABLE)
    assert _is_clean(written)
    assert "evil" in written


def test_a_tex_comment_ends_with_its_line() -> None:
    text = latex(TABLE)
    (line,) = [line for line in text.splitlines() if "input{evil}" in line]
    assert line.startswith("%   abc          m3 merge ")
    assert all(r"\x1b" not in line for line in text.splitlines() if not line.startswith("%"))


def test_a_markdown_cell_stays_in_its_row() -> None:
    rows = [line for line in markdown(TABLE).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(TABLE.rows)
    assert r"=HYPERLINK()\|x" in rows[-1]


def test_a_spreadsheet_finds_no_formula_and_a_program_the_same_numbers() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(TABLE))))
    assert [row["name"] for row in rows] == [escaped(NASTY), "'@SUM(A1)", "'+cmd|' /C calc'!A0"]
    assert [row["text"] for row in rows] == ["'=1+1", "-1.5", "'-x"]
    assert [row["score"] for row in rows] == ["-1.5", "", "3"]
    assert [row["draws"] for row in rows] == ["1 2", "-1 2", ""]
    assert "\r" not in as_csv(TABLE)


def test_identity_is_the_sha256_of_canonical_json_and_holds_for_any_text() -> None:
    assert identity({"b": 1, "a": "é"}) == hashlib.sha256('{"a":"é","b":1}'.encode()).hexdigest()
    odd = [identity(Source(text)) for text in ("/a/\udce9", "/a/\udcea", "/a/é", "/a/\ud800", "/a/\\udce9")]
    assert len(set(odd)) == len(odd)


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == cli.main(["--version"]) == 0
    assert cli.main(["no-such-command"]) == 2
    assert [_say(monkeypatch, code=code) for code in (0, 1)] == [0, 1]
    assert _say(monkeypatch, PermissionError(13, "Permission denied", "/a\x1b[31m")) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(r"m3: /a\x1b[31m: Permission denied")
    assert _say(monkeypatch, KeyboardInterrupt()) == 130  # type: ignore[arg-type]

"""Commands say what they said: a part of the record, which `python -m tests.golden.make diff` asks whole.

What differs on purpose is recorded anew by `python -m tests.golden.make said PART`, and told in that change.
"""

import re
from pathlib import Path

import pytest

from tests.golden.commands import record
from tests.golden.make import kept

_LONG = re.compile(r"-?\d+\.\d{6,}(e-?\d+)?")  # figures whose last digits are those of a machine's arithmetic


def rounded(text: str) -> str:
    return _LONG.sub(lambda found: f"{float(found[0]):.9g}", text)


QUICK = (" list", "refused")
SLOW = ("table table2 md", "merge ties", "table table1 csv", "table masks", "select crossfit", "response masks")


@pytest.mark.parametrize("part", [*QUICK, *(pytest.param(part, marks=pytest.mark.slow) for part in SLOW)])
def test_commands_say_what_they_said(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = {name: text for name, text in kept().items() if part in name}
    now = dict(record(part))
    assert now
    assert set(now) == set(before)
    for name, text in now.items():
        assert rounded(text) == rounded(before[name]), name

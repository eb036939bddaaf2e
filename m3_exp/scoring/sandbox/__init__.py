"""Model-written programs, run where they can do no harm and judged where they never ran.

    judge.py     tasks -> verdicts: the pool, the canaries, the second try of a time-out
    drivers.py   how boxes are started: bubblewrap, Landlock alone, a container, or (allowed by the user) nothing
    relay.py     the judge's hand inside a container, which has no descriptors of ours but two
    pair.py      one candidate's box and one grader's, watched against the clock
    warden.py    the process that forks boxes and sees to their end
    box.py       the process inside a box: a candidate (the model's program) or a grader (the benchmark's tests)
    reading.py   which reading of an answer is the program
    talk.py      requests and replies between the two
    standins.py  what stands in one for an object of the other, and what may be asked of it
    questions.py methods that an answer's own object is never asked to judge by
    codec.py     what crosses between the two: plain values, and numbers for what is not plain
    kinds.py     the types of plain values, and how those that can change are set
    packing.py   values -> JSON
    unpacking.py JSON -> values of exactly these types
    layout.py    how a set lies in its table, and how another is made that lies the same
    lockdown.py  what a box gives up before it reads foreign code: files, sockets, processes, memory, time

All but judge.py and drivers.py are run by a bare interpreter: they import nothing but the standard library and one
another. docs/security.md says what is covered and what is not.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # inside a box there is no m3_exp
    from m3_exp.types import Score


def probe() -> dict[str, str | None]:
    """Run every containing driver; return what is wrong with each, or None where it works."""
    from m3_exp.scoring.sandbox import judge

    return judge.probe()


def level() -> str | None:
    """Return the name of the driver that will be used, or None where none contains a program."""
    from m3_exp.scoring.sandbox import judge

    return judge.level()


def levels(scores: "Sequence[Score]") -> str | None:
    """Return what contained the programs behind these scores (their note `sandbox`); None where nothing ran."""
    used = {str(score.notes["sandbox"]) for score in scores if score.notes.get("sandbox")}
    return ", ".join(sorted(used)) or None

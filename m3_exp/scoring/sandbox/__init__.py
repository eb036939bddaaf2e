"""Model-written programs, run where they can do no harm and judged where they never ran.

    judge.py     tasks -> verdicts: the pool, the canaries, the second try of a time-out
    drivers.py   how boxes are started: bubblewrap, or Landlock alone
    warden.py    the process that forks boxes and sees to their end
    box.py       the process inside a box: a candidate (the model's program) or a grader (the benchmark's tests)
    codec.py     the plain values that cross between the two
    lockdown.py  what a box gives up before it reads foreign code: files, sockets, processes, memory, time

warden.py, box.py, codec.py and lockdown.py are run by a bare interpreter: they import nothing but the standard
library and one another. docs/benchmarks.md, "The sandbox", says what is covered and what is not.
"""


def probe() -> dict[str, str | None]:
    """Run every driver; return what is wrong with each, or None where it works."""
    from m3_exp.scoring.sandbox import judge

    return judge.probe()


def level() -> str | None:
    """Return the name of the driver that will be used, or None where none works."""
    from m3_exp.scoring.sandbox import judge

    return next((name for name, reason in judge.probe().items() if reason is None), None)

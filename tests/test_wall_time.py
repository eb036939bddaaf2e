"""CPU time is read after a program's end; what a bomb of others kept from starting is tried again."""

from typing import Any

import pytest

from m3_exp.scoring.sandbox import judge as judging
from m3_exp.scoring.sandbox import pair
from m3_exp.scoring.sandbox.judge import Limits, judge
from m3_exp.scoring.sandbox.pair import Report
from tests.answers import task

IGNORE = "import signal, threading, time\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
BURN = "    while time.process_time() < 1.4: pass\n"
SOURCES = {
    "ignores": f"{IGNORE}def f(x):\n{BURN}    return x * x",
    "threads": f"{IGNORE}def burn():\n{BURN}def f(x):\n    t = threading.Thread(target=burn)\n    t.start()\n"
    "    t.join()\n    return x * x",
    "import": f"{IGNORE}while time.process_time() < 1.4: pass\ndef f(x): return x * x",
}


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["bubblewrap", "landlock"])
def test_who_ignores_the_signal_gains_nothing(driver: judging.Choice) -> None:
    verdicts = judge([task(source) for source in SOURCES.values()], Limits(cpu_seconds=1, wall_seconds=30), driver)
    if verdicts[0].value is None:
        pytest.skip(str(verdicts[0].reason))
    assert [(v.value, v.reason) for v in verdicts] == [(0.0, "more than 1 s of CPU time")] * len(SOURCES)


def test_what_could_not_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two attempts at a box fail, as they do while another program holds every process."""
    run, calls = pair.run, [0]

    def scarce(*arguments: Any) -> Any:
        if "triple" in str(arguments[1]):
            calls[0] += 1
            if calls[0] < 3:
                return Report({"error": "no process is to be had"}, {}, True)
        return run(*arguments)

    monkeypatch.setattr(pair, "run", scarce)
    monkeypatch.setattr(judging, "_PAUSES", (0.0, 0.0, 0.0))
    verdicts = judge([task("def f(x): return x * x"), task("triple = 3\ndef f(x): return x * x")])
    assert [v.value for v in verdicts] == [1.0, 1.0]
    assert calls[0] == 3

"""The process behind `process.py`: it measures the one statistic that it is asked for, and says how far it is."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from m3_exp.merging.statistics.measuring import measure
from m3_exp.merging.statistics.wanted import Wanted
from m3_exp.store import Store, decoded
from m3_exp.types import M3Error


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asked ends it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    question = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_asker, daemon=True).start()

    def say(message: dict[str, object]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    try:
        wanted = decoded(Wanted, question["wanted"])
        measure(wanted, Store(Path(question["store"])), lambda doing: say({"doing": doing}))
    except M3Error as error:
        say({"refused": str(error)})
    else:
        say({"done": True})


def _end_with_asker() -> None:
    """Wait for the end of our input, which its death closes too."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()

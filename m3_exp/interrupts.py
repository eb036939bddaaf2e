"""What ends a command from outside: Ctrl-C, and SIGTERM, which schedulers send before they kill."""

import signal
import sys


class Terminated(KeyboardInterrupt):
    """This process was asked to end by SIGTERM."""


def heed() -> None:
    """Let SIGTERM end this process in order, as Ctrl-C does. A second signal of either kind ends it at once.

    Where Ctrl-C is ignored, as in the background of a shell script, it stays so.
    """
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def _stop(number: int, _: object) -> None:
    for one in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(one) is _stop:
            signal.signal(one, signal.SIG_DFL)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def code(stop: KeyboardInterrupt) -> int:
    """Say how a command was ended, and return its exit code: 130 for Ctrl-C, 143 for SIGTERM."""
    how, number = ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)
    print(f"\nm3: {how}; the same command continues where this one stopped", file=sys.stderr)
    return number

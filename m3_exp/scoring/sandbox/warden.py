"""The process that starts boxes: it runs no foreign code itself, and ends all boxes when the judge is gone.

A fork of a warm interpreter costs 2 ms where a new one costs 40. For each request (a role, and three descriptors: the
job, the channel to the other box, the report) the warden forks a *keeper*, and the keeper forks the box. The keeper
waits for the box's end and reports it, with the CPU time that the box has used. It kills the box as soon as the judge
says so, or closes its end of the report. Where no process can be started, the report says that, and the warden goes on.
"""

import contextlib
import os
import resource
import select
import signal
import socket
from typing import NoReturn

from . import box, lockdown

# Their compiled parts need shared libraries from outside the standard library, which a box cannot open any more.
_PRELOADED = ("binascii", "bz2", "hashlib", "lzma", "math", "zlib")
ROLES = {b"c": "candidate", b"g": "grader"}  # one byte a request: a stream keeps descriptors with their byte


def main(control: int, *, walls: lockdown.Walls) -> None:
    """Serve requests until the judge closes the control socket."""
    lockdown.die_with_parent()
    lockdown.hide()
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            __import__(name)
    with socket.socket(fileno=control) as link:
        while True:
            role, descriptors, _, _ = socket.recv_fds(link, 1, 3)
            if not role:
                return
            if _fork(descriptors[2]) == 0:
                try:
                    link.close()
                    _keep(ROLES[role], *descriptors, walls=walls)
                finally:
                    os._exit(1)
            for descriptor in descriptors:
                os.close(descriptor)
            _collect()


def _fork(report: int) -> int:
    """Fork; where that is refused, report it and return -1."""
    try:
        return os.fork()
    except OSError as error:
        with contextlib.suppress(OSError):
            box.write(report, {"error": f"no process is to be had: {error.strerror}"})
        return -1


def _collect() -> None:
    """Collect the keepers that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _keep(role: str, job: int, channel: int, report: int, *, walls: lockdown.Walls) -> NoReturn:
    lockdown.die_with_parent()
    if walls == "none":
        lockdown.adopt_orphans()
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    child = _fork(report)
    if child < 0:
        os._exit(1)
    if child == 0:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(awake)
            os.close(wake)
            if walls == "none":
                os.setsid()
            box.main(role, job, channel, report, walls=walls)
        finally:
            os._exit(0)
    os.close(job)
    os.close(channel)  # else the other box would not see this one's end
    status = _end_of(child, awake, report)
    if walls == "none":
        _sweep(child)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # its threads included, and without walls what it started
    with contextlib.suppress(OSError):  # the judge may be gone
        record = {"ended": os.waitstatus_to_exitcode(status), "cpu": used.ru_utime + used.ru_stime}
        box.write(report, record)
    os._exit(0)


def _end_of(child: int, awake: int, report: int) -> int:
    """Return a child's wait status; it is killed when the report's reader says something or goes away first."""
    watch = select.poll()
    watch.register(awake, select.POLLIN)
    watch.register(report, select.POLLIN)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if any(descriptor == report for descriptor, _ in watch.poll()):
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        os.read(awake, 64)


def _sweep(group: int) -> None:
    """End what a box without walls may have started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    lockdown.end_children()

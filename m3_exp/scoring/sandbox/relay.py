"""The process inside a container: pairs of boxes asked for on stdin, their reports on stdout.

No descriptor can be handed into a container, only its standard input and output are shared by all runtimes; so the
warden and its sockets live inside, and what crosses is one JSON object a line in each direction:

    {"id": 7, "program": {...}, "tests": {...}, "wall_seconds": 30}    ->    {"id": 7, "report": {...}}

Neither the warden nor a box has these two descriptors, or can open them. Where the kernel has Landlock it serves as a
second wall. The container ends when its standard input does.
"""

import dataclasses
import json
import os
import socket
import sys
import threading

from . import lockdown, pair, warden


def main() -> None:
    """Serve requests until standard input ends."""
    lockdown.hide()
    walls: lockdown.Walls = "landlock" if lockdown.landlock_version() else "namespaces"
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        try:
            ours.close()
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nothing, descriptor)
            warden.main(theirs.detach(), walls=walls)
        finally:
            os._exit(0)
    theirs.close()
    lock = threading.Lock()
    for line in sys.stdin.buffer:
        threading.Thread(target=_serve, args=(json.loads(line), ours, lock), daemon=True).start()
    os._exit(0)  # the container's first process: everything in it ends


def _serve(request: pair.Job, link: socket.socket, lock: threading.Lock) -> None:
    report = pair.run(link, request["program"], request["tests"], request["wall_seconds"])
    line = json.dumps({"id": request["id"], "report": dataclasses.asdict(report)}).encode() + b"\n"
    with lock:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

"""How long the everyday commands take, each in a process of its own with a warm file cache.

    python benchmarks/commands.py STORE [--times 5]

STORE is that of `make demo`. Beside them: Python that does nothing, and the help of a peer where it is installed. The
table goes to docs/performance.md, between the two lines that name this script.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- benchmarks/commands.py: begin -->\n", "<!-- benchmarks/commands.py: end -->\n"
DEMO = ["sweeps=demo", "limit=20", "tracker=none"]  # as `make demo` asks
# The words of a command, and the seconds that it may take on two quiet cores.
COMMANDS: list[tuple[list[str], float | None]] = [
    (["--help"], None),
    (["plan", "--list"], 0.4),
    (["table", "demo", "limit=20"], 1.5),
    (["status", *DEMO], 1.5),
    (["plan", *DEMO], None),
    (["plan", "sweeps=table1", "family=llama2_13b"], 3.0),
    (["merge", "method=nope", "out=merged"], 1.0),
    (["merge", "ratio=fixed", "ratio.lam=2", "out=merged"], 1.0),
    (["merge", "family=local", "family.base=no", "family.experts=[no,no]", "out=merged"], 1.0),
    (["merge", "out=there"], 1.0),
]
PEERS = (["lm_eval", "--help"], ["mergekit-yaml", "--help"], ["inspect", "--help"])
COUNTED = """
import sys
from m3_exp.cli import main
sys.stdout = sys.stderr = open("/dev/null", "w")
main(sys.argv[2:])
open(sys.argv[1], "w").write(str(len(sys.modules)))
"""


class Run(NamedTuple):
    """What one process took: seconds of the clock, of its processor time, and its memory at most."""

    seconds: float
    user: float
    megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    rows = []
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        shutil.copytree(options.store, here / "store")
        (here / "there").mkdir()
        (here / "there" / "file").touch()
        bare = [sys.executable, "-c", "pass"]
        rows.append(row("`python -c pass`", [timed(bare, here) for _ in range(options.times)]))
        for words, most in COMMANDS:
            asked = words if words[0] == "--help" or "--list" in words else [*words, "store=store"]
            command = [sys.executable, "-m", "m3_exp.cli", *asked]
            timed(command, here)  # files are read and prompts rendered once
            runs = [timed(command, here) for _ in range(options.times)]
            rows.append(row(f"`m3 {' '.join(words)}`", runs, modules(asked, here), most))
            print(rows[-1], flush=True)
        for command in PEERS:
            if program := shutil.which(command[0], path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"):
                timed([program, *command[1:]], here)
                runs = [timed([program, *command[1:]], here) for _ in range(options.times)]
                rows.append(row(f"`{' '.join(command)}`", runs))
            else:
                rows.append(f"| `{' '.join(command)}` | not installed here | | | | | |")
    write(rows, options.times, load)


def timed(command: list[str], folder: Path) -> Run:
    """Run a command to its end, whatever it says."""
    start = time.monotonic()
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    return Run(time.monotonic() - start, usage.ru_utime, usage.ru_maxrss / 1024)


def environment() -> dict[str, str]:
    """Return what a command is given: this tree, and Python's leave to keep its bytecode, as after an installation."""
    return {**{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}, "PYTHONPATH": str(ROOT)}


def modules(words: list[str], folder: Path) -> int:
    """Return how many modules a command has imported when it ends."""
    subprocess.run([sys.executable, "-c", COUNTED, "modules", *words], cwd=folder, env=environment(), check=True)
    return int((folder / "modules").read_text())


def row(name: str, runs: list[Run], imported: int | None = None, most: float | None = None) -> str:
    seconds, user, memory = zip(*runs, strict=True)
    cells = [
        name,
        f"{statistics.median(seconds):.2f}",
        f"{min(seconds):.2f}",
        f"{statistics.median(user):.2f}",
        "" if imported is None else str(imported),
        f"{max(memory):.0f}",
        "" if most is None else f"{most:g}",
    ]
    return f"| {' | '.join(cells)} |"


def write(rows: list[str], times: int, load: float) -> None:
    """Put the table into the page, in the place of an earlier one."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    machine = f"{names[0] if names else 'a processor without a name'}, {len(os.sched_getaffinity(0))} cores"
    lines = [
        BEGIN,
        f"On {machine}, load {load:.1f} at the start; {times} runs each after one that is not counted.\n\n",
        "| command | median s | least s | processor s | modules | MB at most | promised s |\n",
        "|---|---|---|---|---|---|---|\n",
        *(f"{line}\n" for line in rows),
        END,
    ]
    page = PAGE.read_text() if PAGE.exists() else "# Performance\n"
    if BEGIN not in page:
        page += f"\n## Everyday commands\n\n{BEGIN}{END}"
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + "".join(lines) + rest.split(END)[1])


if __name__ == "__main__":
    main()

"""Slurm's commands: the script of a job array, its submission (by submitit), and what has become of its jobs.

submitit learns states from `sacct` alone, and waits for ever where accounting is off: states are asked of `squeue`.
"""

import contextlib
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3_exp.launchers.job import Job
from m3_exp.types import EngineSettings, LauncherSettings, M3Error

_PATIENCE = 20.0  # seconds that a command of Slurm may take
_NOTICE = 90  # seconds before its time limit at which a job puts itself back into the queue
_ENDED = frozenset((
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
))  # fmt: skip
_OURS = ("array", "error", "job-name", "open-mode", "output", "requeue", "signal")
_NOISE = re.compile(r"submitit (INFO|WARNING)|srun: (?!error)|srun: error: .*task|slurmstepd.* CANCELLED AT|^\s*$")


class Unreachable(Exception):
    """Slurm does not answer: why."""


@dataclass(frozen=True)
class State:
    """A job of an array: its id as in `12_3`, its number among the run's jobs from 1, and what `squeue` says of it."""

    job: str
    number: int
    name: str
    reason: str

    @property
    def alive(self) -> bool:
        """Whether it runs, or will run."""
        return self.name not in _ENDED


def lacks() -> str | None:
    """Return what this machine lacks to submit jobs; None where all is there."""
    if importlib.util.find_spec("submitit") is None:
        return "launcher=slurm needs submitit, which is not installed: pip install 'm3_exp[slurm]'"
    if missing := [command for command in ("sbatch", "squeue", "srun", "scancel") if shutil.which(command) is None]:
        return f"launcher=slurm needs Slurm's {missing[0]}, which is not here: run m3 on a login node of the cluster"
    return None


def version() -> str:
    """Return what Slurm calls itself.

    Raises:
        M3Error: it does not answer.
    """
    try:
        partitions = sorted(set(_told(["sinfo", "--noheader", "--format=%R"]).split()))
        return f"{_told(['squeue', '--version']).strip()}, partitions: {', '.join(partitions)}"
    except Unreachable as error:
        raise M3Error(f"Slurm does not answer ({error}): is this a node of the cluster?") from error


def check(settings: LauncherSettings) -> None:
    """Refuse options of sbatch that would break what m3 relies on.

    Raises:
        M3Error: one of them is given.
    """
    if strange := [key for key in settings.sbatch if key.replace("_", "-") in _OURS]:
        raise M3Error(f"launcher.sbatch.{strange[0]} is set by m3 itself; leave it out")


def parameters(engine: EngineSettings, settings: LauncherSettings, run: str) -> dict[str, Any]:
    """Return the settings of a run's jobs as submitit takes them."""
    gres = settings.gres or _gpus(engine, settings)
    return {
        "job_name": job_name(run),
        "time": settings.minutes,
        "signal_delay_s": min(_NOTICE, settings.minutes * 60 // 3),
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "gres": gres,
        "cpus_per_task": settings.cpus,
        "srun_args": [f"--cpus-per-task={settings.cpus}"] if settings.cpus else None,  # srun takes none from sbatch
        "mem": f"{settings.memory}GB" if settings.memory else None,
        "setup": [line for asked in settings.setup for line in _or_end(asked)] or None,
        "wckey": None,
        "additional_parameters": {"requeue": True, **settings.sbatch},
    }


def _or_end(line: str) -> tuple[str, str]:
    """Return a line of the setup, and one that ends the job where it failed, rather than later of what is missing."""
    said = shlex.quote(f"launcher.setup failed: {line}")
    return line, f"[ $? = 0 ] || {{ echo {said} >&2; exit 1; }}"


def _gpus(engine: EngineSettings, settings: LauncherSettings) -> str | None:
    """Return the GPUs of a job, if its partition has any and the engine takes them."""
    if engine.name == "recorded" or shutil.which("sinfo") is None:
        return None
    with contextlib.suppress(Unreachable):
        wanted = settings.partition.split(",") if settings.partition else []
        for line in _told(["sinfo", "--noheader", "--format=%P|%G"]).splitlines():
            name, _, gres = line.partition("|")
            mine = name.rstrip("*") in wanted if wanted else name.endswith("*")  # the default one has a star
            if mine and "gpu" in gres:
                return f"gpu:{engine.tensor_parallel_size}"
    return None


def script(engine: EngineSettings, settings: LauncherSettings, count: int, folder: Path, run: str) -> str:
    """Return what `sbatch` is given for so many jobs, as submitit writes it.

    Raises:
        M3Error: submitit is not installed, or a setting is not allowed.
    """
    if (reason := lacks()) and "submitit" in reason:
        raise M3Error(reason)
    from submitit.slurm.slurm import _make_sbatch_string

    check(settings)
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    asked = parameters(engine, settings, run)
    return str(_make_sbatch_string(command, folder, map_count=count if count > 1 else None, **asked))


def submit(engine: EngineSettings, settings: LauncherSettings, jobs: list[Job], folder: Path) -> str:
    """Submit the jobs of a run as an array, and return its id.

    Raises:
        M3Error: Slurm refuses them, in its own words.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    from submitit.slurm.slurm import SlurmExecutor

    executor = SlurmExecutor(folder, max_num_timeout=10**6)
    executor.update_parameters(**parameters(engine, settings, jobs[0].run))
    try:
        with contextlib.redirect_stderr(io.StringIO()), _outside_a_job():
            return str(executor.submit_array(jobs)[0].job_id).partition("_")[0]
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        said = [
            line.removeprefix("sbatch: ").removeprefix("error: ") for line in str(error).splitlines() if line.strip()
        ]
        raise M3Error(f"sbatch refuses the jobs: {'; '.join(dict.fromkeys(said))}") from error


@contextlib.contextmanager
def _outside_a_job() -> Iterator[None]:
    """Hide what a job that this process runs in would hand on to its own jobs: where Slurm is, stays."""
    inside = "SLURM_JOB_ID" in os.environ
    theirs = [key for key in os.environ if key.startswith(("SLURM_", "SRUN_", "SUBMITIT_")) and key != "SLURM_CONF"]
    kept = {key: os.environ.pop(key) for key in theirs if inside}
    try:
        yield
    finally:
        os.environ.update(kept)


def states(run: str) -> list[State]:
    """Return the jobs of a run that Slurm knows, in their order; those that ended lately may be among them.

    Raises:
        Unreachable: it does not answer.
    """
    return [state for name, state in _queue(f"--name={job_name(run)}") if name == job_name(run)]


def living() -> set[str]:
    """Return the ids of the runs that have living jobs of this user, in whatever store.

    Raises:
        Unreachable: Slurm does not answer.
    """
    prefix = job_name("")
    return {name.removeprefix(prefix) for name, state in _queue() if name.startswith(prefix) and state.alive}


def _queue(*options: str) -> Iterator[tuple[str, State]]:
    asked = ["squeue", f"--user={os.getuid()}", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%j"]
    for line in _told([*asked, *options]).splitlines():
        job, state, reason, name = line.strip().split("|", 3)
        task = job.partition("_")[2]
        yield name, State(job, int(task) + 1 if task.isdigit() else 1, state, reason)


def cancel(run: str, *options: str) -> None:
    """Cancel the jobs of a run, as far as Slurm answers. `options` narrow them down."""
    with contextlib.suppress(Unreachable):
        _told(["scancel", f"--user={os.getuid()}", f"--name={job_name(run)}", *options])


def lives(run: str) -> bool:
    """Tell whether a job of a run lives, for all that is known."""
    try:
        return any(state.alive for state in states(run))
    except Unreachable:
        return True


def wait_until_gone(run: str, seconds: float) -> None:
    """Wait until no job of a run lives, but not longer than so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and lives(run):
        time.sleep(0.5)


def last_words(folder: Path, job: str) -> str:
    """Return the last line of a job's log that says something; empty where there is none."""
    with contextlib.suppress(OSError):
        lines = (folder / f"{job}_0_log.err").read_text(errors="replace").splitlines()[-200:]
        return next((line.strip()[:300] for line in reversed(lines) if not _NOISE.search(line)), "")
    return ""


def job_name(run: str) -> str:
    """Return the name of a run's jobs in Slurm."""
    return f"m3-{run}"


def _told(command: list[str]) -> str:
    """Return what a command of Slurm prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, errors="replace", check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unreachable(f"{command[0]}: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise Unreachable(said[-1] if said[-1].startswith(command[0]) else f"{command[0]}: {said[-1]}")
    return done.stdout

"""A Slurm of one machine, of Debian's packages: two partitions, no accounting; its folders lie where the test says."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun")
CONF = """
ClusterName=m3
SlurmctldHost={host}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmctldPort={port}
SlurmdPort={other}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
KillWait=5
NodeName={host} CPUs=8 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=later Nodes={host} MaxTime=INFINITE State=DOWN
"""


class NotHere(Exception):
    """Slurm cannot be started on this machine: why."""


@contextlib.contextmanager
def running() -> Iterator[None]:
    """Start Slurm, and stop it at the end; SLURM_CONF names it meanwhile.

    Raises:
        NotHere: a program is missing, this is not root, or it does not come up.
    """
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise NotHere(f"{missing[0]} is not installed (Debian: slurmctld slurmd slurm-client munge)")
    if os.getuid():
        raise NotHere("slurmd is started by root alone")
    folder = Path(tempfile.mkdtemp(prefix="m3-slurm-"))  # a socket's path is short
    before = os.environ.get("SLURM_CONF")
    try:
        conf = _written(folder)
        os.environ["SLURM_CONF"] = str(conf)
        _start(folder, conf)
        yield
        _drain()
    finally:
        for name in ("slurmd", "slurmctld", "munged"):
            _stop(folder / f"{name}.pid")
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(folder, ignore_errors=True)


def _written(folder: Path) -> Path:
    for name in ("spool", "state"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge.key").chmod(0o400)
    user = pwd.getpwnam("munge")
    for path in (folder, folder / "munge.key"):
        os.chown(path, user.pw_uid, user.pw_gid)
    folder.chmod(0o755)
    conf = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    conf.write_text(CONF.format(host=host, folder=folder, port=_free_port(), other=_free_port()))
    return conf


def _start(folder: Path, conf: Path) -> None:
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    options = [f"--{key}={folder / name}" for key, name in {**files, "seed-file": "munged.seed"}.items()]
    for command in (["runuser", "-u", "munge", "--", "munged", "--force", *options],
                    ["slurmctld", "-f", str(conf)], ["slurmd", "-f", str(conf)]):  # fmt: skip
        with open(folder / "started.log", "ab") as log:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60, check=False)
        if done.returncode:
            raise NotHere(f"{command[0]} did not start: {(folder / 'started.log').read_text()[-300:]}")
    end = time.monotonic() + 60
    while "idle" not in slurm("sinfo", "--noheader", "--format=%T", "--partition=main"):
        if time.monotonic() > end:
            raise NotHere(f"its node does not come up: {(folder / 'slurmd.log').read_text()[-300:]}")
        time.sleep(0.2)


def slurm(*command: str) -> str:
    """Run a command of Slurm and return what it says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def _drain() -> None:
    """Wait until no job is left, so that none of its processes outlives Slurm."""
    slurm("scancel", f"--user={os.getuid()}")
    end = time.monotonic() + 30
    while slurm("squeue", "--noheader") and time.monotonic() < end:
        time.sleep(0.2)


def _stop(pid_file: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])

"""Weights & Biases: runs as plain values, and the child process that writes and sends them. The one home of wandb.

`tracker.py` starts the child (`python -m m3_exp.reporting.wandb.track`) beside a sweep and hands it runs. Every run is
first written offline, whole and under an id made of what it stands for. Where there is a key, W&B's own `wandb sync`
then sends it: a refused key, a dead network or a hanging server costs nothing but the sending, and `wandb sync DIR`
makes up for it at any later time.

A run that is recorded with the same content is not written again; one whose content changed replaces its folder, and
on the server `wandb sync` replaces the run of the same id. What is recorded lies in `DIR/wandb/tracked/`
(`store.WandbFiles`).
"""

import contextlib
import json
import netrc
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from m3_exp.amounts import counted
from m3_exp.reading.paths import expanded
from m3_exp.reading.records import read_record, sealed
from m3_exp.store import WandbFiles, dumps, in_turn, write_atomic
from m3_exp.types import Json, M3Error, identity

# What says which run a process belongs to: not to be taken over where m3 runs inside another W&B run or agent.
_OF_A_RUN = ("WANDB_MODE", "WANDB_DIR", "WANDB_RUN_ID", "WANDB_RUN_GROUP", "WANDB_NAME", "WANDB_NOTES", "WANDB_TAGS",
             "WANDB_JOB_TYPE", "WANDB_RESUME", "WANDB_DISABLED", "WANDB_SWEEP_ID", "WANDB_SERVICE",
             "WANDB_PROGRAM")  # fmt: skip
_VARIABLES = {"project": "WANDB_PROJECT", "entity": "WANDB_ENTITY", "dir": "WANDB_DIR"}
_MODES: Mapping[str, Literal["offline", "online", "disabled"]] = {
    **{"online": "online", "run": "online", "shared": "online", "offline": "offline", "dryrun": "offline"},
    "disabled": "disabled",
}  # W&B's, and what they mean here
_YES = ("true", "1", "t", "yes", "y", "on")  # of WANDB_DISABLED
_ORPHAN = 30.0  # seconds that a child goes on sending whose parent was killed
_SEND_EVERY = 60.0  # seconds between two sendings during a sweep; each costs about 3 s of one core


@dataclass(frozen=True)
class Settings:
    """`conf/tracker/wandb.yaml`. `dir` is where W&B puts its folder `wandb`; None: the store.

    Raises:
        M3Error: an unknown mode, or a value of the wrong type.
    """

    project: str = "m3_exp"
    entity: str | None = None
    mode: str = "auto"
    dir: str | None = None
    items: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "offline", "online"):
            raise M3Error(f"tracker.mode={self.mode} is not known; allowed: auto, offline, online")
        if not isinstance(self.items, bool):
            raise M3Error(f"tracker.items={self.items} is not known; allowed: true, false")
        if not isinstance(self.project, str) or not self.project:
            raise M3Error(f"tracker.project={self.project} is no name of a W&B project, such as m3_exp")
        if len(self.project) > 128 or re.search(r"[/\\#?%:\x00-\x1f\x7f]", self.project):
            raise M3Error(
                f"tracker.project={self.project} is no name of a W&B project: at most 128 characters, none of /\\#?%:"
            )
        if not isinstance(self.entity, str | None):
            raise M3Error(f"tracker.entity={self.entity} is no name of a W&B user or team")

    def files(self, store: Path) -> WandbFiles:
        """Return what lies in the folder that W&B calls `wandb`."""
        return WandbFiles((Path(self.dir).expanduser() if self.dir else store).resolve() / "wandb")

    def resolved(self, environment: Mapping[str, str] = os.environ) -> Literal["offline", "online", "disabled"]:
        """Return the mode that holds here. `auto` follows WANDB_DISABLED, then WANDB_MODE; then: online with a key.

        Raises:
            M3Error: WANDB_MODE is none of W&B's.
        """
        if self.mode in ("offline", "online"):
            return _MODES[self.mode]
        if environment.get("WANDB_DISABLED", "").lower() in _YES:
            return "disabled"
        wanted = environment.get("WANDB_MODE", "")
        if wanted and wanted not in _MODES:
            raise M3Error(f"WANDB_MODE={wanted} is not known; allowed: {', '.join(_MODES)}, or tracker.mode=offline")
        return _MODES[wanted or ("online" if has_key(environment) else "offline")]


def chosen(choice: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Settings | None:
    """Return the settings of a choice of `conf/tracker`; None for `none`.

    What the yaml does not set comes from W&B's own variables, as for `wandb.init`.
    """
    if choice["name"] == "none":
        return None
    given = {key: value for key, value in choice.items() if key != "name"}
    for key, variable in _VARIABLES.items():
        if given.get(key) is None and environment.get(variable):
            given[key] = environment[variable]
    if given.get("project") is None:
        given["project"] = Settings.project
    if given.get("dir") is not None:
        given["dir"] = expanded(str(given["dir"]), "tracker.dir")
    settings = Settings(**given)
    settings.resolved(environment)  # a mode that W&B does not know is told before anything is done
    return settings


def has_key(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether W&B would find a key (in the environment or netrc), without reading more of it than that."""
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    names = [environment["NETRC"]] if environment.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for name in names:
        with contextlib.suppress(OSError, netrc.NetrcParseError, UnicodeDecodeError):
            if host in netrc.netrc(os.path.expanduser(name)).hosts:
                return True
    return False


def default_entity() -> str | None:
    """Ask W&B for the entity that owns a key's projects. Raises what the client raises."""
    import wandb

    entity = wandb.Api(timeout=30).default_entity
    return str(entity) if entity else None


@dataclass(frozen=True)
class Grid:
    """A table: a row an item of `rows`, cells in the order of `columns`."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Files:
    """An artifact: `texts` by file name, and files to copy."""

    name: str
    type: str
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Logged:
    """One W&B run, whole. `steps` maps metric names (or globs) to the metric they are drawn over.

    `content` is the identity of what it says: the same id with the same content is not written twice.
    """

    id: str
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    config: Json
    summary: Json
    content: str
    notes: str = ""
    steps: Mapping[str, str] = field(default_factory=dict)
    history: tuple[Json, ...] = ()
    tables: Mapping[str, Grid] = field(default_factory=dict)
    artifacts: tuple[Files, ...] = ()


# ------------------------------------------------------------------------------------------------------ the child


class Recorder:
    """Writes runs into one W&B folder, each id once."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.files = WandbFiles(folder)

    def record(self, logged: Logged) -> bool:
        """Write a run unless it is there already with this content, and say which. Raises what W&B or the disk raises;
        nothing of the run is left then.
        """
        marker = self._marker(logged.id)
        with in_turn(self.files.lock):  # two sweeps of one store do not double a run
            if self.knows(logged.id, logged.content):
                return False
            before = set(self.folder.glob(f"*-{logged.id}"))
            try:
                made = self._write(logged)
                known = {"id": logged.id, "content": logged.content, "folder": made.name}
                write_atomic(marker, sealed(dumps(known), marker.stem))
            except BaseException:
                for folder in set(self.folder.glob(f"*-{logged.id}")) - before:
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            for folder in before - {made}:
                shutil.rmtree(folder, ignore_errors=True)
        return True

    def knows(self, run_id: str, content: str) -> bool:
        """Tell whether a run is recorded with this content, and still there."""
        known = self._known(self._marker(run_id))
        return known.get("content") == content and self._file(known, run_id).is_file()

    def unsent(self) -> list[Path]:
        """Return the folders of recorded runs that W&B has not marked as synced."""
        known = [self._known(marker) for marker in sorted(self.files.tracked.glob("*.json"))]
        files = [self._file(entry, str(entry.get("id"))) for entry in known]
        return [file.parent for file in files if file.is_file() and not file.with_suffix(".wandb.synced").exists()]

    def _marker(self, run_id: str) -> Path:
        return self.files.marker(identity([self.settings.entity, self.settings.project, run_id])[:32])

    def _known(self, marker: Path) -> Json:
        with contextlib.suppress(M3Error):
            return read_record(marker, marker.stem, self.files.quarantine, bare=True) or {}
        return {}

    def _file(self, entry: Json, run_id: str) -> Path:
        return self.folder / str(entry.get("folder", "")) / f"run-{run_id}.wandb"

    def _write(self, logged: Logged) -> Path:
        """Write one run through the client, offline, and return its folder. It is whole and not `resume`d: `wandb sync`
        puts it in the place of a run of the same id, where it would append a resumed one.

        Raises:
            OSError: W&B gave way to another folder, as it does where this one cannot be written.
        """
        import wandb

        run = wandb.init(
            project=self.settings.project, entity=self.settings.entity, id=logged.id, name=logged.name[:128],
            group=logged.group, job_type=logged.job_type, tags=[tag[:64] for tag in logged.tags],
            notes=logged.notes or None, config=logged.config, dir=str(self.folder.parent), mode="offline",
            settings=_quiet(),
        )  # fmt: skip
        with run:
            _fill(run, logged)
            made = Path(run.dir).resolve().parent
        if made.parent != self.folder or not (made / f"run-{logged.id}.wandb").stat().st_size:
            shutil.rmtree(made, ignore_errors=True)
            raise OSError(f"W&B cannot write to {self.folder}")
        return made


def _quiet() -> Any:
    """Return settings that leave out what W&B would find out by itself: console, code, git, machine, statistics."""
    import wandb

    return wandb.Settings(
        silent=True, console="off", save_code=False, disable_code=True, disable_git=True, disable_job_creation=True,
        x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False,
    )  # fmt: skip


def _fill(run: Any, logged: Logged) -> None:
    import wandb

    for metric in sorted(set(logged.steps.values())):
        run.define_metric(metric, summary="none")
    for metric, step in logged.steps.items():
        run.define_metric(metric, step_metric=step, summary="none")
    for row in logged.history:
        run.log(row)
    for name, grid in logged.tables.items():
        run.log({name: wandb.Table(columns=list(grid.columns), data=[list(row) for row in grid.rows])})
    run.summary.update(logged.summary)
    for files in logged.artifacts:
        artifact = wandb.Artifact(files.name, type=files.type)
        for name, text in sorted(files.texts.items()):
            with artifact.new_file(name, encoding="utf-8") as file:
                file.write(text)
        run.log_artifact(artifact)


class Sender:
    """Sends recorded runs by `wandb sync` in a process of its own: now and then, and once more at the end."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.log = recorder.files.log
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: set[Path] = set()
        self._last = -_SEND_EVERY

    def tick(self) -> None:
        """Begin a sending if none is on its way and the last began some time ago."""
        running = self._process is not None and self._process.poll() is None
        if not running and time.monotonic() - self._last > _SEND_EVERY:
            self._begin(self.recorder.unsent())

    def finish(self, patience: float) -> tuple[int, int, str]:
        """Send what is left; return how many runs were sent, how many are left after `patience`, and why."""
        deadline = time.monotonic() + patience
        self._wait(deadline)
        if time.monotonic() < deadline:
            self._begin(self.recorder.unsent())
            self._wait(deadline)
        left = self.recorder.unsent()
        return len(self._asked - set(left)), len(left), self._reason() if left else ""

    def _begin(self, folders: Sequence[Path]) -> None:
        self._last = time.monotonic()
        self._asked |= set(folders)
        if folders:
            with open(self.log, "wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "wandb", "sync", "--yes", *map(str, folders)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.recorder.folder.parent,
                )  # fmt: skip

    def _wait(self, deadline: float) -> None:
        if self._process is not None:
            try:
                self._process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _reason(self) -> str:
        """Return the last line of W&B's log, which says why a sending failed."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        errors = [line for line in lines if "ERROR" in line]
        return errors[-1].removeprefix("wandb: ") if errors else "no answer from the server"


def main() -> None:
    """Record the runs that come on standard input, a JSON line each after the request; say what became of them.

    The last line is `{"until": TIME}`: when the parent will have waited long enough.
    """
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # standard output is the parent's; W&B may print
    os.nice(10)
    request = json.loads(sys.stdin.readline())
    settings, folder = Settings(**request["settings"]), Path(request["folder"])
    online = settings.resolved() == "online"
    for name in _OF_A_RUN:
        os.environ.pop(name, None)
    os.environ.setdefault("WANDB_DATA_DIR", str(WandbFiles(folder).data))  # artifacts wait here until they are sent

    def say(**event: Any) -> None:
        with contextlib.suppress(OSError):  # the parent may be gone
            print(json.dumps(event), file=said, flush=True)

    recorder = Recorder(settings, folder)
    sender = Sender(recorder) if online else None
    until = None
    for line in sys.stdin:
        value = json.loads(line)
        if "until" in value:
            until = float(value["until"])
            break
        from pydantic import TypeAdapter

        logged = TypeAdapter(Logged).validate_python(value)
        try:
            say(what="written" if recorder.record(logged) else "known", count=1)
            if sender is not None:
                sender.tick()
        except Exception as error:  # a wall: the next run may fare better
            say(problem=f"run {logged.name} is not written: {type(error).__name__}: {error}")
    if sender is not None:
        sent, left, reason = sender.finish(_ORPHAN if until is None else until - time.time())
        say(what="sent", count=sent)
        if left:
            say(what="unsent", count=left)
            say(problem=f"{counted(left, 'run')} not sent: {reason}")
    os._exit(0)  # every run is finished; W&B's own ending would wait for its service


if __name__ == "__main__":
    main()

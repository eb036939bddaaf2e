"""How boxes are started: in bubblewrap's namespaces, under Landlock alone, in a container, or with no walls at all.

In all but the last the box locks itself down as well (lockdown.py). A driver counts as working where a run of it works
(`judge.working_driver`); that a binary or a kernel version is there proves nothing.
"""

import glob
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from m3_exp.scoring.sandbox.lockdown import Walls
from m3_exp.types import M3Error

_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}  # all that a box knows of the environment
_FLAGS = ("-s", "-S", "-B", "-P")
# After the standard library, and gone again before anything foreign runs: the folder's other modules are not for it.
_WARDEN = (
    "import sys; sys.path.append({folder!r}); from sandbox.warden import main; sys.path.pop();"
    " main({control}, walls={walls!r})"
)
_RELAY = "import sys; sys.path.append({folder!r}); from sandbox.relay import main; sys.path.pop(); main()"
_PACKAGE = Path(__file__).resolve().parent  # the folder called sandbox
_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_PYTHON = "/opt/python"  # where our interpreter is seen in namespaces and containers
_BOX = "/opt/box"  # where this package is seen there
_NOBODY = "65534"


@dataclass(frozen=True)
class Driver:
    """One way to start boxes: what comes before Python, which Python, and where it finds this package.

    `relayed`: only our standard input and output reach the inside, so a relay there starts the warden. `stop` is the
    command that ends what is left where the process does not end by itself. {name} in `stop` and in `prefix` is a name
    of its own for each start.
    """

    name: str
    prefix: tuple[str, ...]
    python: str
    folder: str
    walls: Walls
    relayed: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: dict(_ENVIRONMENT))
    stop: tuple[str, ...] = ()

    def command(self, control: int, name: str) -> list[str]:
        """Return the command line of a warden that listens on a descriptor, or of a relay in a container."""
        start = _RELAY if self.relayed else _WARDEN
        code = start.format(folder=self.folder, control=control, walls=self.walls)
        return [*(word.replace("{name}", name) for word in self.prefix), self.python, *_FLAGS, "-c", code]


# --------------------------------------------------------------------------------------------------- what a box sees


@dataclass(frozen=True)
class _View:
    """The files that a box sees, all read-only: (from, to) of what is bound, what is covered, (target, link)s."""

    bound: tuple[tuple[str, str], ...]
    covered: tuple[str, ...]  # folders of installed packages: answer keys lie there
    links: tuple[tuple[str, str], ...]

    @property
    def python(self) -> str:
        return f"{_PYTHON}/bin/{_VERSION}"


def _view() -> _View:
    """Show what the dynamic linker needs, this interpreter with its standard library, and this package."""
    library = sysconfig.get_path("stdlib")
    folders = ["/usr/lib", "/usr/lib64", "/lib", "/lib64"]
    links = tuple((os.readlink(folder), folder) for folder in folders if os.path.islink(folder))
    real = [folder for folder in folders if os.path.isdir(folder) and not os.path.islink(folder)]
    system = [_libraries(folder) for folder in real]
    bound = [(folder, folder) for folder in system]
    bound += [(os.path.realpath(sys.executable), f"{_PYTHON}/bin/{_VERSION}"), (library, f"{_PYTHON}/lib/{_VERSION}")]
    shared = sorted(glob.glob(f"{sys.base_prefix}/lib/*.so*")) if sys.base_prefix != "/usr" else []
    bound += [(path, f"{_PYTHON}/lib/{os.path.basename(path)}") for path in shared]
    covered = [path for folder in system for path in _packages(folder)]
    covered += [f"{_PYTHON}/lib/{_VERSION}/{os.path.relpath(path, library)}" for path in _packages(library)]
    return _View((*bound, (str(_PACKAGE), f"{_BOX}/sandbox")), tuple(covered), links)


def _libraries(folder: str) -> str:
    """Return where a system's libraries lie within a folder; Debian has a subfolder for each architecture."""
    inner = os.path.join(folder, str(sysconfig.get_config_var("MULTIARCH") or "."))
    return inner if os.path.isfile(os.path.join(inner, "libc.so.6")) else folder


def _packages(folder: str) -> list[str]:
    """Return the folders of installed packages below a library folder."""
    patterns = ("site-packages", "dist-packages", "python3*/site-packages", "python3*/dist-packages")
    return sorted(path for pattern in patterns for path in glob.glob(f"{folder}/{pattern}"))


# ------------------------------------------------------------------------------------------------ bubblewrap, Landlock


def bubblewrap() -> Driver | None:
    """Return the driver that uses bubblewrap's namespaces, or None where the program is not installed.

    Only options that old versions know: new user namespaces inside are stopped by the box's own lock (seccomp), and
    the environment is as small as it is given (`Driver.environment`).
    """
    program = shutil.which("bwrap")
    if program is None or not sys.platform.startswith("linux"):
        return None
    view = _view()
    prefix = [
        program, "--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY, "--unshare-pid", "--unshare-net",
        "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL", "--new-session",
        "--die-with-parent", "--setenv", "LD_LIBRARY_PATH", f"{_PYTHON}/lib",
    ]  # fmt: skip
    prefix += [word for target, link in view.links for word in ("--symlink", target, link)]
    prefix += [word for source, seen in view.bound for word in ("--ro-bind", source, seen)]
    prefix += [word for path in view.covered for word in ("--tmpfs", path, "--remount-ro", path)]
    prefix += [word for path in _build_notes() for word in ("--ro-bind", "/dev/null", path)]
    prefix += ["--hostname", "box", "--remount-ro", "/", "--chdir", "/", "--"]
    return Driver("bubblewrap", tuple(prefix), view.python, _BOX, "namespaces")


def _build_notes() -> list[str]:
    """Return where a box would find in which folders the interpreter was built and installed."""
    library = sysconfig.get_path("stdlib")
    notes = glob.glob(f"{library}/_sysconfigdata*.py") + glob.glob(f"{library}/config-*/Makefile")
    return sorted(f"{_PYTHON}/lib/{_VERSION}/{os.path.relpath(path, library)}" for path in notes)


def landlock() -> Driver | None:
    """Return the driver that relies on Landlock alone, or None on other systems than Linux."""
    if not sys.platform.startswith("linux"):
        return None
    return Driver("landlock", (), os.path.realpath(sys.executable), str(_PACKAGE.parent), "landlock")


def weak() -> Driver:
    """Return the driver that contains nothing: processes of their own with limits and an empty environment."""
    return Driver("weak", (), os.path.realpath(sys.executable), str(_PACKAGE.parent), "none")


# --------------------------------------------------------------------------------------------------------- containers

RUNTIMES = ("podman", "apptainer", "docker")
IMAGE = "M3_SANDBOX_IMAGE"


def container(runtime: str) -> Driver | None:
    """Return the driver of a container runtime, or None where it is not installed.

    It runs this machine's own interpreter on read-only binds in an otherwise empty root. With M3_SANDBOX_IMAGE it runs
    the `python3` (3.11 or later) of that image, which must be there already: nothing is pulled.
    """
    program = shutil.which(runtime)
    return in_container(runtime, program) if program else None


def in_container(runtime: str, program: str) -> Driver:
    """Return the driver of one runtime; `program` is its executable."""
    image = os.environ.get(IMAGE, "")
    if runtime == "docker" and not image:
        _make_empty_image(program)
    view = _View(((str(_PACKAGE), f"{_BOX}/sandbox"),), (), ()) if image else _view()
    python = "python3" if image else view.python
    variables = dict(_ENVIRONMENT) | ({} if image else {"LD_LIBRARY_PATH": f"{_PYTHON}/lib"})
    given = (view, image, "" if image else _empty_root(view), variables)
    words = _apptainer(*given) if runtime == "apptainer" else _oci(runtime, *given)
    return Driver(
        name=f"container:{runtime}",
        prefix=(program, *words),
        python=python,
        folder=_BOX,
        walls="namespaces",
        relayed=True,
        environment=dict(os.environ),  # the runtime's own: nothing of it reaches a container
        stop=() if runtime == "apptainer" else (program, "rm", "-f", "{name}"),  # apptainer's is a child of ours
    )


def _oci(runtime: str, view: _View, image: str, root: str, variables: Mapping[str, str]) -> Iterator[str]:
    """Give the words of `podman run` or `docker run` up to the program."""
    yield from ("run", "--rm", "-i", "--name", "{name}", "--pull", "never", "--network", "none", "--read-only")
    yield from ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", f"{_NOBODY}:{_NOBODY}")
    # Three quarters of this machine's memory, in MiB: boxes have limits of their own.
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4 >> 20
    yield from ("--pids-limit", "1024", "--memory", f"{memory}m", "--ulimit", "nofile=1024:1024")
    yield from ("--ulimit", "nproc=1024:1024", "--ulimit", "core=0:0", "--log-driver", "none", "--workdir", "/")
    yield from _seen(view, root, variables, "--volume")
    yield from ("--rootfs", root) if root and runtime == "podman" else ("--entrypoint", "", image or _EMPTY_IMAGE)


def _apptainer(view: _View, image: str, root: str, variables: Mapping[str, str]) -> Iterator[str]:
    """Give the words of `apptainer exec` up to the program."""
    yield from ("--silent", "exec", "--containall", "--cleanenv", "--no-home", "--no-init", "--no-privs")
    yield from ("--net", "--network", "none", "--pwd", "/")
    yield from _seen(view, root, variables, "--bind")
    yield image or root


def _seen(view: _View, root: str, variables: Mapping[str, str], bind: str) -> Iterator[str]:
    """Give the words for what a container sees: variables and files; `bind` is the runtime's option."""
    for key, value in variables.items():
        yield from ("--env", f"{key}={value}")
    for source, seen in (*view.bound, *((f"{root}/{_NOTHING}", path) for path in view.covered)):
        yield from (bind, f"{source}:{seen}:ro")


_NOTHING = "var"  # an empty folder in the empty root
_EMPTY_IMAGE = "m3-sandbox-empty:1"  # docker takes no folder as a root: see `_make_empty_image`


def _make_empty_image(program: str) -> None:
    """Give docker an image of empty folders, from nothing, once.

    Raises:
        M3Error: docker does not take it.
    """
    if subprocess.run([program, "image", "inspect", _EMPTY_IMAGE], capture_output=True, check=False).returncode == 0:
        return
    root = _empty_root(_view())
    tar = subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True)
    made = subprocess.run([program, "import", "-", _EMPTY_IMAGE], input=tar.stdout, capture_output=True, check=False)
    if made.returncode != 0:
        raise M3Error(f"{program} import failed: {made.stderr.decode(errors='replace').strip()[:200]}")


def _empty_root(view: _View) -> str:
    """Return a folder that is empty but for the places where something is bound; missing places are added."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = cache / "m3_exp" / "sandbox-root"
    sources = {seen.lstrip("/"): source for source, seen in view.bound}
    for place in ("proc", "dev", "sys", "tmp", "etc", "run", "var", *sources):
        path = root / place
        if os.path.isdir(sources.get(place, "/")):
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        else:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.touch()
    for target, link in view.links:
        if not os.path.lexists(root / link.lstrip("/")):
            (root / link.lstrip("/")).symlink_to(target)
    return str(root)

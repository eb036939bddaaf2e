"""How boxes are started: inside bubblewrap's namespaces, or under Landlock alone.

In both the box locks itself down as well (lockdown.py). Whether a driver works here is found out by running it
(`judge.working_driver`), never by looking for a binary or a kernel version.
"""

import glob
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}  # all that a box knows of the environment
_FLAGS = ("-s", "-S", "-B", "-P")
_START = (
    "import sys; sys.path.insert(0, {folder!r}); from sandbox.warden import main; main({control}, landlock={landlock})"
)
_PACKAGE = Path(__file__).resolve().parent  # the folder called sandbox
_INSIDE = "/opt/python"


@dataclass(frozen=True)
class Driver:
    """One way to start boxes: what comes before Python, which Python, and where it finds this package."""

    name: str
    prefix: tuple[str, ...]
    python: str
    folder: str
    landlock: bool

    def command(self, control: int) -> list[str]:
        """Return the command line of a warden that listens on a descriptor."""
        start = _START.format(folder=self.folder, control=control, landlock=self.landlock)
        return [*self.prefix, self.python, *_FLAGS, "-c", start]

    @property
    def environment(self) -> dict[str, str]:
        return dict(_ENVIRONMENT)


def bubblewrap() -> Driver | None:
    """Return the driver that uses bubblewrap's namespaces, or None where the program is not installed.

    Only options that old versions know: new user namespaces inside are stopped by the box's own lock (seccomp), and
    the environment is as small as it is given (`Driver.environment`).
    """
    program = shutil.which("bwrap")
    if program is None or not sys.platform.startswith("linux"):
        return None
    library = sysconfig.get_path("stdlib")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefix = [
        program, "--unshare-user", "--uid", "65534", "--gid", "65534", "--unshare-pid", "--unshare-net",
        "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL", "--new-session",
        "--die-with-parent", "--setenv", "LD_LIBRARY_PATH", f"{_INSIDE}/lib",
    ]  # fmt: skip
    prefix += _shown(["/usr/lib", "/usr/lib64", "/lib", "/lib64"], masked=_packages("/usr/lib"))
    prefix += ["--ro-bind", os.path.realpath(sys.executable), f"{_INSIDE}/bin/{version}"]
    prefix += ["--ro-bind", library, f"{_INSIDE}/lib/{version}"]
    for path in _packages(library):
        prefix += _hidden(f"{_INSIDE}/lib/{version}/{os.path.relpath(path, library)}")
    for path in sorted(glob.glob(f"{sys.base_prefix}/lib/*.so*")) if sys.base_prefix != "/usr" else []:
        prefix += ["--ro-bind", path, f"{_INSIDE}/lib/{os.path.basename(path)}"]
    prefix += ["--ro-bind", str(_PACKAGE), "/opt/box/sandbox", "--remount-ro", "/", "--chdir", "/", "--"]
    return Driver("bubblewrap", tuple(prefix), f"{_INSIDE}/bin/{version}", "/opt/box", landlock=False)


def _packages(folder: str) -> list[str]:
    """Return the folders of installed packages below a library folder: they stay hidden, answer keys lie there."""
    patterns = ("site-packages", "dist-packages", "python3*/site-packages", "python3*/dist-packages")
    return sorted(path for pattern in patterns for path in glob.glob(f"{folder}/{pattern}"))


def _shown(folders: Sequence[str], masked: Sequence[str]) -> Iterator[str]:
    """Bind what the dynamic linker needs, read-only; a symbolic link stays one."""
    for folder in folders:
        if os.path.islink(folder):
            yield from ("--symlink", os.readlink(folder), folder)
        elif os.path.isdir(folder):
            yield from ("--ro-bind", folder, folder)
    for path in masked:
        yield from _hidden(path)


def _hidden(folder: str) -> list[str]:
    """Cover a folder with an empty one that cannot be written."""
    return ["--tmpfs", folder, "--remount-ro", folder]


def landlock() -> Driver | None:
    """Return the driver that relies on Landlock alone, or None on other systems than Linux."""
    if not sys.platform.startswith("linux"):
        return None
    python = os.path.realpath(sys.executable)
    return Driver("landlock", (), python, str(_PACKAGE.parent), landlock=True)

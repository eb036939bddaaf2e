"""Paths as people write them: one rule for `~`, and names that no file can have."""

import os
from pathlib import Path

from m3_exp.reading.files import exists
from m3_exp.types import M3Error


def expanded(text: str, what: str) -> str:
    """Return a path with a leading `~` or `~user` replaced by that home; `what` is what the path is called.

    Raises:
        M3Error: it is empty, holds a NUL, is not UTF-8, or that home is not known.
    """
    if not text:
        raise M3Error(f"{what} is empty: give a path, or leave it out")
    if "\0" in text:
        raise M3Error(f"{what} holds a NUL, which no path can: correct it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise M3Error(f"{what}={text} is not UTF-8: rename it, or give another path to it") from None
    path = os.path.expanduser(text)
    if path.startswith("~"):
        home = path.partition("/")[0]
        raise M3Error(
            f"{what}={text}: the home of {home} is not known here: write the path out, or ./{path} for a name"
        )
    return path


def given(text: str) -> Path:
    """Return the path of a command line's own option, by the rule of `expanded`."""
    return Path(expanded(text, "the path"))


def config_dir(text: str) -> Path:
    """Return the folder of a --config-dir; raises as `expanded`, and where it is no folder."""
    folder = given(text)
    if not exists(folder) or not folder.is_dir():
        raise M3Error(f"--config-dir {folder} is not a directory: give one with family/, pair/ ... or sweeps/")
    return folder


def is_file(path: Path) -> bool:
    """Tell whether a regular file lies at a path. A name that no file can have counts as absent.

    Raises:
        M3Error: a folder on the way may not be looked into.
    """
    return exists(path) and path.is_file()

"""Compositions that are kept by content: in this process, and between processes in the user's cache folder.

What Hydra makes of choices (`family=lab`, `method=ties`) depends on the yaml files alone, so their content is the key;
another file, or another version of Hydra, is another key. Values of the command line are never kept: they may be
secrets. A file that is missing, damaged or cannot be written is composed again.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
import omegaconf

from m3_exp.command_line import ROOT
from m3_exp.config.values import Tree
from m3_exp.reading.records import Damaged, sealed, unsealed
from m3_exp.store.files import write_atomic

_FORMAT = 1  # goes up with what composing makes of the same files
_MOST = 2000  # files in the folder
_CHOICE = re.compile(r"[a-z_]+=[\w,\[\] ]+")
_MEMORY: dict[str, Tree] = {}


class Compositions:
    """What the choices of conf/ and of `config_dirs`, as they are now, compose to."""

    def __init__(self, config_dirs: Sequence[Path]) -> None:
        digest = hashlib.sha256(f"{_FORMAT} {hydra.__version__} {omegaconf.__version__}".encode())
        for folder in (ROOT / "conf", *config_dirs):
            for file in sorted((*folder.glob("*.yaml"), *folder.glob("*/*.yaml"))):
                digest.update(f"\n{file.relative_to(folder)}\n".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
        self._content = digest.hexdigest()

    def of(self, choices: Sequence[str], compose: Callable[[], Tree], stage: str = "composed") -> Tree:
        """Return what the choices compose to; `compose` makes it where it is not kept."""
        name = hashlib.sha256("\n".join((self._content, stage, *choices)).encode()).hexdigest()
        if name not in _MEMORY:
            path = _folder() / f"{name}.json"
            may_be_kept = path.is_absolute() and all(map(_CHOICE.fullmatch, choices))
            tree = _read(path, name) if may_be_kept else None
            if tree is None:
                tree = compose()
                if may_be_kept:
                    _write(path, name, tree)
            _MEMORY[name] = tree
        return _MEMORY[name]


def _folder() -> Path:
    """Return the folder; a relative one where there is no home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given if os.path.isabs(given) else os.path.expanduser("~/.cache")) / "m3_exp" / "composed"


def _read(path: Path, name: str) -> Tree | None:
    with contextlib.suppress(OSError, Damaged):
        return unsealed(path.read_bytes(), name)
    return None


def _write(path: Path, name: str, tree: Tree) -> None:
    with contextlib.suppress(OSError, TypeError, ValueError):
        text = json.dumps(tree, separators=(",", ":"))  # in the order of the keys: benchmarks stand in it
        if json.loads(text) != tree:  # a key that is a number, a value that is none
            return
        write_atomic(path, sealed(text, name))
        if len(files := list(path.parent.glob("*.json"))) > _MOST:
            files.sort(key=lambda file: file.stat().st_mtime)
            for old in files[: len(files) - _MOST + _MOST // 4]:  # a quarter, or each new one would sort them all
                old.unlink()

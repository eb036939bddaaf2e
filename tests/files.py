"""Files that tests write."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_lines(path: Path, rows: Iterable[object]) -> Path:
    """Write one JSON value a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def edit_json(folder: Path, change: Callable[[dict[str, Any]], object], name: str = "config.json") -> None:
    """Change a JSON object in a folder."""
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))

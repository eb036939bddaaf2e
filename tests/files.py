"""Files that tests write, and commands that read them."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_lines(path: Path, rows: Iterable[object]) -> Path:
    """Write one JSON value a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recorded_run(answers: Path, base: Path, *experts: Path) -> list[str]:
    """Return what asks for models by their paths (by default the base alone) whose answers are read from a file."""
    listed = ",".join(map(str, experts or (base,)))
    models = ["family=local", f"family.base={base}", f"family.experts=[{listed}]"]
    return [*models, "engine=recorded", f"engine.answers={answers}"]


def edit_json(folder: Path, change: Callable[[dict[str, Any]], object], name: str = "config.json") -> None:
    """Change a JSON object in a folder."""
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))

"""Make the golden record: `python -m tests.golden.make world` its models and its store, `... said` what commands say.

The world is made once, by the code that the record speaks for; after it only what is said may be made again, and each
difference is looked at (`python -m tests.golden.make diff`). `said PART` and `diff PART` ask only the commands whose
name holds PART.
"""

import difflib
import gzip
import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from tests.golden import scripted
from tests.golden.commands import BENCHMARKS, CONFIG, RUNS, SAID, WORLD, bare, call, record
from tests.models import Shape, fine_tuned, random_weights, write_model

SHAPE = Shape(vocab=264, hidden=8, inner=8, layers=1, heads=2, kv_heads=1, context=4096, tied=True)


def world() -> None:
    """Write tiny models, answers to the lab's items, and the store that all runs leave behind."""
    sys.modules["m3_exp.engines.vllm"] = scripted
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        base = random_weights(SHAPE, 0, torch.float32)
        write_model(Path("models/base"), base, SHAPE)
        for seed, expert in enumerate(("lm", "math", "code"), 1):
            write_model(Path("models", expert), fine_tuned(base, seed, 0.1), SHAPE)
        for benchmark in BENCHMARKS:
            Path(f"answers-{benchmark}.jsonl").write_text("".join(map(answer, scripted.saved(benchmark))))
        for command in RUNS:
            code, text = call(["run", *command, "engine=vllm", *CONFIG, "store=store", "tracker=none"])
            print(code, " ".join(command), text[-200:], sep="\n", flush=True)
        files = {str(path.relative_to(name)): path.read_bytes() for path in Path(name).rglob("*") if path.is_file()}
        pack(WORLD, files)


def answer(pair: tuple[str, str]) -> str:
    return json.dumps({"id": pair[0], "text": pair[1]}) + "\n"


def pack(archive: Path, files: Mapping[str, bytes]) -> None:
    """Write files as an archive, which is the same for the same files."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    archive.write_bytes(gzip.compress(held.getvalue(), 9, mtime=0))


def kept() -> dict[str, str]:
    """Return what the record holds, by command."""
    with tarfile.open(SAID) as tar:
        return {member.name: bare(tar.extractfile(member).read().decode()) for member in tar}  # type: ignore[union-attr]


def main(what: str, part: str = "") -> int:
    if what == "world":
        world()
    elif what == "said":
        others = {name: text for name, text in (kept() if part else {}).items() if part not in name}
        pack(SAID, {name: text.encode() for name, text in {**others, **dict(record(part))}.items()})
    else:
        before = {name: text for name, text in kept().items() if part in name}
        now = dict(record(part))
        for name in sorted(before | now):
            lines = [texts.get(name, "").splitlines(keepends=True) for texts in (before, now)]
            sys.stdout.writelines(difflib.unified_diff(*lines, f"before: {name}", f"now: {name}", n=0))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Bytes depend on content alone: not on hash seeds, threads, blocks, sharding, layout, order or company."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.stream import stream, write
from m3_exp.store import Store
from m3_exp.types import Recipe, Source
from tests.models import (
    AVERAGE,
    TASK,
    TIES,
    Shape,
    fine_tuned,
    random_weights,
    resized,
    write_adapter,
    write_gguf,
    write_model,
    write_three,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bytes")
    base = random_weights(Shape(), 0)
    write_three(root, rows=270)
    write_model(root / "base-bin", base, layout="bin", shards=3)
    write_model(root / "a-sharded", fine_tuned(base, 1), shards=5)
    write_model(root / "b-bin", resized(fine_tuned(base, 2), 270, 5), layout="bin", shards=2)
    return root


def recipe(world: Path, names: tuple[str, str, str], lam: float = 0.3, method: str = TIES) -> Recipe:
    base, *experts = (Source(str(world / name)) for name in names)
    params = {TIES: {"scaling": 0.8, "retain": 0.6}, TASK: {"scaling": 0.8}, AVERAGE: {}}[method]
    masked = {"drop_rate": 0.2, "seed": 5} if method != AVERAGE else None
    return Recipe(base, tuple(experts), method, params, (lam, 1 - lam), masked)


def digest(world: Path, of: Recipe, store: str = "store", **how: int) -> str:
    flow = stream(of, Store(world / store), **how)  # type: ignore[arg-type]
    for _ in flow:
        pass
    return flow.digest


@pytest.mark.slow
@pytest.mark.parametrize("method", [TIES, AVERAGE])
def test_blocks_threads_sharding_layout_and_order(world: Path, method: str) -> None:
    first = digest(world, recipe(world, ("base", "a", "b"), method=method))
    for i, how in enumerate(
        ({"threads": 1, "block": 777}, {"threads": 5, "block": 4096}, {"threads": 2, "block": 1 << 20})
    ):
        assert digest(world, recipe(world, ("base", "a", "b"), method=method), f"other{i}", **how) == first
    assert digest(world, recipe(world, ("base-bin", "a-sharded", "b-bin"), method=method), "other3") == first
    assert digest(world, recipe(world, ("base", "b", "a"), lam=0.7, method=method), "other4") == first
    assert digest(world, recipe(world, ("base", "a", "b"), lam=0.7, method=method)) != first


@pytest.mark.slow
def test_lora_blocks(tmp_path: Path) -> None:
    shape = Shape(tied=True)
    write_gguf(tmp_path / "base.gguf", random_weights(shape, 0), shape, "Q8_0")
    write_adapter(tmp_path / "x", shape, 1, rank=3)
    write_adapter(tmp_path / "y", shape, 2, rank=5)
    base = Source(str(tmp_path / "base.gguf"))
    experts = tuple(Source(base.location, adapter=str(tmp_path / name)) for name in "xy")
    masked = {"drop_rate": 0.2, "seed": 1}
    of = Recipe(base, experts, TIES, {"scaling": 1.0, "retain": 0.7}, (0.4, 0.6), masked, dtype="float32")
    assert len({digest(tmp_path, of, f"store{block}", block=block) for block in (61, 1000, 1 << 16)}) == 1


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def merge(world: Path, name: str, threads: int, block: int, verify: bool = True) -> str:
    """Write one merge of the world into a directory, with a store of its own, and return its digest."""
    of, store = recipe(world, ("base", "a", "b")), Store(world / f"store-{name}")
    how: dict[str, int] = {"shard_bytes": 20000, "threads": threads, "block": block}
    return write([of], [world / name], store, of.experts[0], verify=verify, **how)[0].digest


@pytest.fixture(scope="module")
def whole(world: Path) -> dict[str, str]:
    """What `merge` writes."""
    merge(world, "whole", 1, 1 << 16)
    return files(world / "whole")


@pytest.mark.slow
def test_whole_directories_under_another_hash_seed_and_other_threads(world: Path, whole: dict[str, str]) -> None:
    code = "import sys; from pathlib import Path; from tests.test_merging_bytes import merge; "
    code += "print(merge(Path(sys.argv[1]), 'other', 3, 999), hash('m3'))"
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(world)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=120)
    of, hashed = done.stdout.split()
    assert int(hashed) != hash("m3")
    assert of == json.loads((world / "whole" / "recipe.json").read_text())["digest"]
    assert files(world / "other") == whole
    assert len(list((world / "other").glob("model-*-of-*.safetensors"))) > 2


def test_one_pass_gives_the_bytes_of_single_merges(world: Path) -> None:
    store = Store(world / "store")
    lams = [0.0, 0.25, 1.0]
    recipes = [recipe(world, ("base", "a", "b"), lam, method) for method in (TIES, TASK, AVERAGE) for lam in lams]
    outs = [world / "many" / str(i) for i in range(len(recipes))]
    many = write(recipes, outs, store, tokenizer=Source(str(world / "b")))
    assert len({written.digest for written in many}) == len(recipes)
    for i, (of, written) in enumerate(zip(recipes, many, strict=True)):
        (single,) = write([of], [world / "single" / str(i)], store, tokenizer=Source(str(world / "b")))
        assert files(single.path) == files(written.path)
        assert written.digest == single.digest == digest(world, of)
        fresh = Store(world / "nothing-remembered")
        assert open_model(Source(str(written.path)), fresh).digest == written.digest


def test_one_expert_alone_keeps_its_bits(world: Path) -> None:
    a = Source(str(world / "a"))
    of = recipe(world, ("base", "a", "b"), 1.0, AVERAGE)
    merged = dict(stream(of, Store(world / "store")))
    model = open_model(a, Store(world / "store"))
    assert sorted(merged) == sorted(model.tensors)
    assert all(torch.equal(model.read(n, 0, t.numel()), t.view(-1)) for n, t in merged.items())
    assert digest(world, of) == model.digest


@pytest.mark.slow
def test_killed_while_writing_leaves_no_final_directory(world: Path, whole: dict[str, str]) -> None:
    """SIGKILL at four moments: the final name either does not exist or is whole, and the same command then succeeds.

    The processes are copies of one that has only imported, as a process that calculates is not safe to copy.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    names = [f"killed{i}" for i in range(4)]
    for i, name in enumerate(names):
        process = server.Process(target=merge, args=(world, name, 1, 64, False))
        process.start()
        deadline = time.monotonic() + 60
        while process.is_alive() and time.monotonic() < deadline:
            if list(world.glob(f".{name}.*.tmp")):
                time.sleep(0.04 * i)
                break
            time.sleep(0.002)
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if (world / name).exists():
            found = files(world / name)
            assert {**found, "recipe.json": whole["recipe.json"]} == whole  # it says that transformers was not asked
            assert "recipe.json" in found
    missing = [name for name in names if not (world / name).exists()]
    assert missing, "no kill came before the end: nothing was tested"
    for name in missing:
        merge(world, name, 2, 1 << 16)
        assert files(world / name) == whole
    assert not list(world.glob(".killed*.tmp"))

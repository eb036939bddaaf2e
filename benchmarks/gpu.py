"""A GPU beside the CPU: are merged bytes the same, how fast are they made, is an engine swapped on CUDA a fresh one?

    python benchmarks/gpu.py                          on a GPU, 8 minutes at most; writes docs/benchmarks/gpu.md
    python benchmarks/gpu.py --out $OUT/gpu.md        where only $OUT comes back from the machine
    python benchmarks/gpu.py --device cpu --tiny      a trial of the script itself, on any machine: prints the page

It stops at `--minutes` with what it has, and what fails is a line of the page. Nothing is fetched. It needs this tree,
torch, transformers (with tokenizers), safetensors, numpy, numba, scipy and blake3; on this path the tree also imports
pydantic, PyYAML, regex and rich. vLLM, Hydra and pandas are not needed.

A machine that lacks blake3 (or pydantic, rich ...) gets the wheels along. Fetch them where there is a network,

    pip download blake3 --python-version 3.12 --only-binary=:all: -d wheels

carry the folder `wheels`, and begin there with `pip install --no-index --find-links wheels blake3`. Where nothing may
be installed, `python -m zipfile -e wheels/blake3-*.whl unpacked` and `PYTHONPATH=unpacked` do as well.
"""

import argparse
import contextlib
import gc
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # in the place of this folder, whose coverage.py numba would take for the package

import torch  # noqa: E402

from m3_exp.merging import sparsify  # noqa: E402
from m3_exp.merging.device import DEVICE_BLOCK, Device  # noqa: E402
from m3_exp.merging.methods import Measured, load  # noqa: E402
from m3_exp.merging.scan import Cutoffs  # noqa: E402
from m3_exp.merging.stream import stream  # noqa: E402
from m3_exp.store import Store  # noqa: E402
from m3_exp.types import EngineSettings, HyperParameters, Parameters, Prompt, Recipe, Sampling, Source  # noqa: E402
from tests.models import Shape, config_of, fine_tuned, linear_shapes, random_weights, resized, write_model  # noqa: E402

SPARSIFIERS = "m3_exp.merging.sparsify"
SHARES = (0.5, 0.2, 0.3)
METHODS: Mapping[str, tuple[str, HyperParameters]] = {
    "average": ("average", {}),
    "task_arithmetic": ("task_arithmetic", {"scaling": 0.7}),
    "nearswap": ("nearswap", {"reach": 0.01}),
    "consensus": ("consensus", {"scaling": 1.1, "threshold": 0.4, "agree": 2}),
    "ties": ("ties", {"scaling": 0.9, "retain": 0.6}),
    "ties, sign=count": ("ties", {"scaling": 0.9, "retain": 0.6, "sign": "count"}),
    "ties, sign=weighted, combine=sum": ("ties", {"scaling": 0.9, "retain": 0.6, "sign": "weighted", "combine": "sum"}),
    "ties, trim=tensor": ("ties", {"scaling": 0.9, "retain": 0.6, "trim": "tensor"}),
    "slerp": ("slerp", {"threshold": 0.9995}),
    "nuslerp": ("nuslerp", {"by": "row"}),
    "karcher": ("karcher", {"steps": 10, "tolerance": 1e-5}),
    "model_stock": ("model_stock", {}),
    "sce": ("sce", {"density": 0.5}),
    "tsv_m": ("tsv_m", {"scaling": 1.0}),
    "iso_c": ("iso_c", {"scaling": 1.0}),
}
SPARSE: Mapping[str, Parameters | None] = {
    "none": None,
    "dare": {"drop_rate": 0.3, "seed": 7},
    "magnitude": {"density": 0.3},
    "breadcrumbs": {"density": 0.5, "gamma": 0.1},
    "della": {"density": 0.5, "epsilon": 0.2, "seed": 7},
    "della, rescale=none": {"density": 0.5, "epsilon": 0.2, "rescale": "none", "seed": 7},
    "dare, rescale=l1": {"drop_rate": 0.3, "rescale": "l1", "seed": 7},
}
TIMED: Mapping[str, tuple[str, HyperParameters, Parameters | None]] = {
    "linear": ("average", {}, None),
    "task_arithmetic": ("task_arithmetic", {"scaling": 0.7}, None),
    "task_arithmetic, DARE": ("task_arithmetic", {"scaling": 0.7}, {"drop_rate": 0.2, "seed": 1}),
    "ties": ("ties", {"scaling": 1.0, "retain": 0.7}, None),
}
# Two experts and a base of these shapes; of the 7B one a few layers, so that memory and disk are small.
SHAPES = {
    "1B": Shape(vocab=32000, hidden=2048, inner=5632, layers=22, heads=32, kv_heads=4),
    "7B": Shape(vocab=32000, hidden=4096, inner=11008, layers=4, heads=32, kv_heads=32),
}
TINY = {
    "1B": Shape(vocab=320, hidden=64, inner=96, layers=1),
    "7B": Shape(vocab=320, hidden=96, inner=160, layers=1),
}


class TimeUp(BaseException):
    """The time that the page may take is over."""


@dataclass
class Page:
    """What was found, a section after the other; `failed` counts what went wrong or differs."""

    options: argparse.Namespace
    lines: list[str] = field(default_factory=list)
    failed: int = 0

    def say(self, *lines: str) -> None:
        self.lines += lines
        print("\n".join(lines), flush=True)

    def table(self, *head: str) -> None:
        self.say("| " + " | ".join(head) + " |", "|" + "---|" * len(head))

    def row(self, *cells: object) -> None:
        self.say("| " + " | ".join(map(str, cells)) + " |")

    def section(self, title: str, make: Callable[["Page"], None]) -> None:
        """Carry out a section; what it raises becomes a line."""
        self.say("", f"## {title}", "")
        started = time.monotonic()
        try:
            make(self)
        except Exception as error:  # whatever goes wrong, the other sections are wanted
            traceback.print_exc()
            self.failed += 1
            self.say("", f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:600]}")
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def main() -> None:
    options = parsed()
    page = Page(options)
    work = Path(tempfile.mkdtemp(prefix="m3-gpu-", dir=options.work))
    signal.signal(signal.SIGALRM, _time_up)
    signal.setitimer(signal.ITIMER_REAL, 60 * options.minutes)
    try:
        page.say("# Merging on a GPU", "", *conditions(options))
        page.section("Bytes", lambda page: bytes_section(page, work))
        page.section("The arithmetic, on blocks that are on the device", arithmetic_section)
        page.section("Whole merges", lambda page: merge_section(page, work))
        page.section("engine=transformers", lambda page: engine_section(page, work))
    except TimeUp:
        page.failed += 1
        page.say("", f"STOPPED: {options.minutes:g} minutes were over; what is missing was not measured.")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        shutil.rmtree(work, ignore_errors=True)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text("\n".join([*page.lines, ""]))
    sys.exit(1 if page.failed else 0)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that take a minute on one core")
    parser.add_argument("--minutes", type=float, default=8.0, help="stop after so many")
    parser.add_argument("--runs", type=int, default=3, help="of each merge; the median counts")
    parser.add_argument("--threads", type=int, default=None, help="of a merge, by default one a core")
    parser.add_argument("--work", type=Path, default=None, help="a folder with 16 GB free for generated models")
    parser.add_argument("--out", type=Path, default=None, help="the page; for cuda by default docs/benchmarks/gpu.md")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here: --device cpu --tiny tries the script")
    if options.device == "cuda" and options.out is None:
        options.out = ROOT / "docs" / "benchmarks" / "gpu.md"
    return options


def _time_up(*_: object) -> None:
    raise TimeUp


def conditions(options: argparse.Namespace) -> list[str]:
    where = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    card = "torch on the CPU in the place of a GPU: a trial of the script, no measurement"
    if options.device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        card = f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB, driver {driver()}, CUDA {torch.version.cuda}"
    return [
        f"{card}; torch {torch.__version__}; {where}; load average {os.getloadavg()[0]:.1f} at the start.",
        f"GB are 10^9 bytes. Made by `python benchmarks/gpu.py`, median of {options.runs} runs.",
    ]


def driver() -> str:
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0]
    return "unknown"


# -------------------------------------------------------------------------------------------------------------- bytes


def bytes_section(page: Page, work: Path) -> None:
    """Compare the bytes of merges by both ways, of inputs of each dtype with vocabularies that differ."""
    options = page.options
    page.say(
        "Merges of three experts (two for the arcs) of one base, whose vocabularies differ, read and written in each",
        "dtype: the bytes of the merge on the device, by two sizes of blocks, beside those of the merge on the CPU.",
        "What is left to the CPU is not made on the device, so that equal bytes say nothing of the device.",
        "",
    )
    page.table("method", "sparsifier", "bfloat16", "float16", "float32", "left to the CPU")
    dtypes = ("bfloat16", "float16", "float32")
    worlds = {dtype: world(work / f"bytes-{dtype}", dtype, options.tiny) for dtype in dtypes}
    for name, (method, params) in METHODS.items():
        one = load(target("methods", method))
        for thinned in SPARSE if one.named.declares.on_device(one.keywords(params)) else ("none",):
            verdicts, left = [], ""
            for dtype, folder in worlds.items():
                asked = recipe(folder, method, params, SPARSE[thinned], thinned, dtype, "abc")
                verdict, left = compared(asked, Store(folder / "store"), options)
                verdicts.append(verdict)
                page.failed += verdict != "equal"
            page.row(name, thinned, *verdicts, left)
    verdict = fisher_compared(options.device)
    page.failed += verdict != "equal"
    page.row("fisher (its function)", "none", "", "", verdict, "")


def world(folder: Path, dtype: str, tiny: bool) -> Path:
    shape = Shape(vocab=300, hidden=32, inner=48, layers=1) if tiny else Shape(2001, 512, 1280, 2, 8, 4)
    base = random_weights(shape, 0, getattr(torch, dtype))
    write_model(folder / "base", base, shape, tokenizer=False)
    for seed, name in enumerate("abc", 1):
        tuned = fine_tuned(base, seed)
        tuned = tuned if name != "b" else resized(tuned, shape.vocab + 7, 5)
        write_model(folder / name, tuned, shape, tokenizer=False)
    return folder


def target(room: str, name: str) -> str:
    return f"m3_exp.merging.{room}.{name}:{name}"


def recipe(
    folder: Path,
    method: str,
    params: HyperParameters,
    thinned: Parameters | None,
    sparsifier: str,
    dtype: str,
    experts: str,
) -> Recipe:
    experts = experts[:2] if method in ("slerp", "nuslerp") else experts
    weighted = load(target("methods", method)).named.declares.weighted
    held = None if thinned is None else {**thinned, "target": target("sparsify", sparsifier.partition(",")[0])}
    return Recipe(
        Source(str(folder / "base")), tuple(Source(str(folder / one)) for one in experts), target("methods", method),
        params, SHARES[: len(experts)] if weighted else None, held, dtype,
    )  # fmt: skip


def compared(asked: Recipe, store: Store, options: argparse.Namespace) -> tuple[str, str]:
    """Say whether both ways make the same bytes, else how they differ; and what is left to the CPU."""
    here = {name: tensor.clone() for name, tensor in stream(asked, store, threads=options.threads)}
    flow = stream(asked, store, threads=options.threads, device=options.device)
    there = {name: tensor.clone() for name, tensor in flow}
    odd = stream(asked, store, threads=options.threads, device=options.device, block=100003)
    for _ in odd:
        pass
    left = ", ".join(flow.report["left_to_cpu"])
    differs = {name for name in here if not torch.equal(bits(here[name]), bits(there[name]))}
    if not differs:
        return "equal" if odd.digest == flow.digest else "differs with the block", left
    count = sum(int((bits(here[name]) != bits(there[name])).sum()) for name in differs)
    most = max(float((here[name].double() - there[name].double()).abs().max()) for name in differs)
    return f"{count} elements differ, by {most:.1e} at most", left


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.int16 if tensor.element_size() == 2 else torch.int32)


def fisher_compared(device: str) -> str:
    """Compare the function itself: its statistics are measured by forward passes."""
    generator = torch.Generator().manual_seed(0)
    models = [torch.randn(1_000_003, generator=generator) for _ in range(3)]
    values = [torch.rand(1_000_003, generator=generator) ** 4 for _ in range(3)]
    method = load(target("methods", "fisher"))
    params = method.keywords({"sequences": 4, "length": 8, "scale": "norm"})

    def made(place: str) -> torch.Tensor:
        measured = Measured([one.to(place) for one in values], (1.0, 2.0, 3.0))
        found: torch.Tensor = method.named.by_torch([one.to(place) for one in models], SHARES, measured, **params)
        return found.cpu()

    here, there = made("cpu"), made(device)
    count = int((bits(here) != bits(there)).sum())
    return "equal" if not count else f"{count} of 1000003 elements differ"


# --------------------------------------------------------------------------------------------------------- arithmetic


def seconds(run: Callable[[], object], device: str, runs: int) -> float:
    """Return the median time of a run after one that is not counted, the device's work included."""
    times = []
    for _ in range(runs + 1):
        wait(device)
        started = time.perf_counter()
        run()
        wait(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def arithmetic_section(page: Page) -> None:
    """Time widening, method and rounding of bfloat16 blocks on the device, beside a copy of as much."""
    device, runs = page.options.device, page.options.runs + 2
    numel = 1 << 20 if page.options.tiny else 1 << 28
    pair = torch.zeros(2, numel, dtype=torch.bfloat16, device=device)
    copy = 2 * 2 * numel / seconds(lambda: pair[0].copy_(pair[1]), device, runs) / 1e9
    page.say(
        f"Two bfloat16 experts, and a base where the method reads one, in blocks of {DEVICE_BLOCK} elements: widened,",
        "merged, rounded and looked through for NaN on the device, by the functions that a merge calls. GB/s count the",
        f"bytes of the inputs and of the output once. A copy on the device ({2 * numel / 1e9:.2f} GB read and written)",
        f"makes {copy:.0f} GB/s.",
        "",
    )
    page.table("shape", "merge", "GB/s", "of a copy")
    for name, shape in (TINY if page.options.tiny else SHAPES).items():
        sizes = [rows * width for rows, width in linear_shapes(replace(shape, layers=1)).values()]
        for merge in TIMED:
            speed = arithmetic(merge, sizes, torch.device(device), runs)
            page.row(f"{name}, the matrices of a layer", merge, f"{speed:.0f}", f"{speed / copy:.2f}")


def arithmetic(merge: str, sizes: Sequence[int], place: torch.device, runs: int) -> float:
    """Return the GB/s of a merge of tensors of these sizes on the device."""
    name, params, thinned = TIMED[merge]
    method = load(target("methods", name))
    keywords = method.keywords(params)
    sparsifier = sparsify.of(thinned) if thinned else None
    cutoffs = Cutoffs((0.001, 0.001), (0.7, 0.7), 1.0)
    n = 3 if method.reads_base else 2
    device = Device(str(place))
    stored = [[(0.02 * torch.randn(size, device=place)).bfloat16() for _ in range(n)] for size in sizes]

    def block(tensors: Sequence[torch.Tensor], start: int) -> None:
        values = [tensor[start : start + DEVICE_BLOCK].float() for tensor in tensors]
        experts, extra = values[:2], {}
        if method.takes_deltas:
            experts, extra = [expert - values[2] for expert in experts], {"base": values[2]}
        if sparsifier:
            experts = [sparsifier.by_torch(expert, "expert", "tensor", start)[0] for expert in experts]
        given: dict[str, Any] = {**extra, **({"cutoffs": cutoffs} if method.needs_cutoffs else {})}
        device.rounded(method.named.by_torch(experts, (0.5, 0.3), **given, **keywords), "BF16")

    def run() -> None:
        for tensors in stored:
            for start in range(0, tensors[0].numel(), DEVICE_BLOCK):
                block(tensors, start)

    return 2 * (n + 1) * sum(sizes) / seconds(run, place.type, runs) / 1e9


# -------------------------------------------------------------------------------------------------------------- merges


def merge_section(page: Page, work: Path) -> None:
    """Time whole merges of models on disk, as an engine gets them, on the device and on the CPU."""
    options = page.options
    page.say(
        "Two bfloat16 experts of a base, on disk and in the page cache, merged as a stream with its digest (blake3, on",
        "the CPU) and not written. GB/s count the bytes of the inputs and of the output once. Thresholds of TIES are",
        "known: they are counted on the CPU, once for each model.",
        "",
        f"In the same minute, {copies(options)}.",
        "",
    )
    page.table("shape", "merge", "device, s", "GB/s", "CPU, s", "GB/s", "times", "digests")
    for name, shape in (TINY if options.tiny else SHAPES).items():
        folder = work / name
        parameters = generate(folder, shape, options.device)
        what = f"{name}, {shape.layers} layers, {parameters / 1e9:.2f}B"
        store = Store(folder / "store")
        for merge, (method, params, thinned) in TIMED.items():
            asked = recipe(folder, method, params, thinned, "dare", "bfloat16", "ab")
            models = 3 if load(target("methods", method)).reads_base else 2
            gigabytes = 2 * (models + 1) * parameters / 1e9
            there, one = timed(asked, store, options, options.device)
            here, other = timed(asked, store, options, None)
            page.failed += one != other
            verdict = "equal" if one == other else "DIFFER"
            rates = [f"{there:.2f}", f"{gigabytes / there:.1f}", f"{here:.2f}", f"{gigabytes / here:.1f}"]
            page.row(what, merge, *rates, f"{here / there:.1f}", verdict)


def copies(options: argparse.Namespace) -> str:
    """Say how fast bytes go to the device and back, from memory that is pinned and that is not."""
    if options.device == "cpu":
        return "no copy to a GPU is to be measured"
    host = torch.zeros(1 << 30, dtype=torch.uint8)
    pinned, there = host.pin_memory(), torch.empty(1 << 30, dtype=torch.uint8, device=options.device)
    runs = {
        "pinned host to device": lambda: there.copy_(pinned, non_blocking=True),
        "device to pinned host": lambda: pinned.copy_(there, non_blocking=True),
        "pageable host to device": lambda: there.copy_(host),
        "host to pinned host (one thread)": lambda: pinned.numpy().__setitem__(slice(None), host.numpy()),
    }
    speeds = {name: 2**30 / seconds(run, options.device, 5) / 1e9 for name, run in runs.items()}
    return "copies of 1 GiB, bytes once: " + ", ".join(f"{name} {speed:.1f} GB/s" for name, speed in speeds.items())


def timed(asked: Recipe, store: Store, options: argparse.Namespace, device: str | None) -> tuple[float, str]:
    digests = set()

    def run() -> None:
        flow = stream(asked, store, threads=options.threads, device=device)
        for _ in flow:
            pass
        digests.add(flow.digest)

    median = seconds(run, options.device, options.runs)
    (digest,) = digests
    return median, digest


def generate(folder: Path, shape: Shape, device: str) -> int:
    """Write a random base and two fine-tunes, a file a layer, made on the device; return the number of parameters."""
    import json

    from safetensors.torch import save_file

    sizes: dict[str, tuple[int, ...]] = {**linear_shapes(shape)}
    sizes |= {name: (shape.vocab, shape.hidden) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    parts = [f"layers.{i}.{one}_layernorm" for i in range(shape.layers) for one in ("input", "post_attention")]
    sizes |= {f"model.{name}.weight": (shape.hidden,) for name in [*parts, "norm"]}
    groups: dict[str, list[str]] = {}
    for name in sorted(sizes):
        groups.setdefault(name.split(".")[2] if ".layers." in name else name, []).append(name)
    index = {}
    for model in ("base", "a", "b"):
        (folder / model).mkdir(parents=True)
        (folder / model / "config.json").write_text(json.dumps(config_of(shape)))
    for number, names in enumerate(groups.values()):
        file = f"model-{number + 1:05d}-of-{len(groups):05d}.safetensors"
        index.update(dict.fromkeys(names, file))
        generator = torch.Generator(device).manual_seed(number)
        base = {name: 0.02 * torch.randn(sizes[name], generator=generator, device=device) for name in names}
        for model in ("base", "a", "b"):
            moved = 0.0 if model == "base" else 0.002
            tensors = {
                name: (value + moved * torch.randn(value.shape, generator=generator, device=device)).bfloat16().cpu()
                for name, value in base.items()
            }
            save_file(tensors, folder / model / file, metadata={"format": "pt"})
    for model in ("base", "a", "b"):
        text = json.dumps({"metadata": {}, "weight_map": index})
        (folder / model / "model.safetensors.index.json").write_text(text)
    return sum(torch.Size(size).numel() for size in sizes.values())


# -------------------------------------------------------------------------------------------------------------- engine


def engine_section(page: Page, work: Path) -> None:
    """Compare the texts of an engine whose weights were swapped with those of a fresh one, in float32; time it."""
    from tests.models import write_tokenizer

    tiny = page.options.tiny
    folder, shape = work / "1B", (TINY if tiny else SHAPES)["1B"]
    if not (folder / "a" / "config.json").exists():
        generate(folder, shape, page.options.device)
    for model in ("base", "a", "b"):
        write_tokenizer(folder / model, 300)
    count, tokens, at_once = (6, 12, 4) if tiny else (128, 128, 64)
    prompts = [Prompt(str(i), tuple(3 + (7 * i + 13 * j) % 250 for j in range(8 + i % 24))) for i in range(count)]
    # Of random weights: only the end token ends an answer.
    ask = _Asked(prompts, Sampling(max_tokens=tokens), Source(str(folder / "base")), at_once, folder)
    first, second = (recipe(folder, *TIMED[name], "dare", "float32", "ab") for name in ("linear", "ties"))
    with ask.engine(first) as engine:
        digest_1, texts_1, _ = ask.answers(engine, first)
        digest_2, swapped, speed = ask.answers(engine, second)
        swap = engine.load(first).seconds
        again = ask.texts(engine)
        conditions = dict(engine.conditions)
    with ask.engine(second) as engine:
        digest_3, fresh, _ = ask.answers(engine, second)
    same = sum(swapped[key] == fresh[key] for key in fresh)
    page.failed += same != count or again != texts_1 or digest_2 != digest_3 or digest_1 == digest_2
    page.say(
        f"A random llama of the {'tiny' if tiny else '1B'} shape in float32, {count} prompts, {tokens} tokens at most,",
        f"greedy; device {conditions['device']}, {conditions['max_num_seqs']} sequences at once.",
        "",
        f"- swap = fresh: {same} of {count} texts of swapped weights are those of a fresh engine;"
        f" swapped back, {'all' if again == texts_1 else 'NOT all'} are those of the first load",
        f"- the two merges write {sum(texts_1[key] != swapped[key] for key in fresh)} of {count} different texts",
        f"- {speed:.0f} tokens a second; a swap takes {swap:.2f} s (the merge, on the CPU, and its copy to the device)",
    )


@dataclass
class _Asked:
    """What both engines are asked."""

    prompts: list[Prompt]
    sampling: Sampling
    tokenizer: Source
    at_once: int
    folder: Path

    @contextlib.contextmanager
    def engine(self, of: Recipe) -> Iterator[Any]:
        from m3_exp.engines import transformers

        settings = EngineSettings("transformers", dtype="float32", max_num_seqs=self.at_once)
        engine = transformers.start(settings, of, self.tokenizer, Store(self.folder / "store"))
        try:
            yield engine
        finally:
            engine.close()

    def answers(self, engine: Any, of: Recipe) -> tuple[str, dict[str, str], float]:
        """Load a recipe and ask; return its digest, the texts, and tokens a second."""
        digest = engine.load(of).digest
        started, total, texts = time.perf_counter(), 0, {}
        for answer in engine.generate(self.prompts, self.sampling, self.tokenizer):
            total += answer.n_tokens
            texts[answer.id] = answer.text
        return digest, texts, total / (time.perf_counter() - started)

    def texts(self, engine: Any) -> dict[str, str]:
        return {a.id: a.text for a in engine.generate(self.prompts, self.sampling, self.tokenizer)}


if __name__ == "__main__":
    main()

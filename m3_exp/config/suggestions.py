"""What an unknown word of a command line may mean: its name elsewhere, a key that ends with it, or one spelt alike."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from m3_exp.command_line import files, groups, names
from m3_exp.config.choices import FUNCTIONS, keywords_of, load_yaml, parameters, top_keys

# What mergekit and others call methods -> what is typed here. DARE is an axis of its own, as is the ratio.
_METHODS = {
    "linear": "method=average or method=task_arithmetic", "mean": "method=average", "soup": "method=average",
    "model_soup": "method=average", "task": "method=task_arithmetic", "dare_ties": "method=ties sparsify=dare",
    "dare_linear": "method=task_arithmetic sparsify=dare", "m3": "ratio=mixup",
    "slerp": "method=average ratio=fixed (the straight line in place of the arc)",
}  # fmt: skip
_KEYS = {
    "lambda": "ratio.lam", "weight": "ratio.weights", "density": "method.retain", "base_model": "family.base",
    "model": "family", "models": "family.experts", "benchmark": "evaluator", "task": "evaluator", "tasks": "evaluator",
    "num_samples": "limit", "output": "out", "backend": "engine", "config": "family",
    "batch_size": "engine.max_num_seqs", "gpus": "engine.tensor_parallel_size",
}  # fmt: skip


def close(word: str, known: Iterable[str]) -> list[str]:
    """Return the known word that begins with `word`, or else is spelt like it; at most one."""
    spelt = {one.lower().replace("-", "_"): one for one in known}
    word = word.lower().replace("-", "_")
    begun = [one for name, one in spelt.items() if len(word) > 2 and name.startswith(word)]
    return begun[:1] or [spelt[one] for one in difflib.get_close_matches(word, spelt, n=1, cutoff=0.65)]


def did_you_mean(meant: Sequence[str]) -> str:
    """Return the end of a refusal, as `; did you mean gsm8k?`; empty where nothing is near."""
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def of_choice(group: str, value: str, config_dirs: Sequence[Path]) -> str:
    """Return the end of a refusal of a choice: `method=dare` means `sparsify=dare`, `method=tise` `method=ties`."""
    if group == "method" and value.lower() in _METHODS:
        return did_you_mean([_METHODS[value.lower()]])
    elsewhere = [f"{other}={value}" for other in (*groups(), "evaluator") if value in names(other, config_dirs)]
    near = [f"{group}={name}" for name in close(value, names(group, config_dirs))]
    return did_you_mean(elsewhere[:1] or near)


def of_key(key: str, config_dirs: Sequence[Path]) -> list[str]:
    """Return the keys that an unknown one may mean, with the choices that have it: `ratio.alpha (with ratio=mixup)`."""
    group, _, last = key.lower().rpartition(".")
    if not group and last in _KEYS:
        last = key = _KEYS[last]
        return [f"{key}{_under(key, config_dirs)}"]
    settable = [*top_keys(), *groups(), "evaluator", "sweeps"]
    settable += [f"{group}.{name}" for group in groups() for name in parameters(group, config_dirs)]
    ends = [one for one in settable if one.rpartition(".")[2] == last]
    meant = ([] if group else _settings(last, config_dirs)) or ends[:2] or close(key, settable)
    return [f"{one}{_under(one, config_dirs)}" for one in meant]


def _settings(name: str, config_dirs: Sequence[Path]) -> list[str]:
    """Return a setting of benchmarks with the one that has it, as `evaluator.gsm8k.extractor`."""
    of = [file.stem for file in files("evaluator", config_dirs) if name in (load_yaml(file).get(file.stem) or ())]
    return [f"evaluator.{of[0] if len(of) == 1 else 'BENCHMARK'}.{name}"] if of and name != "target" else []


def _under(key: str, config_dirs: Sequence[Path]) -> str:
    """Say which choices have a parameter, where not all do: ` (with ratio=mixup)`."""
    group, _, parameter = key.partition(".")
    if group not in FUNCTIONS or not parameter:
        return ""
    users = [name for name in names(group, config_dirs) if parameter in keywords_of(group, name, config_dirs)]
    return f" (with {' or '.join(f'{group}={name}' for name in users)})"

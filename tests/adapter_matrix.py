"""Adapters that peft makes, beside what peft's own merge makes of them: kinds x tiny models.

    python -m tests.adapter_matrix [KIND ...]        prints every pair that is not equal, and the counts

The truth is peft's: an adapter is made and saved by peft, loaded by it on a fresh base, merged by `merge_and_unload`
and saved by transformers; ours is the same two directories read as BASE+ADAPTER.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from m3_exp.merging.checkpoint import HEAD, open_model
from m3_exp.store import Store
from m3_exp.types import M3Error, Source

ROWS, WIDTH, RANK = 24, 16, 2
_SIZES: dict[str, Any] = {
    "vocab_size": ROWS, "hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Tiny:
    """A tiny model: its config class and what its modules are called."""

    config: str
    settings: dict[str, Any]
    attention: tuple[str, ...] = ("q_proj", "v_proj")
    feedforward: str = "down_proj"
    embedding: str = "embed_tokens"
    norm: str = "norm"
    tied: bool = False


BASES = {
    "llama": Tiny("LlamaConfig", {**_SIZES, "tie_word_embeddings": False}),
    "tied": Tiny("LlamaConfig", {**_SIZES, "tie_word_embeddings": True}, tied=True),
    "qwen2": Tiny("Qwen2Config", {**_SIZES, "tie_word_embeddings": False}),
    "qwen3": Tiny("Qwen3Config", {**_SIZES, "tie_word_embeddings": False}),
    "gemma": Tiny("GemmaConfig", {**_SIZES}, tied=True),
    "gpt2": Tiny(
        "GPT2Config",
        {"vocab_size": ROWS, "n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 32, "bos_token_id": 1,
         "eos_token_id": 2},
        ("c_attn",), "c_proj", "wte", "ln_f", tied=True,
    ),
    "mixtral": Tiny("MixtralConfig", {**_SIZES, "num_local_experts": 3, "tie_word_embeddings": False},
                    feedforward="o_proj"),
    "phi3": Tiny("Phi3Config", {**_SIZES, "tie_word_embeddings": False}, ("qkv_proj",)),
    "qwen3_moe": Tiny("Qwen3MoeConfig", {**_SIZES, "num_experts": 3, "moe_intermediate_size": 8,
                                         "tie_word_embeddings": False}, feedforward="o_proj"),
    "gpt_oss": Tiny("GptOssConfig", {**_SIZES, "num_local_experts": 3, "intermediate_size": WIDTH // 2,
                                     "tie_word_embeddings": False}, feedforward="o_proj"),
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of adapter: LoraConfig's arguments for a model, where it can be made, and what becomes of it.

    `refused` is a word of the one line that refuses it (on the bases in `where`, on all where that is empty).
    """

    settings: Callable[[Tiny], dict[str, Any]]
    fits: Callable[[str], bool] = lambda base: True
    refused: str = ""
    where: tuple[str, ...] = ()
    saved: dict[str, Any] = field(default_factory=dict)  # arguments of save_pretrained
    changed: Callable[[Path], None] | None = None  # of the saved directory
    resize: int = 0
    convert: bool = False


def _attention(**more: Any) -> Callable[[Tiny], dict[str, Any]]:
    return lambda tiny: {"target_modules": list(tiny.attention), **more}


def _also(*names: str, **more: Any) -> Callable[[Tiny], dict[str, Any]]:
    """Target attention and the modules that a model calls so: embedding, norm, or a name of its own."""
    return lambda tiny: {"target_modules": [*tiny.attention, *(getattr(tiny, n, n) for n in names)], **more}


def _saving(*names: str, **more: Any) -> Callable[[Tiny], dict[str, Any]]:
    return lambda tiny: {
        "target_modules": list(tiny.attention), "modules_to_save": [getattr(tiny, n, n) for n in names], **more
    }  # fmt: skip


def _patterns(tiny: Tiny) -> dict[str, Any]:
    last = tiny.attention[-1]
    return {
        "target_modules": [*tiny.attention, tiny.feedforward],
        "rank_pattern": {rf"[a-z.]*\.1\.[a-z_]+\.{last}": 3, tiny.feedforward: 4},
        "alpha_pattern": {last: 5, f"^{tiny.feedforward}": 9},
    }


def _velora() -> Any:
    from peft.tuners.lora.config import VeloraConfig

    return VeloraConfig(num_groups=4)


def _kasa(tiny: Tiny) -> dict[str, Any]:
    from peft.tuners.lora.config import KasaConfig

    return {"target_modules": list(tiny.attention), "kasa_config": KasaConfig()}


def _bdlora(tiny: Tiny) -> dict[str, Any]:
    from peft.tuners.lora.config import BdLoraConfig

    return {
        "target_modules": ["q_proj"],
        "use_bdlora": BdLoraConfig(target_modules_bd_b=["q_proj"], nblocks=2),
    }


def _halved(folder: Path) -> None:
    """Rewrite an adapter's tensors as bfloat16."""
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    save_file({name: value.bfloat16() for name, value in load_file(path).items()}, path, metadata={"format": "pt"})


def _monteclora() -> Any:
    from peft.tuners.lora.config import MontecloraConfig

    return MontecloraConfig()


def _llama_like(base: str) -> bool:
    return base not in ("gpt2", "phi3")


def _untied(base: str) -> bool:
    return not BASES[base].tied


_EXPERTS = ("mixtral", "qwen3_moe", "gpt_oss")
_CONVERSION = "path_initial_model_for_weight_conversion"
KINDS: dict[str, Kind] = {
    "plain": Kind(_attention()),
    "all-linear": Kind(lambda tiny: {"target_modules": "all-linear"}),
    "rslora": Kind(_attention(use_rslora=True, lora_alpha=3)),
    "patterns": Kind(_patterns),
    "regex": Kind(lambda tiny: {"target_modules": rf".*\.1\..*({'|'.join(tiny.attention)})"}),
    "layers": Kind(_attention(layers_to_transform=[1])),
    "dora": Kind(_attention(use_dora=True)),
    "dora-all-linear": Kind(
        lambda tiny: {"target_modules": "all-linear", "use_dora": True}, lambda base: base not in _EXPERTS
    ),
    "embedding": Kind(_also("embedding")),
    "dora-embedding": Kind(_also("embedding", use_dora=True)),
    "head": Kind(_also("lm_head")),
    "dora-head": Kind(_also("lm_head", use_dora=True)),
    "embedding-tied": Kind(
        _also("embedding", ensure_weight_tying=True),
        lambda base: BASES[base].tied,
        refused="twice",
        where=("tied", "gemma"),
    ),
    "embedding-and-head": Kind(_also("embedding", "lm_head"), refused="twice", where=("tied", "gemma", "gpt2")),
    "bias-all": Kind(_attention(bias="all")),
    "bias-lora_only": Kind(_attention(bias="lora_only")),
    "lora_bias": Kind(_attention(lora_bias=True), lambda base: base in ("qwen2", "gpt2")),
    "tokens": Kind(_attention(trainable_token_indices=[5, 1, 20])),
    "tokens-by-name": Kind(
        lambda tiny: {
            "target_modules": list(tiny.attention),
            "trainable_token_indices": {tiny.embedding: [3, 4], "lm_head": [2]},
        },
        _untied,
    ),
    "fan_in_fan_out": Kind(_attention(fan_in_fan_out=True)),
    "save-embedding": Kind(_saving("embedding")),
    "save-head": Kind(_saving("lm_head")),
    "save-both": Kind(_saving("embedding", "lm_head")),
    "save-norm": Kind(_saving("norm")),
    "save-tied": Kind(_saving("embedding", ensure_weight_tying=True), lambda base: BASES[base].tied),
    "bfloat16": Kind(_attention(), changed=_halved),
    "eva": Kind(_attention(init_lora_weights="orthogonal")),
    "mica": Kind(_attention(init_lora_weights="mica"), lambda base: base != "gpt2"),
    "gaussian": Kind(_attention(init_lora_weights="gaussian")),
    "velora": Kind(lambda tiny: {"target_modules": ["q_proj"], "velora_config": _velora()}, _llama_like),
    "monteclora": Kind(lambda tiny: {"target_modules": ["q_proj"], "monteclora_config": _monteclora()}, _llama_like),
    "save-base": Kind(_also("embedding"), saved={"save_embedding_layers": True}),
    "tokens-and-head": Kind(_saving("lm_head", trainable_token_indices=[5, 1]), _untied),
    "bin": Kind(_attention(), saved={"safe_serialization": False}),
    "resized": Kind(_attention(), saved={"save_embedding_layers": True}, resize=ROWS + 4),
    "one-parameter": Kind(lambda tiny: {"target_modules": [], "target_parameters": [f"{tiny.feedforward}.weight"]}),
    "experts": Kind(
        lambda tiny: {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
        lambda base: base in _EXPERTS,
    ),
    "experts-down": Kind(
        lambda tiny: {"target_modules": [], "target_parameters": ["down_proj"]}, lambda base: base in _EXPERTS
    ),
    "experts-by-old-names": Kind(
        lambda tiny: {"target_modules": ["q_proj", "w1", "w2", "w3"]}, lambda base: base == "mixtral"
    ),
    "router": Kind(
        lambda tiny: {"target_modules": [], "target_parameters": ["gate.weight"]}, lambda base: base == "mixtral"
    ),
    "pissa": Kind(_attention(init_lora_weights="pissa"), refused=_CONVERSION),
    "olora": Kind(_attention(init_lora_weights="olora"), lambda base: base != "gpt2", refused=_CONVERSION),
    "pissa-converted": Kind(_attention(init_lora_weights="pissa"), convert=True),
    "kasa": Kind(_kasa, _llama_like, refused="kasa_config"),
    "bdlora": Kind(_bdlora, _llama_like, refused="use_bdlora"),
    "alora": Kind(_attention(alora_invocation_tokens=[3, 4]), lambda b: b != "gpt2", refused="alora_invocation_tokens"),
    "layer_replication": Kind(
        _attention(layer_replication=[[0, 2], [1, 2]]), lambda base: base == "llama", refused="layer_replication"
    ),
}
PAIRS = [(kind, base) for kind, made in KINDS.items() for base in BASES if made.fits(base)]


def write_base(folder: Path, base: str) -> Path:
    """Write a tiny model with random weights (biases and norms, too)."""
    import transformers

    tiny = BASES[base]
    torch.manual_seed(sorted(BASES).index(base))
    config = getattr(transformers, tiny.config)(**tiny.settings)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.1 * torch.randn(value.shape)
    model.save_pretrained(folder)
    return folder


def write_adapter(folder: Path, base: Path, kind: str, tiny: Tiny) -> Path:
    """Make an adapter with peft, move everything that it trains, and save it."""
    from peft import LoraConfig, get_peft_model

    made = KINDS[kind]
    model = _loaded(base)
    torch.manual_seed(1)
    if made.resize:
        model.resize_token_embeddings(made.resize, mean_resizing=False)
    settings = {"r": RANK, "lora_alpha": 3, "task_type": "CAUSAL_LM", **made.settings(tiny)}
    peft = get_peft_model(model, LoraConfig(**settings))
    saved = dict(made.saved)
    if made.convert:
        peft.peft_config["default"].init_lora_weights = True
        peft.save_pretrained(folder.parent / f"{folder.name}-start")
        saved[_CONVERSION] = str(folder.parent / f"{folder.name}-start")
        peft.peft_config["default"].init_lora_weights = settings["init_lora_weights"]
    with torch.no_grad():
        for name, value in sorted(peft.named_parameters()):
            if value.requires_grad and "sampler" not in name:
                value += 0.2 * torch.randn(value.shape)
        if made.resize:
            new = torch.randn(made.resize - ROWS, WIDTH)
            for layer in {model.get_input_embeddings(), model.get_output_embeddings()}:
                layer.weight[ROWS:] = new
    peft.save_pretrained(folder, **saved)
    if made.changed:
        made.changed(folder)
    return folder


def truth(base: Path, adapter: Path, kind: str, out: Path) -> tuple[dict[str, torch.Tensor], bool]:
    """Return the tensors that peft's merge writes, and whether it is tied."""
    from peft import PeftModel
    from safetensors.torch import load_file

    model = _loaded(base)
    if KINDS[kind].resize:
        model.resize_token_embeddings(KINDS[kind].resize, mean_resizing=False)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(out)
    return load_file(out / "model.safetensors"), bool(merged.config.tie_word_embeddings)


def ours(base: Path, adapter: Path, store: Store) -> tuple[dict[str, torch.Tensor], bool]:
    """Return the tensors of BASE+ADAPTER, and whether it is tied."""
    model = open_model(Source(str(base), adapter=str(adapter)), store)
    whole = {name: model.read(name, 0, entry.numel).view(entry.shape) for name, entry in model.tensors.items()}
    assert len(model.digest) == 64
    return whole, model.tied


def difference(base: Path, adapter: Path, kind: str, folder: Path) -> str:
    """Return what is wrong with our reading of an adapter; empty where it is peft's.

    Raises:
        M3Error: it is refused.
    """
    got, tied = ours(base, adapter, Store(folder / "store"))
    want, wanted_tie = truth(base, adapter, kind, folder / "merged")
    want = {name: value for name, value in want.items() if not (wanted_tie and name == HEAD)}
    if tied != wanted_tie:
        return f"tied: {tied}, peft {wanted_tie}"
    if set(got) != set(want):
        return f"names: {sorted(set(got) ^ set(want))[:3]}"
    for name, value in sorted(want.items()):
        if got[name].shape != value.shape:
            return f"{name}: {tuple(got[name].shape)}, peft {tuple(value.shape)}"
        if not torch.allclose(got[name].float(), value.float(), rtol=1e-5, atol=2e-6):
            return f"{name}: by {float((got[name].float() - value.float()).abs().max()):.2g}"
    return ""


def outcome(kind: str, base: str, root: Path) -> str:
    """Return "equal", "refused: ..." or "WRONG: ..." of one pair; `root` keeps the bases."""
    folder = root / base
    if not folder.exists():
        write_base(folder, base)
    out = root / f"{kind}-{base}"
    out.mkdir()
    adapter = write_adapter(out / "adapter", folder, kind, BASES[base])
    try:
        wrong = difference(folder, adapter, kind, out)
    except M3Error as error:
        return f"refused: {error}"
    return f"WRONG: {wrong}" if wrong else "equal"


def check(kind: str, base: str, root: Path) -> None:
    """Assert that a pair is equal to peft's merge, or refused as it should be."""
    found, word = outcome(kind, base, root), expected(kind, base)
    assert found == "equal" if not word else found.startswith("refused: ") and word in found


def expected(kind: str, base: str) -> str:
    """Return the word of the refusal that a pair must get; empty where it must be equal."""
    made = KINDS[kind]
    return made.refused if not made.where or base in made.where else ""


def _loaded(base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def main(kinds: list[str]) -> None:
    warnings.simplefilter("ignore")
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as root:
        for kind, base in PAIRS:
            if kinds and kind not in kinds:
                continue
            try:
                found = outcome(kind, base, Path(root))
            except Exception as error:
                found = f"NOT MADE: {type(error).__name__}: {str(error)[:200]}"
            counts[found.partition(":")[0]] = counts.get(found.partition(":")[0], 0) + 1
            if found != "equal":
                print(f"{kind:22} {base:8} {found.replace(root, '')}", flush=True)
    print(len(PAIRS), counts)


if __name__ == "__main__":
    main(sys.argv[1:])

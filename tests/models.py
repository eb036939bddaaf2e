"""Tiny models for tests, written in every layout that we read: llama-shaped, two layers, 32 wide, random weights.

base = random_weights(Shape(), seed=0)
write_model(tmp_path / "base", base)
write_model(tmp_path / "expert", fine_tuned(base, seed=1), shards=3)
write_model(tmp_path / "bin", fine_tuned(base, seed=2), layout="bin", shards=2)
write_adapter(tmp_path / "lora", Shape(), seed=3)
write_gguf(tmp_path / "base.gguf", base, Shape(), quant="Q4_1")
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

Weights = dict[str, torch.Tensor]
AVERAGE = "m3_exp.merging.methods.average:average"
TASK = "m3_exp.merging.methods.task_arithmetic:task_arithmetic"
TIES = "m3_exp.merging.methods.ties:ties"


@dataclass(frozen=True)
class Shape:
    """The sizes of a tiny llama."""

    vocab: int = 264
    hidden: int = 32
    inner: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    tied: bool = False
    context: int = 2048

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


SMALL = Shape(vocab=400, hidden=32, inner=64, layers=2, heads=2, kv_heads=2, context=4096)


def config_of(shape: Shape, dtype: torch.dtype = torch.bfloat16, **changes: Any) -> dict[str, Any]:
    """Return the config.json of a tiny llama."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "vocab_size": shape.vocab,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "torch_dtype": str(dtype).removeprefix("torch."),
        **changes,
    }


def linear_shapes(shape: Shape) -> dict[str, tuple[int, int]]:
    """Return the names and shapes of the linear layers (the head left out)."""
    h, kv = shape.hidden, shape.kv_heads * shape.head_dim
    one = {
        "self_attn.q_proj": (h, h),
        "self_attn.k_proj": (kv, h),
        "self_attn.v_proj": (kv, h),
        "self_attn.o_proj": (h, h),
        "mlp.gate_proj": (shape.inner, h),
        "mlp.up_proj": (shape.inner, h),
        "mlp.down_proj": (h, shape.inner),
    }
    return {f"model.layers.{i}.{name}.weight": size for i in range(shape.layers) for name, size in one.items()}


def random_weights(shape: Shape, seed: int, dtype: torch.dtype = torch.bfloat16) -> Weights:
    """Return a random model: matrices N(0, 0.1), norms near 1."""
    generator = torch.Generator().manual_seed(seed)
    sizes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab, shape.hidden)}
    sizes.update(linear_shapes(shape))
    if not shape.tied:
        sizes["lm_head.weight"] = (shape.vocab, shape.hidden)
    weights = {name: 0.1 * torch.randn(size, generator=generator) for name, size in sizes.items()}
    norms = [
        f"model.layers.{i}.{n}.weight"
        for i in range(shape.layers)
        for n in ("input_layernorm", "post_attention_layernorm")
    ]
    for name in [*norms, "model.norm.weight"]:
        weights[name] = 1 + 0.05 * torch.randn(shape.hidden, generator=generator)
    return {name: value.to(dtype) for name, value in weights.items()}


def fine_tuned(base: Mapping[str, torch.Tensor], seed: int, by: float = 0.2) -> Weights:
    """Return a fine-tune of a model: each tensor moved by noise of `by` times its spread."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (value.float() + by * 0.1 * torch.randn(value.shape, generator=generator)).to(value.dtype)
        for name, value in sorted(base.items())
    }


def write_three(
    root: Path, shape: Shape | None = None, dtype: torch.dtype = torch.bfloat16, rows: int | None = None
) -> list[Path]:
    """Write a base and two fine-tunes of it, a and b; b may have another number of `rows` in its vocabulary."""
    base = random_weights(shape or Shape(), 0, dtype)
    b = fine_tuned(base, 2)
    three = {"base": base, "a": fine_tuned(base, 1), "b": b if rows is None else resized(b, rows, 5)}
    return [write_model(root / name, weights, shape) for name, weights in three.items()]


def resized(weights: Mapping[str, torch.Tensor], rows: int, seed: int) -> Weights:
    """Return a model with more vocabulary rows, the new ones random."""
    generator = torch.Generator().manual_seed(seed)
    out = dict(weights)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in out:
            new = 0.1 * torch.randn(rows - out[name].shape[0], out[name].shape[1], generator=generator)
            out[name] = torch.cat([out[name], new.to(out[name].dtype)])
    return out


def write_model(
    folder: Path,
    weights: Mapping[str, torch.Tensor],
    shape: Shape | None = None,
    *,
    layout: Literal["safetensors", "bin"] = "safetensors",
    shards: int = 1,
    tokenizer: bool = True,
    template: str | None = None,
    **config: Any,
) -> Path:
    """Write a model directory; the shape's vocabulary follows the embedding's rows. `config` overrides config.json."""
    folder.mkdir(parents=True)
    shape = shape or Shape(tied="lm_head.weight" not in weights)
    rows, dtype = weights["model.embed_tokens.weight"].shape[0], weights["model.embed_tokens.weight"].dtype
    settings = config_of(shape, dtype, **{"vocab_size": rows, **config})
    (folder / "config.json").write_text(json.dumps(settings, indent=2))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    write_shards(folder, weights, layout, shards)
    if tokenizer:
        write_tokenizer(folder, rows, template)
    return folder


def write_shards(folder: Path, weights: Mapping[str, torch.Tensor], layout: str, shards: int) -> None:
    """Write the weights of a directory as one file, or as shards with an index, dealt round robin."""
    from safetensors.torch import save_file

    stem, suffix = ("model", "safetensors") if layout == "safetensors" else ("pytorch_model", "bin")
    names = sorted(weights)
    index = {}
    for i in range(shards):
        file = f"{stem}.{suffix}" if shards == 1 else f"{stem}-{i + 1:05d}-of-{shards:05d}.{suffix}"
        part = {name: weights[name].contiguous() for name in names[i::shards]}
        if layout == "safetensors":
            save_file(part, folder / file, metadata={"format": "pt"})
        else:
            torch.save(part, folder / file)
        index.update(dict.fromkeys(part, file))
    if shards > 1:
        text = json.dumps({"metadata": {}, "weight_map": index})
        (folder / f"{stem}.{suffix}.index.json").write_text(text)


def write_tokenizer(folder: Path, rows: int, template: str | None = None) -> None:
    """Write a byte-level tokenizer: <unk>, <s>, </s>, the 256 bytes, then fillers up to `rows`, each with its id."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    symbols = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    symbols += [f"<filler{i}>" for i in range(len(symbols), rows)]
    vocabulary = {symbol: i for i, symbol in enumerate(symbols[:rows])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.chat_template = template or "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    fast.save_pretrained(folder)


def lora_weights(shape: Shape, seed: int, rank: int = 4, dtype: torch.dtype = torch.bfloat16) -> Weights:
    """Return the A and B factors of an adapter on all linear layers, under peft's names."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, (rows, width) in linear_shapes(shape).items():
        stem = "base_model.model." + name.removesuffix(".weight")
        out[f"{stem}.lora_A.weight"] = (0.1 * torch.randn(rank, width, generator=generator)).to(dtype)
        out[f"{stem}.lora_B.weight"] = (0.1 * torch.randn(rows, rank, generator=generator)).to(dtype)
    return out


def write_adapter(folder: Path, shape: Shape, seed: int, rank: int = 4, **config: Any) -> Path:
    """Write a LoRA adapter directory as peft does. `config` overrides adapter_config.json."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "r": rank,
        "lora_alpha": 2 * rank,
        "bias": "none",
        "use_dora": False,
        "target_modules": sorted({name.split(".")[-2] for name in linear_shapes(shape)}),
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file(lora_weights(shape, seed, rank), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


_GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(path: Path, weights: Mapping[str, torch.Tensor], shape: Shape, quant: str = "F32") -> Path:
    """Write a GGUF file as llama.cpp's converter does: q and k rows interleaved, matrices quantised (32 a block)."""
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_vocab_size(shape.vocab)
    _gguf_vocabulary(writer, shape.vocab)
    for name, value in sorted(weights.items()):
        array = _interleaved(name, value.float().numpy(), shape)
        kind = gguf.GGMLQuantizationType[quant if array.ndim > 1 else "F32"]
        data = array if kind == gguf.GGMLQuantizationType.F32 else gguf.quants.quantize(array, kind)
        writer.add_tensor(_gguf_name(name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_vocabulary(writer: Any, rows: int) -> None:
    from tokenizers import pre_tokenizers

    symbols = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    symbols += [f"<filler{i}>" for i in range(len(symbols), rows)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(symbols[:rows])
    writer.add_token_types([3] * 3 + [1] * (rows - 3))
    writer.add_token_merges(["a b"])
    for add, token in ((writer.add_unk_token_id, 0), (writer.add_bos_token_id, 1), (writer.add_eos_token_id, 2)):
        add(token)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")


def _gguf_name(name: str) -> str:
    outside = {
        "model.embed_tokens.weight": "token_embd",
        "model.norm.weight": "output_norm",
        "lm_head.weight": "output",
    }
    if name in outside:
        return outside[name] + ".weight"
    _, _, layer, rest = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{_GGUF_NAMES[rest]}.weight"


def _interleaved(name: str, array: "np.ndarray[Any, Any]", shape: Shape) -> "np.ndarray[Any, Any]":
    """Apply llama.cpp's permutation of q and k rows (convert_hf_to_gguf.py, LlamaModel.permute)."""
    heads = {"q_proj": shape.heads, "k_proj": shape.kv_heads}.get(name.split(".")[-2], 0)
    if not heads:
        return array
    folded = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return np.ascontiguousarray(folded.swapaxes(1, 2).reshape(array.shape))

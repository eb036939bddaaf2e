"""Reading GGUF files of the llama architecture as Hugging Face tensors: names, shapes, head order as in transformers.

Only the header is parsed (the format: ggml's docs/gguf.md); quantised rows are dequantised to float32 by slices.
"""

import mmap
import re
import struct
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m3_exp.merging.layout import Entry
from m3_exp.types import Json, M3Error

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


@dataclass(frozen=True)
class _Stored:
    """One tensor as the file has it: its ggml type, its shape (rows first) and where its bytes begin."""

    kind: int
    shape: tuple[int, ...]
    offset: int


class GgufFile:
    """The tensors of one file under their Hugging Face names, all float32. `metadata` leaves out long arrays' items."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        try:
            header = _Header(self._map)
            self.metadata, self._stored = header.metadata, header.tensors
        except (struct.error, UnicodeDecodeError, KeyError, ValueError) as error:
            raise M3Error(f"{path} is not a readable GGUF file ({error}): fetch it again") from error
        self.header_bytes = header.end
        architecture = self.metadata.get("general.architecture")
        if architecture != "llama":
            raise M3Error(f"{path} holds a {architecture} model: GGUF files of the llama architecture can be read")
        self._names = {self._hugging_face_name(name): name for name in sorted(self._stored)}
        self._last = threading.local()

    @cached_property
    def entries(self) -> dict[str, Entry]:
        return {name: Entry(self._stored[ours].shape, torch.float32) for name, ours in self._names.items()}

    @cached_property
    def parts(self) -> dict[Path, list[str]]:
        return {self.path: sorted(self.entries)}

    def _hugging_face_name(self, name: str) -> str:
        match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
        if match and match[2] in _BLOCK:
            return f"model.layers.{match[1]}.{_BLOCK[match[2]]}.weight"
        if name in _OUTSIDE:
            return _OUTSIDE[name]
        raise M3Error(f"{self.path} holds the tensor {name}, which no plain llama model has: it cannot be read")

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return the flat elements [start, stop) of a tensor, dequantised to float32."""
        if getattr(self._last, "key", None) != (name, start, stop):
            stored = self._stored[self._names[name]]
            width = stored.shape[-1] if len(stored.shape) > 1 else 1
            first = start // width
            rows = self._rows(name, stored, first, -(-stop // width))
            self._last.value = torch.from_numpy(rows.reshape(-1)[start - first * width : stop - first * width])
            self._last.key = (name, start, stop)
        value: torch.Tensor = self._last.value
        return value

    def _rows(self, name: str, stored: _Stored, first: int, last: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

        kind = GGMLQuantizationType(stored.kind)
        per_block, block_bytes = GGML_QUANT_SIZES[kind]
        width = stored.shape[-1] if len(stored.shape) > 1 else 1
        row_bytes = width * block_bytes // per_block
        total = stored.shape[0]
        raw = np.frombuffer(self._map, np.uint8, total * row_bytes, stored.offset).reshape(total, row_bytes)
        heads = self._heads(name)
        picked = raw[_permuted(np.arange(first, last), total, heads)] if heads else raw[first:last]
        if kind == GGMLQuantizationType.F32:
            return picked.reshape(-1).view(np.float32).reshape(last - first, width)
        return quants.dequantize(picked.reshape(1, -1), kind).reshape(last - first, width)  # one row: one call

    def _heads(self, name: str) -> int:
        """Return the number of heads whose rows llama.cpp has interleaved in a tensor, 0 for none."""
        if name.endswith("self_attn.q_proj.weight"):
            return int(self.config["num_attention_heads"])
        if name.endswith("self_attn.k_proj.weight"):
            return int(self.config["num_key_value_heads"])
        return 0

    @cached_property
    def config(self) -> Json:
        """The Hugging Face configuration that the file's metadata amounts to."""
        data = {key.removeprefix("llama."): value for key, value in self.metadata.items()}
        rows, hidden = self.entries["model.embed_tokens.weight"].shape
        heads: int = data["attention.head_count"]
        config: Json = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": hidden,
            "intermediate_size": int(data["feed_forward_length"]),
            "num_hidden_layers": int(data["block_count"]),
            "num_attention_heads": heads,
            "num_key_value_heads": data.get("attention.head_count_kv", heads),
            "head_dim": int(data.get("attention.key_length", hidden // heads)),
            "max_position_embeddings": int(data["context_length"]),
            "rms_norm_eps": _shortest(data["attention.layer_norm_rms_epsilon"]),
            "rope_theta": _shortest(data.get("rope.freq_base", 10000.0)),
            "rope_scaling": _rope_scaling(data),
            "vocab_size": rows,
            "tie_word_embeddings": "lm_head.weight" not in self.entries,
            "attention_bias": False,
            "mlp_bias": False,
        }
        for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
            config[f"{ours}_token_id"] = data.get(f"tokenizer.ggml.{theirs}_token_id")
        return config


def _permuted(rows: np.ndarray[Any, Any], total: int, heads: int) -> np.ndarray[Any, Any]:
    """Return where llama.cpp keeps the given rows of a q or k projection (transformers' _reverse_permute_weights)."""
    half = total // heads // 2
    head, rest = np.divmod(rows, 2 * half)
    side, position = np.divmod(rest, half)
    kept: np.ndarray[Any, Any] = head * 2 * half + position * 2 + side
    return kept


def _shortest(value: float) -> float:
    """Return the double whose shortest text is that of the float32 in the file: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _rope_scaling(data: Json) -> Json | None:
    kind = data.get("rope.scaling.type", "none")
    return None if kind == "none" else {"rope_type": kind, "factor": _shortest(data["rope.scaling.factor"])}


class _Header:
    """The metadata and the tensor list at the beginning of a GGUF file (version 2 or 3)."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4
        if data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version, tensors, pairs = self._scalar("I"), self._scalar("Q"), self._scalar("Q")
        if version not in (2, 3):
            raise ValueError(f"version {version}; 2 and 3 are known")
        self.metadata: Json = {}
        for _ in range(pairs):
            key = self._text()
            self.metadata[key] = self._value(self._scalar("I"))
        listed = [self._tensor() for _ in range(tensors)]
        alignment = int(self.metadata.get("general.alignment", 32))
        self.end = -(-self._at // alignment) * alignment
        self.tensors = {name: _Stored(kind, shape, self.end + offset) for name, kind, shape, offset in listed}

    def _scalar(self, code: str) -> Any:
        value = struct.unpack_from("<" + code, self._data, self._at)[0]
        self._at += struct.calcsize("<" + code)
        return value

    def _text(self) -> str:
        length = self._scalar("Q")
        begin, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise ValueError("it is cut short")
        return self._data[begin : self._at].decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._scalar(_SCALARS[kind])
        item, count = self._scalar("I"), self._scalar("Q")
        if item == _STRING:
            for _ in range(count):
                self._at += 8 + struct.unpack_from("<Q", self._data, self._at)[0]
        elif item == _ARRAY:
            for _ in range(count):
                self._value(_ARRAY)
        else:
            self._at += count * struct.calcsize("<" + _SCALARS[item])
        return {"items": count}

    def _tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self._text()
        shape = tuple(self._scalar("Q") for _ in range(self._scalar("I")))
        return name, self._scalar("I"), shape[::-1], self._scalar("Q")

"""Reading GGUF files of the llama architecture as Hugging Face tensors: names, shapes, head order as in transformers.

Only the header is parsed (the format: ggml's docs/gguf.md); quantised rows are dequantised to float32 by slices.
"""

from __future__ import annotations

import mmap
import re
import struct
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from m3_exp.merging.bits import Bytes
from m3_exp.merging.layout import Entry, mapped, tensor_bytes
from m3_exp.reading.typed import Count, Finite, Strict, checked
from m3_exp.types import Json, M3Error

if TYPE_CHECKING:
    import torch

# ggml's types that the package gguf can dequantise: so many elements are packed into so many bytes. The package itself,
# slow to import, is asked where a tensor is read.
_SIZES = {
    **{0: (1, 4), 1: (1, 2), 30: (1, 2)},  # F32, F16, BF16
    **{2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)},  # Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210)},  # Q2_K to Q6_K
    **{16: (256, 66), 17: (256, 74), 22: (256, 82), 18: (256, 98), 21: (256, 110)},  # IQ2_XXS, _XS, _S; IQ3_XXS, _S
    **{19: (256, 50), 29: (256, 56), 20: (32, 18), 23: (256, 136)},  # IQ1_S, _M; IQ4_NL, _XS
    **{34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36)},  # TQ1_0, TQ2_0, MXFP4, NVFP4
}
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_PAIRS, _TENSORS, _ITEMS = 1 << 16, 1 << 20, 1 << 24  # more of them than any model has
_NAME = 100  # characters of a field's or tensor's name; ggml allows 64
_BLOCK = {
    **{"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"},
    **{"attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"},
    **{"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"},
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

    @property
    def width(self) -> int:
        return self.shape[1] if len(self.shape) > 1 else 1

    @property
    def row_bytes(self) -> int:
        per_block, block_bytes = _SIZES[self.kind]
        return self.width * block_bytes // per_block


class _Llama(Strict):
    """What a llama model's metadata must say."""

    alignment: Count = Field(32, alias="general.alignment", le=1 << 20)
    heads: Count = Field(alias="llama.attention.head_count")
    kv_heads: Count | None = Field(None, alias="llama.attention.head_count_kv")
    head_dim: Count | None = Field(None, alias="llama.attention.key_length")
    inner: Count = Field(alias="llama.feed_forward_length")
    layers: Count = Field(alias="llama.block_count")
    context: Count = Field(alias="llama.context_length")
    eps: Finite = Field(alias="llama.attention.layer_norm_rms_epsilon", gt=0)
    theta: Finite = Field(10000.0, alias="llama.rope.freq_base", gt=0)
    rope: str = Field("none", alias="llama.rope.scaling.type")
    factor: Finite | None = Field(None, alias="llama.rope.scaling.factor", gt=0)
    bos: int | None = Field(None, alias="tokenizer.ggml.bos_token_id")
    eos: int | None = Field(None, alias="tokenizer.ggml.eos_token_id")
    pad: int | None = Field(None, alias="tokenizer.ggml.padding_token_id")


class GgufFile:
    """The tensors of one file under their Hugging Face names, all float32. `metadata` leaves out long arrays' items.

    Raises:
        M3Error: it may not be read, is damaged, lacks what a llama model needs, or holds what one does not have.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map = mapped(path)
        try:
            header = _Header(self._map)
        except (struct.error, ValueError) as error:
            reason = "it is cut short" if isinstance(error, struct.error) else error
            raise M3Error(f"{path} is not a readable GGUF file ({reason}): fetch it again") from error
        self.metadata, self._stored, self.header_bytes = header.metadata, header.tensors, header.end
        architecture = self.metadata.get("general.architecture")
        if architecture is None:
            raise M3Error(f"{path}: general.architecture is missing from its metadata: fetch it again")
        if architecture != "llama":
            raise M3Error(f"{path} holds a {architecture} model: GGUF files of the llama architecture can be read")
        self._said = checked(_Llama, self.metadata, path)
        self._names = {self._hugging_face_name(name): name for name in sorted(self._stored)}
        if "model.embed_tokens.weight" not in self._names:
            raise M3Error(f"{path} holds no token_embd.weight, the embedding: fetch it again")
        for name, ours in self._names.items():
            self._check(name, ours, self._stored[ours])
        self._check_order()
        self.entries = {name: Entry(self._stored[ours].shape, "F32") for name, ours in self._names.items()}
        self.parts = {path: sorted(self.entries)}
        self._last = threading.local()

    def _check_order(self) -> None:
        """Refuse tensors that do not follow one another as ggml demands: without overlaps and holes, padded."""
        due, alignment = self.header_bytes, self._said.alignment
        for name, stored in self._stored.items():
            if stored.offset != due:
                raise M3Error(f"{self.path}: tensor {name} begins at {stored.offset}, not at {due}: fetch it again")
            due += -(-stored.shape[0] * stored.row_bytes // alignment) * alignment

    def _check(self, name: str, ours: str, stored: _Stored) -> None:
        """Refuse a tensor whose kind, shape or bytes are not what a llama model's can be."""
        where = f"{self.path}: tensor {ours}"
        if len(stored.shape) not in (1, 2) or 0 in stored.shape:
            raise M3Error(f"{where} has the shape {stored.shape}: one or two dimensions, none of them 0, are needed")
        if stored.kind not in _SIZES:
            raise M3Error(f"{where} is of the quantised type {stored.kind}, which gguf cannot dequantise")
        per_block, row_bytes = _SIZES[stored.kind][0], stored.row_bytes
        if stored.width % per_block or row_bytes <= 0:
            raise M3Error(f"{where} has rows of {stored.width}, its type packs {per_block} at a time: fetch it again")
        if stored.offset + stored.shape[0] * row_bytes > len(self._map):
            raise M3Error(f"{where} ends beyond the file, which is cut short: fetch it again")
        heads = self._heads(name)
        if heads and stored.shape[0] % (2 * heads):
            raise M3Error(
                f"{where} has {stored.shape[0]} rows, which {heads} heads (attention.head_count) do not share"
            )

    def _hugging_face_name(self, name: str) -> str:
        match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
        if match and match[2] in _BLOCK:
            return f"model.layers.{match[1]}.{_BLOCK[match[2]]}.weight"
        if name in _OUTSIDE:
            return _OUTSIDE[name]
        raise M3Error(f"{self.path} holds the tensor {name}, which no plain llama model has: it cannot be read")

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return the flat elements [start, stop) of a tensor, dequantised to float32."""
        import torch

        if getattr(self._last, "key", None) != (name, start, stop):
            stored = self._stored[self._names[name]]
            width = stored.width
            first = start // width
            rows = self._rows(name, stored, first, -(-stop // width))
            self._last.value = torch.from_numpy(rows.reshape(-1)[start - first * width : stop - first * width])
            self._last.key = (name, start, stop)
        value: torch.Tensor = self._last.value
        return value

    def stored(self, name: str, start: int, stop: int) -> Bytes:
        return tensor_bytes(self.read(name, start, stop))

    def _rows(self, name: str, stored: _Stored, first: int, last: int) -> NDArray[np.float32]:
        from gguf import GGMLQuantizationType, quants

        kind = GGMLQuantizationType(stored.kind)
        width, row_bytes, total = stored.width, stored.row_bytes, stored.shape[0]
        raw = np.frombuffer(self._map, np.uint8, total * row_bytes, stored.offset).reshape(total, row_bytes)
        heads = self._heads(name)
        picked = raw[_permuted(np.arange(first, last), total, heads)] if heads else raw[first:last]
        if kind == GGMLQuantizationType.F32:
            return picked.reshape(-1).view(np.float32).reshape(last - first, width)
        return quants.dequantize(picked.reshape(1, -1), kind).reshape(last - first, width)  # one row: one call

    def _heads(self, name: str) -> int:
        """Return the number of heads whose rows llama.cpp has interleaved in a tensor, 0 for none."""
        if name.endswith("self_attn.q_proj.weight"):
            return self._said.heads
        if name.endswith("self_attn.k_proj.weight"):
            return self._said.kv_heads or self._said.heads
        return 0

    @cached_property
    def config(self) -> Json:
        """The Hugging Face configuration that the file's metadata amounts to."""
        said = self._said
        rows, *rest = self.entries["model.embed_tokens.weight"].shape
        hidden = rest[0] if rest else 1
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": hidden,
            "intermediate_size": said.inner,
            "num_hidden_layers": said.layers,
            "num_attention_heads": said.heads,
            "num_key_value_heads": said.kv_heads or said.heads,
            "head_dim": said.head_dim or hidden // said.heads,
            "max_position_embeddings": said.context,
            "rms_norm_eps": _shortest(said.eps),
            "rope_theta": _shortest(said.theta),
            "rope_scaling": self._rope_scaling(),
            "vocab_size": rows,
            "tie_word_embeddings": "lm_head.weight" not in self.entries,
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": said.bos,
            "eos_token_id": said.eos,
            "pad_token_id": said.pad,
        }

    def _rope_scaling(self) -> Json | None:
        if self._said.rope == "none":
            return None
        if self._said.factor is None:
            raise M3Error(f"{self.path}: llama.rope.scaling.factor is missing, rope.scaling.type is {self._said.rope}")
        return {"rope_type": self._said.rope, "factor": _shortest(self._said.factor)}


def _permuted(rows: NDArray[np.int64], total: int, heads: int) -> NDArray[np.int64]:
    """Return where llama.cpp keeps the given rows of a q or k projection (transformers' _reverse_permute_weights)."""
    half = total // heads // 2
    head, rest = np.divmod(rows, 2 * half)
    side, position = np.divmod(rest, half)
    kept: NDArray[np.int64] = head * 2 * half + position * 2 + side
    return kept


def _shortest(value: float) -> float:
    """Return the double whose shortest text is that of the float32 in the file: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


class _Header:
    """The metadata and the tensor list at the beginning of a GGUF file (version 2 or 3)."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4
        if data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version = self._scalar("I")
        if version not in (2, 3):
            raise ValueError(f"version {version}; 2 and 3 are known")
        tensors = self._count("Q", _TENSORS, "tensors")
        pairs = self._count("Q", _PAIRS, "metadata fields")
        self.metadata: Json = {}
        for _ in range(pairs):
            key = self._name("a metadata field")
            self.metadata[key] = self._value(key, self._scalar("I"))
        listed = [self._tensor() for _ in range(tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= _PAIRS:
            raise ValueError(f"general.alignment is {alignment}")
        self.end = -(-self._at // alignment) * alignment
        self.tensors = {name: _Stored(kind, shape, self.end + offset) for name, kind, shape, offset in listed}
        if len(self.tensors) < len(listed):
            raise ValueError("two of its tensors have one name")

    def _scalar(self, code: str) -> Any:
        value = struct.unpack_from("<" + code, self._data, self._at)[0]
        self._at += struct.calcsize("<" + code)
        return value

    def _count(self, code: str, most: int, what: str) -> int:
        count = int(self._scalar(code))
        if count > most:
            raise ValueError(f"it says that it has {count} {what}")
        return count

    def _skip(self, size: int) -> int:
        """Pass over bytes; return where they begin."""
        begin, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise ValueError("it is cut short")
        return begin

    def _skip_texts(self, count: int) -> None:
        """Pass over so many texts: a tokenizer has a hundred thousand."""
        data, at, end, length = self._data, self._at, len(self._data), struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + length(data, at)[0]
            if at > end:
                raise ValueError("it is cut short")
        self._at = at

    def _text(self) -> str:
        begin = self._skip(self._scalar("Q"))
        return self._data[begin : self._at].decode("utf-8", "replace")

    def _name(self, what: str) -> str:
        """Return the name of something, which must be one that a model can have."""
        name = self._text()
        if not 0 < len(name) <= _NAME or not name.isprintable():
            raise ValueError(f"it calls {what} {name[:_NAME]!r}")
        return name

    def _value(self, key: str, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._scalar(self._code(key, kind))
        item, count = self._scalar("I"), self._count("Q", _ITEMS, f"items in {key!r}")
        if item == _STRING:
            self._skip_texts(count)
        else:
            self._skip(count * struct.calcsize("<" + self._code(key, item)))
        return {"items": count}

    def _code(self, key: str, kind: int) -> str:
        if kind not in _SCALARS:
            raise ValueError(f"{key!r} is of the unknown type {kind}")
        return _SCALARS[kind]

    def _tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self._name("a tensor")
        shape = tuple(self._scalar("Q") for _ in range(self._count("I", 8, f"dimensions in {name!r}")))
        return name, self._scalar("I"), shape[::-1], self._scalar("Q")

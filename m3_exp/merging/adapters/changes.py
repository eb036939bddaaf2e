"""What an adapter does to each tensor of a base, by peft's rules, and every way in which the two may not fit.

    W + scale * B @ A           a linear layer; its transpose for an embedding and Conv1D; expert by expert where fused
    m / |W + scale BA| * (...)  DoRA
    b + scale * lora_B.bias     lora_bias
    another tensor              modules_to_save, trained biases, a saved embedding (below its factors or alone)
    rows of it replaced         trainable_token_indices

A tied base is one matrix under two names: peft's merge changes both, unless one of them is a copy of its own
(`modules_to_save`), which unties them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from m3_exp.merging.adapters.config import LoraConfig
from m3_exp.merging.adapters.names import Part, part_of
from m3_exp.merging.adapters.places import FUSED, by_expert, experts_are_transposed, is_transposed, located
from m3_exp.merging.layout import Entry, Tensors
from m3_exp.types import M3Error

_CHUNK = 1 << 20  # elements compared at once
_HEADS = ("lm_head.weight", "lm_head.bias", "embed_out.weight")


@dataclass(frozen=True)
class Base:
    """What an adapter is put on: tensors, and which of them is the embedding (None: not known).

    `head` is the name that a tied head would have; `called` is the base's name in messages.
    """

    tensors: Tensors
    model_type: str
    tied: bool
    embedding: str | None
    head: str
    called: str

    def entry(self, name: str) -> Entry:
        """Return the shape and dtype of a tensor; a tied head's are its embedding's."""
        same = self.embedding if self.tied and name == self.head else None
        return self.tensors.entries[same or name]

    def located(self, name: str) -> str | None:
        """Return the base's name of what an adapter names, a tied head's as `head`; None where it has none."""
        if self.tied and name == self.head:
            return name
        return located(name, self.tensors.entries)


@dataclass(frozen=True)
class Product:
    """scale * B @ A, as it is added to one stored tensor.

    `transposed`: the tensor is stored (in, out). `experts`: how many the factors hold (0: no such layer), of which the
    tensor is the one with number `expert`, or all (None). `rows` of B belong to the tensor (None: all).
    """

    a: str
    b: str
    scale: float
    transposed: bool = False
    experts: int = 0
    expert: int | None = None
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class Change:
    """What becomes of one tensor: first `whole` (of the adapter) or `source` (of the base) in its place, then the rest.

    `bias` is added times `bias_scale`; `tokens` replaces the rows `indices`.
    """

    shape: tuple[int, ...]
    whole: str = ""
    source: str = ""
    products: tuple[Product, ...] = ()
    magnitude: str = ""
    bias: str = ""
    bias_scale: float = 0.0
    tokens: str = ""
    indices: tuple[int, ...] = ()

    @property
    def is_copy(self) -> bool:
        """Tell whether the tensor is read as it is stored, in the dtype it has."""
        return not (self.products or self.bias or self.tokens)


@dataclass
class _Pair:
    """The tensors of one adapted layer, by their names; empty ones are absent."""

    a: str = ""
    b: str = ""
    b_bias: str = ""
    magnitude: str = ""
    embedding: bool = False


@dataclass
class _Parts:
    pairs: dict[tuple[str, int], _Pair] = field(default_factory=dict)
    wholes: dict[str, tuple[str, bool]] = field(default_factory=dict)  # the adapter's name, and whether it lies `under`
    tokens: dict[str, str] = field(default_factory=dict)
    idle: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Changes:
    """What an adapter changes, by the base's names; whether the head is the embedding after it; lines to show."""

    by_name: Mapping[str, Change]
    tied: bool
    notes: tuple[str, ...] = ()


def changes_of(folder: Path, config: LoraConfig, tensors: Tensors, base: Base) -> Changes:
    """Return what an adapter changes.

    Raises:
        M3Error: a tensor is of no known kind, has no place in the base, does not fit its config or its other half, or
            the merged model could not be what was trained.
    """
    builder = _Builder(folder, config, tensors, base)
    return Changes(builder.changes(), builder.tied, tuple(builder.notes))


class _Builder:
    def __init__(self, folder: Path, config: LoraConfig, tensors: Tensors, base: Base) -> None:
        self.folder, self.config, self.tensors, self.base = folder, config, tensors, base
        self.tied = base.tied
        self.notes: list[str] = []
        self.found: dict[str, Change] = {}
        self.parts = self._sorted()

    def changes(self) -> dict[str, Change]:
        wholes = {self._place(target): named for target, named in sorted(self.parts.wholes.items())}
        if len(wholes) < len(self.parts.wholes):
            raise self._error("holds two tensors for one of the base's: keep one of them")
        self._check_saved(wholes)
        for name, (tensor, _) in self._untied(wholes).items():
            self._change(name, whole=tensor, shape=self.tensors.entries[tensor].shape)
        for (module, depth), pair in sorted(self.parts.pairs.items()):
            self._add_pair(module, depth, pair, wholes)
        self._add_tokens()
        self._check_whole()
        return self.found

    # ------------------------------------------------------------------------------------------------ the adapter

    def _sorted(self) -> _Parts:
        """Sort an adapter's tensors into pairs, whole tensors and token rows; none is left over, none comes twice."""
        parts = _Parts()
        for name, entry in sorted(self.tensors.entries.items()):
            if not entry.numel or not entry.dtype.is_floating_point:
                raise self._error(f"holds {name} of {entry.dtype}, {entry.shape}: numbers with a point are needed")
            part = part_of(name)
            if part is None:
                raise self._error(f"holds {name}, which is of no kind that peft 0.21's LoRA has: merge it with peft")
            if self._slot(parts, part, name):
                raise self._error(f"holds {name} twice, under the names of two adapters: keep one of them")
        for (module, _), pair in parts.pairs.items():
            if not pair.a or not pair.b or (".lora_embedding_" in pair.a) != (".lora_embedding_" in pair.b):
                raise self._error(f"has only one half of the LoRA pair of {module}: fetch the adapter again")
        for target, name in parts.idle.items():
            if ".original_module." in name and target not in parts.wholes:
                raise self._error(f"holds {name} without the module that was trained in its place")
            if ".lora_" in name and not (self.config.velora_config or self.config.monteclora_config):
                raise self._error(f"holds {name}, which its config does not name")
        return parts

    def _slot(self, parts: _Parts, part: Part, name: str) -> bool:
        """Put a tensor where it belongs; return whether something was there already."""
        if part.role in ("whole", "tokens", "idle"):
            if part.role == "whole":
                taken = part.target in parts.wholes
                parts.wholes[part.target] = (name, part.under)
                return taken
            shelf = parts.tokens if part.role == "tokens" else parts.idle
            taken = part.target in shelf and part.role == "tokens"
            shelf[part.target] = name
            return taken
        pair = parts.pairs.setdefault((part.target, part.depth), _Pair())
        slot = {"A": "a", "B": "b", "B.bias": "b_bias", "embedding_A": "a", "embedding_B": "b"}.get(
            part.role, part.role
        )
        taken = bool(getattr(pair, slot))
        setattr(pair, slot, name)
        pair.embedding = pair.embedding or part.role.startswith("embedding")
        return taken

    def _error(self, said: str) -> M3Error:
        return M3Error(f"{self.folder}: the adapter {said}")

    # ---------------------------------------------------------------------------------------------- whole tensors

    def _place(self, target: str) -> str:
        name = self.base.located(target)
        if name is None:
            raise self._error(f"holds {target}, which the base {self.base.called} does not have")
        return name

    def _check_saved(self, wholes: Mapping[str, tuple[str, bool]]) -> None:
        """Refuse an adapter without the modules that its config says it saves, where the base has them."""
        for module in self.config.modules_to_save or ():
            there = any(f"{module}." in f".{target}" for target in (*self.parts.wholes, *wholes))
            tied_head = self.base.tied and self.base.head.startswith(f"{module}.")
            if not there and not tied_head and any(f".{module}." in f".{name}" for name in self.base.tensors.entries):
                raise self._error(f"holds nothing of {module}, which modules_to_save names: fetch it again")

    def _untied(self, wholes: dict[str, tuple[str, bool]]) -> dict[str, tuple[str, bool]]:
        """Return the whole tensors of the merged model, a tied head's among them only where peft's merge unties it."""
        embedding, head = self.base.embedding, self.base.head
        if not self.base.tied or embedding is None:
            return wholes
        new_embedding, new_head = wholes.get(embedding), wholes.get(head)
        saved = [name for name in (embedding, head) if name in wholes and self.config.saves(name.rpartition(".")[0])]
        rest = {name: named for name, named in wholes.items() if name != head}
        if new_embedding and new_head:
            if self._same(new_embedding[0], new_head[0]):
                return rest
            if not saved:
                raise self._error(f"holds an {embedding} and another {head}, which {self.base.called} ties")
            self.tied = False
            return wholes
        if saved:
            self.tied = False
            if not new_head:
                self._change(head, source=embedding)
            return wholes
        return {**rest, embedding: new_head} if new_head else wholes

    def _same(self, one: str, other: str) -> bool:
        first, second = self.tensors.entries[one], self.tensors.entries[other]
        if first.shape != second.shape:
            return False
        for start in range(0, first.numel, _CHUNK):
            stop = min(start + _CHUNK, first.numel)
            ours, theirs = (self.tensors.read(name, start, stop).to(torch.float64) for name in (one, other))
            if not torch.equal(ours, theirs):
                return False
        return True

    def _check_whole(self) -> None:
        """Refuse a whole tensor of another shape, but for a vocabulary that all of its tensors share."""
        base, names = self.base, {self.base.embedding, *_HEADS}
        vocabulary = {name for name in names if name and (name in base.tensors.entries or name in self.found)}
        if self.tied:
            vocabulary -= {base.head}
        rows = {self._shape(name)[0] for name in vocabulary if self._shape(name)}
        for name, change in sorted(self.found.items()):
            there, made = base.entry(name).shape, change.shape
            if made == there:
                continue
            if name not in vocabulary or made[1:] != there[1:] or len(made) != len(there):
                raise self._error(f"holds {name} of shape {made}, the base {base.called} has {there}: they must agree")
            if len(rows) > 1:
                other = next(n for n in sorted(vocabulary) if self._shape(n)[0] != made[0])
                raise self._error(
                    f"resizes {name} to {made[0]} rows, {other} has {self._shape(other)[0]}: give an adapter that "
                    "saved both, or resize the base first"
                )

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.found[name].shape if name in self.found else self.base.entry(name).shape

    def _change(self, name: str, **more: object) -> None:
        change = self.found.get(name) or Change(self.base.entry(name).shape)
        self.found[name] = replace(change, **more)  # type: ignore[arg-type]

    # ------------------------------------------------------------------------------------------------------ factors

    def _add_pair(self, module: str, depth: int, pair: _Pair, wholes: Mapping[str, tuple[str, bool]]) -> None:
        name = self._matrix(f"{module}.weight")
        if name is None:
            self._add_fused(module, depth, pair)
            return
        if depth:
            raise self._error(f"wraps {module} {depth + 1} times, which has one weight")
        if name in wholes and not wholes[name][1]:
            raise self._error(f"holds {wholes[name][0]} and a LoRA pair for the same weight: keep one of them")
        itself = self.config.targets(f"{module}.weight")
        self._check_layer(module, name, pair, itself)
        transposed = pair.embedding or (not itself and is_transposed(module, self.base.model_type))
        key = f"{module}.weight" if itself else module
        out, _, into = self._sizes(module, key, pair)
        made = (into, out) if transposed else (out, into)
        self._check_fits(name, made)
        if name in self.found and self.found[name].products:
            raise self._error(f"changes {name} twice, by way of the embedding and of the head that is tied to it")
        scale = self.config.scale(key)
        self._change(name, products=(Product(pair.a, pair.b, scale, transposed),))
        self._add_magnitude(name, module, pair, out)
        self._add_bias(module, pair, out, scale)
        if self.base.tied and self.tied and name == self.base.embedding:
            self.notes.append(
                f"{self.folder} trained {module} alone, which {self.base.called} ties: embedding and head both change, "
                "as in peft's merge"
            )

    def _check_layer(self, module: str, name: str, pair: _Pair, itself: bool) -> None:
        """Refuse a pair that peft would leave out: of a module that is no target, or named as of another kind."""
        leaf = module.rpartition(".")[2]
        embeds = name == self.base.embedding and f"{module}.weight" != self.base.head
        if (embeds and not pair.embedding) or (pair.embedding and "emb" not in leaf and leaf not in ("wte", "wpe")):
            kind = "an embedding" if embeds else "no embedding"
            raise self._error(f"holds {pair.a}, but {module} is {kind}: peft would leave it out; fetch it again")
        tied = self.config.ensure_weight_tying and self.base.tied and f"{module}.weight" == self.base.head
        if not (itself or tied or self.config.trains(module)):
            raise self._error(f"holds a LoRA pair of {module}, which target_modules does not name: correct its config")

    def _sizes(self, module: str, key: str, pair: _Pair, experts: int = 1) -> tuple[int, int, int]:
        """Return (out, rank, in) of a pair whose halves agree with one another and with the config."""
        a, b = self.tensors.entries[pair.a].shape, self.tensors.entries[pair.b].shape
        if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            raise self._error(
                f"holds for {module} a lora_A of {a} and a lora_B of {b}: (r, in) and (out, r) are needed"
            )
        rank = self.config.rank(key)
        if a[0] != rank * experts:
            many = f" x {experts} experts" if experts > 1 else ""
            raise self._error(f"holds for {module} factors of rank {a[0]}, its config says {rank}{many}: correct r")
        return b[0], rank, a[1]

    def _matrix(self, name: str) -> str | None:
        """Return the tensor that holds a weight: a tied head's is the embedding."""
        found = self.base.located(name)
        return self.base.embedding if self.tied and self.base.tied and found == self.base.head else found

    def _check_fits(self, name: str, made: tuple[int, ...]) -> None:
        there = self._shape(name)
        if there != made:
            said = f"{self.folder} changes {name} of shape {made}, {self.base.called} has {there}"
            raise M3Error(f"{said}: it is for another base")

    def _add_magnitude(self, name: str, module: str, pair: _Pair, out: int) -> None:
        if bool(pair.magnitude) != bool(self.config.use_dora):
            there = "a" if pair.magnitude else "no"
            raise self._error(f"holds {there} lora_magnitude_vector of {module}, its config says use_dora="
                              f"{bool(self.config.use_dora)}: correct it, or fetch it again")  # fmt: skip
        if pair.magnitude:
            if self.tensors.entries[pair.magnitude].numel != out:
                shape = self.tensors.entries[pair.magnitude].shape
                raise self._error(f"holds {pair.magnitude} of shape {shape}: ({out},) is needed")
            self._change(name, magnitude=pair.magnitude)

    def _add_bias(self, module: str, pair: _Pair, out: int, scale: float) -> None:
        if bool(pair.b_bias) != bool(self.config.lora_bias) and not pair.embedding:
            there = "a" if pair.b_bias else "no"
            raise self._error(f"holds {there} lora_B.bias of {module}, its config says lora_bias="
                              f"{bool(self.config.lora_bias)}: correct it, or fetch it again")  # fmt: skip
        if not pair.b_bias:
            return
        name = self.base.located(f"{module}.bias")
        if name is None:
            raise self._error(
                f"adds a bias to {module}, which has none in {self.base.called}: peft cannot merge it either"
            )
        if self.tensors.entries[pair.b_bias].shape != (out,):
            raise self._error(f"holds {pair.b_bias} of {self.tensors.entries[pair.b_bias].shape}: ({out},) is needed")
        self._check_fits(name, (out,))
        self._change(name, bias=pair.b_bias, bias_scale=scale)

    # ------------------------------------------------------------------------------------------------ fused experts

    def _parameters(self, module: str) -> list[str]:
        """Return the parameters of fused experts that are trained, the innermost wrapper's first."""
        leaves = sorted({name.rpartition(".")[2] for name in self.config.target_parameters or ()}, key=_order)
        return [leaf for leaf in leaves if self.config.targets(f"{module}.{leaf}")]

    def _add_fused(self, module: str, depth: int, pair: _Pair) -> None:
        """Add the factors of a parameter of several experts, each with its share of them."""
        parameters = self._parameters(module)
        depths = sorted(d for name, d in self.parts.pairs if name == module)
        if not parameters or depths != list(range(len(parameters))):
            raise self._error(f"holds a LoRA pair of {module}, which the base {self.base.called} does not have")
        if len(parameters) > 1 and not all(leaf in FUSED for leaf in parameters):
            raise self._error(
                f"trains {', '.join(parameters)} of {module}: their order is not known; train one of them"
            )
        if pair.magnitude or pair.b_bias:
            raise self._error(f"trains parameters of {module} by DoRA or with biases: peft has no such thing")
        parameter = parameters[len(parameters) - 1 - depth]
        key = f"{module}.{parameter}"
        name = self.base.located(key)
        pieces = [] if name else by_expert(module, parameter, self.base.tensors.entries)
        if name is None and not pieces:
            raise self._error(f"changes {key}, and how {self.base.called} stores it is not known: merge it with peft")
        shape = self.base.entry(name).shape if name else ()
        experts = (shape[0] if len(shape) == 3 else 1) if name else pieces[-1].expert + 1
        out, _, into = self._sizes(module, key, pair, experts)
        product = Product(pair.a, pair.b, self.config.scale(key), experts=experts)
        if name is not None:
            transposed = len(shape) == 3 and experts_are_transposed(self.base.model_type)
            made = (into, out) if transposed else (out, into)
            self._check_fits(name, (experts, *made) if len(shape) == 3 else made)
            self._change(name, products=(replace(product, transposed=transposed),))
            return
        for piece in pieces:
            if pieces[-1].rows[1] != out:
                raise self._error(f"changes {key} of {out} rows, the base {self.base.called} has {pieces[-1].rows[1]}")
            self._check_fits(piece.name, (piece.rows[1] - piece.rows[0], into))
            self._change(piece.name, products=(replace(product, expert=piece.expert, rows=piece.rows),))

    # ------------------------------------------------------------------------------------------------------- tokens

    def _add_tokens(self) -> None:
        given = self.config.trainable_token_indices
        if given and not self.parts.tokens:
            raise self._error("holds no trained tokens, its config names some: fetch it again")
        for module, tensor in sorted(self.parts.tokens.items()):
            name = self._matrix(f"{module}.weight")
            rows = self.config.tokens(module)
            if name is None or rows is None or (isinstance(given, list) and name != self.base.embedding):
                raise self._error(f"holds {tensor}, which has no place in its config or in {self.base.called}")
            shape = self._shape(name)
            if self.tensors.entries[tensor].shape != (len(rows), *shape[1:]):
                made = self.tensors.entries[tensor].shape
                raise self._error(f"holds {tensor} of shape {made}: {(len(rows), *shape[1:])} is needed")
            again = name in self.found and self.found[name].tokens
            if again or len(set(rows)) < len(rows) or max(rows) >= shape[0]:
                raise self._error(f"trains tokens of {module} twice or beyond its {shape[0]} rows")
            self._change(name, tokens=tensor, indices=rows)


def _order(leaf: str) -> tuple[int, str]:
    return (FUSED.index(leaf) if leaf in FUSED else len(FUSED), leaf)

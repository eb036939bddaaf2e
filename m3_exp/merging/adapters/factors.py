"""Pairs of factors: which tensors of the base they change, and every way in which they may not fit them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from m3_exp.merging.adapters.draft import Draft, Product
from m3_exp.merging.adapters.parts import Pair, Whole
from m3_exp.merging.adapters.places import EXPERTS_IN_OUT, FUSED, by_expert, is_transposed


def add_pair(
    draft: Draft, module: str, depth: int, pair: Pair, wholes: Mapping[str, Whole], depths: Sequence[int]
) -> None:
    """Add a pair's product to the weight of its module; `depths` are those of all pairs of the module.

    Raises:
        M3Error: the base has no such weight, or the pair does not fit it.
    """
    name = draft.matrix(f"{module}.weight")
    if name is None:
        _add_fused(draft, module, depth, pair, depths)
        return
    if depth:
        raise draft.refusal(f"wraps {module} {depth + 1} times, which has one weight")
    if name in wholes and not wholes[name].under:
        raise draft.refusal(f"holds {wholes[name].name} and a LoRA pair for the same weight: keep one of them")
    itself = draft.config.targets(f"{module}.weight")
    _check_layer(draft, module, name, pair, itself)
    transposed = pair.embedding or (not itself and is_transposed(module, draft.base.model_type))
    key = f"{module}.weight" if itself else module
    out, into = _sizes(draft, module, key, pair)
    draft.check_shape(name, (into, out) if transposed else (out, into))
    if name in draft.changes and draft.changes[name].products:
        raise draft.refusal(f"changes {name} twice, by way of the embedding and of the head that is tied to it")
    scale = draft.config.scale(key)
    draft.change(name, products=(Product(pair.a, pair.b, scale, transposed),))
    _add_magnitude(draft, name, module, pair, out)
    _add_bias(draft, module, pair, out, scale)
    if draft.base.tied and draft.tied and name == draft.base.embedding:
        alone = f"{draft.folder} trained {module} alone, which {draft.base.called} ties"
        draft.notes.append(f"{alone}: embedding and head both change, as in peft's merge")


def _check_layer(draft: Draft, module: str, name: str, pair: Pair, itself: bool) -> None:
    """Refuse a pair that peft would leave out: of a module that is no target, or named as of another kind."""
    leaf = module.rpartition(".")[2]
    embeds = name == draft.base.embedding and f"{module}.weight" != draft.base.head
    if (embeds and not pair.embedding) or (pair.embedding and "emb" not in leaf and leaf not in ("wte", "wpe")):
        kind = "an embedding" if embeds else "no embedding"
        raise draft.refusal(f"holds {pair.a}, but {module} is {kind}: peft would leave it out; fetch it again")
    tied = draft.config.ensure_weight_tying and draft.base.tied and f"{module}.weight" == draft.base.head
    if not (itself or tied or draft.config.trains(module)):
        raise draft.refusal(f"holds a LoRA pair of {module}, which target_modules does not name: correct its config")


def _sizes(draft: Draft, module: str, key: str, pair: Pair, experts: int = 1) -> tuple[int, int]:
    """Return (out, in) of a pair whose halves agree with one another and with the config."""
    a, b = draft.tensors.entries[pair.a].shape, draft.tensors.entries[pair.b].shape
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        raise draft.refusal(f"holds for {module} a lora_A of {a} and a lora_B of {b}: (r, in) and (out, r) are needed")
    rank = draft.config.rank(key)
    if a[0] != rank * experts:
        many = f" x {experts} experts" if experts > 1 else ""
        raise draft.refusal(f"holds for {module} factors of rank {a[0]}, its config says {rank}{many}: correct r")
    return b[0], a[1]


def _add_magnitude(draft: Draft, name: str, module: str, pair: Pair, out: int) -> None:
    _check_named(draft, f"lora_magnitude_vector of {module}", bool(pair.magnitude), "use_dora", draft.config.use_dora)
    if pair.magnitude:
        entry = draft.tensors.entries[pair.magnitude]
        if entry.numel != out:
            raise draft.refusal(f"holds {pair.magnitude} of shape {entry.shape}: ({out},) is needed")
        draft.change(name, magnitude=pair.magnitude)


def _add_bias(draft: Draft, module: str, pair: Pair, out: int, scale: float) -> None:
    if not pair.embedding:
        _check_named(draft, f"lora_B.bias of {module}", bool(pair.bias), "lora_bias", draft.config.lora_bias)
    if not pair.bias:
        return
    name, shape = draft.base.located(f"{module}.bias"), draft.tensors.entries[pair.bias].shape
    if name is None:
        said = f"adds a bias to {module}, which has none in {draft.base.called}: peft cannot merge it either"
        raise draft.refusal(said)
    if shape != (out,):
        raise draft.refusal(f"holds {pair.bias} of {shape}: ({out},) is needed")
    draft.check_shape(name, (out,))
    draft.change(name, bias=pair.bias, bias_scale=scale)


def _check_named(draft: Draft, what: str, held: bool, field: str, said: bool | None) -> None:
    """Refuse an adapter that has a tensor which its config does not announce, or lacks one which it announces."""
    if held != bool(said):
        there = f"{'a' if held else 'no'} {what}, its config says {field}={bool(said)}"
        raise draft.refusal(f"holds {there}: correct it, or fetch it again")


# ------------------------------------------------------------------------------------------------------ fused experts


def _add_fused(draft: Draft, module: str, depth: int, pair: Pair, depths: Sequence[int]) -> None:
    """Add the factors of a parameter of several experts, each with its share of them."""
    base = draft.base
    leaves = sorted({name.rpartition(".")[2] for name in draft.config.target_parameters or ()}, key=_order)
    parameters = [leaf for leaf in leaves if draft.config.targets(f"{module}.{leaf}")]  # the innermost wrapper's first
    if not parameters or sorted(depths) != list(range(len(parameters))):
        raise draft.refusal(f"holds a LoRA pair of {module}, which the base {base.called} does not have")
    if len(parameters) > 1 and not all(leaf in FUSED for leaf in parameters):
        named = f"trains {', '.join(parameters)} of {module}"
        raise draft.refusal(f"{named}: their order is not known; train one of them")
    if pair.magnitude or pair.bias:
        raise draft.refusal(f"trains parameters of {module} by DoRA or with biases: peft has no such thing")
    parameter = parameters[len(parameters) - 1 - depth]
    key = f"{module}.{parameter}"
    name = base.located(key)
    pieces = [] if name else by_expert(module, parameter, base.tensors.entries)
    if name is None and not pieces:
        raise draft.refusal(f"changes {key}, and how {base.called} stores it is not known: merge it with peft")
    shape = base.entry(name).shape if name else ()
    experts = (shape[0] if len(shape) == 3 else 1) if name else pieces[-1].expert + 1
    out, into = _sizes(draft, module, key, pair, experts)
    product = Product(pair.a, pair.b, draft.config.scale(key), experts=experts)
    if name is not None:
        transposed = len(shape) == 3 and base.model_type in EXPERTS_IN_OUT
        made = (into, out) if transposed else (out, into)
        draft.check_shape(name, (experts, *made) if len(shape) == 3 else made)
        draft.change(name, products=(replace(product, transposed=transposed),))
        return
    for piece in pieces:
        if pieces[-1].rows[1] != out:
            raise draft.refusal(f"changes {key} of {out} rows, the base {base.called} has {pieces[-1].rows[1]}")
        draft.check_shape(piece.name, (piece.rows[1] - piece.rows[0], into))
        draft.change(piece.name, products=(replace(product, expert=piece.expert, rows=piece.rows),))


def _order(leaf: str) -> tuple[int, str]:
    return (FUSED.index(leaf) if leaf in FUSED else len(FUSED), leaf)

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
from pathlib import Path

from m3_exp.merging.adapters.config import LoraConfig
from m3_exp.merging.adapters.draft import Base, Draft
from m3_exp.merging.adapters.factors import add_pair
from m3_exp.merging.adapters.parts import parts_of
from m3_exp.merging.adapters.wholes import add_wholes, check_sizes
from m3_exp.merging.layout import Tensors


def changes_of(folder: Path, config: LoraConfig, tensors: Tensors, base: Base) -> Draft:
    """Return what an adapter changes.

    Raises:
        M3Error: a tensor is of no known kind, has no place in the base, does not fit its config or its other half, or
            the merged model could not be what was trained.
    """
    parts = parts_of(folder, config, tensors)
    draft = Draft(folder, config, tensors, base)
    wholes = add_wholes(draft, parts.wholes)
    for (module, depth), pair in sorted(parts.pairs.items()):
        depths = [other for name, other in parts.pairs if name == module]
        add_pair(draft, module, depth, pair, wholes, depths)
    _add_tokens(draft, parts.tokens)
    check_sizes(draft)
    return draft


def _add_tokens(draft: Draft, tokens: Mapping[str, str]) -> None:
    given = draft.config.trainable_token_indices
    if given and not tokens:
        raise draft.refusal("holds no trained tokens, its config names some: fetch it again")
    for module, tensor in sorted(tokens.items()):
        name, rows = draft.matrix(f"{module}.weight"), draft.config.tokens(module)
        if name is None or rows is None or (isinstance(given, list) and name != draft.base.embedding):
            raise draft.refusal(f"holds {tensor}, which has no place in its config or in {draft.base.called}")
        shape, made = draft.shape(name), draft.tensors.entries[tensor].shape
        if made != (len(rows), *shape[1:]):
            raise draft.refusal(f"holds {tensor} of shape {made}: {(len(rows), *shape[1:])} is needed")
        again = name in draft.changes and draft.changes[name].tokens
        if again or len(set(rows)) < len(rows) or max(rows) >= shape[0]:
            raise draft.refusal(f"trains tokens of {module} twice or beyond its {shape[0]} rows")
        draft.change(name, tokens=tensor, indices=rows)

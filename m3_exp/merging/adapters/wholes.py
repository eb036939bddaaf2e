"""Tensors of an adapter that replace the base's (`modules_to_save`, trained biases), and heads that they untie."""

from collections.abc import Mapping

from m3_exp.merging.adapters.draft import Draft
from m3_exp.merging.adapters.parts import Whole
from m3_exp.merging.layout import same_values

_HEADS = ("lm_head.weight", "lm_head.bias", "embed_out.weight")


def add_wholes(draft: Draft, given: Mapping[str, Whole]) -> dict[str, Whole]:
    """Put whole tensors in place of the base's; return them by the base's names."""
    wholes: dict[str, Whole] = {}
    for target, whole in sorted(given.items()):
        name = draft.base.located(target)
        if name is None:
            raise draft.refusal(f"holds {target}, which the base {draft.base.called} does not have")
        wholes[name] = whole
    if len(wholes) < len(given):
        raise draft.refusal("holds two tensors for one of the base's: keep one of them")
    _check_saved(draft, {*given, *wholes})
    for name, whole in _untied(draft, wholes).items():
        draft.change(name, whole=whole.name, shape=draft.tensors.entries[whole.name].shape)
    return wholes


def _check_saved(draft: Draft, names: set[str]) -> None:
    """Refuse an adapter without the modules that its config says it saves, where the base has them."""
    for module in draft.config.modules_to_save or ():
        there = any(f"{module}." in f".{name}" for name in names)
        tied_head = draft.base.tied and draft.base.head.startswith(f"{module}.")
        if not there and not tied_head and any(f".{module}." in f".{name}" for name in draft.base.tensors.entries):
            raise draft.refusal(f"holds nothing of {module}, which modules_to_save names: fetch it again")


def _untied(draft: Draft, wholes: dict[str, Whole]) -> dict[str, Whole]:
    """Return the whole tensors of the merged model, a tied head's among them only where peft's merge unties it."""
    embedding, head = draft.base.embedding, draft.base.head
    if not draft.base.tied or embedding is None:
        return wholes
    new_embedding, new_head = wholes.get(embedding), wholes.get(head)
    saved = any(name in wholes and draft.config.saves(name.rpartition(".")[0]) for name in (embedding, head))
    rest = {name: whole for name, whole in wholes.items() if name != head}
    if new_embedding and new_head and same_values(draft.tensors, new_embedding.name, new_head.name):
        return rest
    if new_embedding and new_head and not saved:
        raise draft.refusal(f"holds an {embedding} and another {head}, which {draft.base.called} ties")
    if saved:
        draft.tied = False
        if not new_head:
            draft.change(head, source=embedding)
        return wholes
    return {**rest, embedding: new_head} if new_head else wholes


def check_sizes(draft: Draft) -> None:
    """Refuse a whole tensor of another shape than the base's; a vocabulary may change if all its tensors do."""
    base, names = draft.base, {draft.base.embedding, *_HEADS}
    vocabulary = {name for name in names if name and (name in base.tensors.entries or name in draft.changes)}
    if draft.tied:
        vocabulary -= {base.head}
    rows = {draft.shape(name)[0] for name in vocabulary if draft.shape(name)}
    for name, change in sorted(draft.changes.items()):
        there, made = base.entry(name).shape, change.shape
        if made == there:
            continue
        if name not in vocabulary or made[1:] != there[1:] or len(made) != len(there):
            raise draft.refusal(f"holds {name} of shape {made}, the base {base.called} has {there}: they must agree")
        if len(rows) > 1:
            other = next(n for n in sorted(vocabulary) if draft.shape(n)[0] != made[0])
            sizes = f"{name} to {made[0]} rows, {other} has {draft.shape(other)[0]}"
            raise draft.refusal(f"resizes {sizes}: give an adapter that saved both, or resize the base first")

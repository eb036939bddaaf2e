"""Merging models that tie their head to the embedding with models that store a head of their own."""

from collections.abc import Sequence
from dataclasses import replace

from m3_exp.merging.checkpoint import HEAD, Model
from m3_exp.merging.layout import Renamed


def alike(models: Sequence[Model]) -> list[Model]:
    """Return the same models, all with or all without a head, where that changes no weight.

    A stored head that equals the embedding counts as none. Where an adapter unties a base, the embedding of the tied
    models is read a second time as their head. Any other mixture of both kinds is returned as it is: a head that a
    checkpoint lacks may have been lost.
    """
    headed = [model for model in models if HEAD in model.tensors]
    if 0 < len(headed) < len(models) and all(model.head_is_embedding() for model in headed):
        kept = [{name: entry for name, entry in model.tensors.items() if name != HEAD} for model in models]
        return [replace(m, tied=True, tensors=own, tied_form=None) for m, own in zip(models, kept, strict=True)]
    if not any(model.base and model.base.tied and not model.tied for model in models):
        return list(models)
    return [_written_out(model) if model.tied else model for model in models]


def _written_out(model: Model) -> Model:
    if model.embedding is None:
        return model
    content = Renamed(model.content, {**{name: name for name in model.content.entries}, HEAD: model.embedding})
    tensors = {name: content.entries[name] for name in sorted({*model.tensors, HEAD})}
    return replace(model, tied=False, tensors=tensors, content=content, tied_form=model)

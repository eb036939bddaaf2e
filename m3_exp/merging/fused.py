"""Blocks of 16-bit models in compiled loops, to the bytes of the method.

They make linear recipes, DARE on them, TIES, and what is a sum of the models by their inner products.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from m3_exp.merging.bits import Bytes, Floats
from m3_exp.merging.checkpoint import Model
from m3_exp.merging.gram import gram_of
from m3_exp.merging.jobs import Form, Job
from m3_exp.merging.scan import Cutoffs, Halves
from m3_exp.merging.sparsify import Sparsifier

Words = NDArray[np.uint16]


def fused(form: Form, job: Job, name: str, start: int, stop: int) -> tuple[Bytes, list[int]] | None:
    """Return a block of a tensor, and how many elements of each expert DARE dropped.

    None where something that is read or written is not of the one 16-bit dtype, where a row is missing, and of all
    other recipes.
    """
    if not form.is_fused or form.experts[0].tensors[name].dtype != job.dtype:
        return None
    needs_base = form.method.needs_base
    words = halves([*form.experts, *([job.base] if needs_base else [])], name, start, stop)
    if words is None:
        return None
    out, dropped = np.empty(stop - start, np.uint16), list[int]()
    base = words.pop() if needs_base else out[:0]
    given = Halves(tuple(words), base, job.dtype == "F16")
    if form.votes is not None:
        _elect(form, form.votes, given, out)
    elif form.shares is not None and form.sparsifier is not None:
        keys = [form.sparsifier.drawn_by(model.digest, name) for model in form.experts]
        dropped = _drop(form.shares, form.sparsifier, given, np.array(keys, np.uint64), start, out)
    elif form.shares is not None or form.by_gram is not None:
        shares = _by_gram(form, given) if form.shares is None else form.shares
        if shares is None:
            return None
        from m3_exp.merging.kernels import linear

        linear(given.experts, given.base, shares, given.is_half, out)
    return out.view(np.uint8), dropped


def halves(models: Sequence[Model], name: str, start: int, stop: int) -> list[Words] | None:
    """Return the bits of a block of each model, where they are of one 16-bit dtype of floats and all have it whole."""
    entries = [model.tensors[name] for model in models]
    dtype = entries[0].dtype
    if dtype not in ("BF16", "F16") or any(one.dtype != dtype or stop > one.numel for one in entries):
        return None
    return [model.stored(name, start, stop).view(np.uint16) for model in models]


def _by_gram(form: Form, given: Halves) -> Floats | None:
    assert form.by_gram is not None
    coefficients = form.by_gram(gram_of(given), form.recipe.weights, **form.keywords)
    return None if coefficients is None else np.array(coefficients, np.float32)


def _elect(form: Form, votes: Floats, given: Halves, out: Words) -> None:
    from m3_exp.merging import kernels

    cuts = form.cutoffs or Cutoffs((0.0,) * len(votes), (), 1.0)
    lows, room = np.array(cuts.magnitudes, np.float32), kernels.rows(len(votes))
    majority, scaling = np.float32(cuts.majority), np.float32(form.keywords["scaling"])
    kernels.ties(given.experts, given.base, given.is_half, room, lows, votes, majority, scaling, out)


def _drop(
    shares: Floats, sparsifier: Sparsifier, given: Halves, keys: NDArray[np.uint64], start: int, out: Words
) -> list[int]:
    from m3_exp.merging.kernels import linear_dropped

    threshold, kept = sparsifier.chance or (np.uint64(0), np.float32(1))
    dropped = np.zeros(len(shares), np.int64)
    linear_dropped(given.experts, given.base, shares, given.is_half, keys, start, threshold, kept, out, dropped)
    return [int(gone) for gone in dropped]

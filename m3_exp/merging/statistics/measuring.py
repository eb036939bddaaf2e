"""Measuring grams and fisher of one expert, layer by layer, one sequence at a time, all in float32.

What goes into each layer lies in scratch files, and a layer's statistic is written when it is complete; a killed
measurement goes on with the layer that it was at. In memory are one layer (or embedding and head), its gradients and
its statistic, and what one sequence takes in it.

    grams     hidden-K is what goes into layer K; of it the layer makes hidden-K+1 and its Gram matrices
    fisher    the same forward; then backward, from the log-likelihood of each sequence: gradient-K is that of hidden-K,
              and layer K makes it of hidden-K (the layer is run again) and gradient-K+1
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from m3_exp.machine import cores
from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.statistics import kept
from m3_exp.merging.statistics.cost import check_disk
from m3_exp.merging.statistics.layered import OUTSIDE, LayeredModel
from m3_exp.merging.statistics.text import digest, sequences
from m3_exp.merging.statistics.wanted import Wanted
from m3_exp.merging.tokenizer import open_tokenizer, tokenizer_directory
from m3_exp.store import Measured, Store, sync
from m3_exp.types import M3Error

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Say = Callable[[str], None]
_TOLERANCE = 1e-3  # of the largest value: how far layer by layer may be from the whole model
_SPARE = 1.5  # times what is counted must be free on a GPU


def measure(wanted: Wanted, store: Store, say: Say = lambda line: None) -> None:
    """Measure a statistic, and put it into the store; what an earlier call measured of it is kept.

    Raises:
        M3Error: model, tokenizer or text cannot be used for it.
    """
    model = open_model(wanted.expert, store)
    key = wanted.key(store)
    tokenizer = open_tokenizer(tokenizer_directory(wanted.expert, store))
    ids = sequences(wanted.text, tokenizer, wanted.sequences, wanted.length)
    if model.vocabulary and (largest := max(map(max, ids))) >= model.vocabulary:
        raise M3Error(
            f"{wanted.expert}: its tokenizer makes token {largest} of the text, its embedding has {model.vocabulary} "
            "rows: put its own tokenizer beside it"
        )
    store.root.mkdir(parents=True, exist_ok=True)
    check_disk(wanted, model, store.root)
    layered = LayeredModel(model, _device(wanted, store))
    measuring = _Measuring(wanted, store.statistic(key), layered, ids, model.digest, say)
    names = measuring.fisher() if wanted.statistic == "fisher" else measuring.grams()
    squares = math.fsum(kept.squares(store.statistic(key) / name) for name in names)
    record = Measured(
        wanted.statistic, model.digest, digest(wanted.text), wanted.sequences, wanted.length, tuple(names),
        math.sqrt(squares), str(layered.device),
    )  # fmt: skip
    store.statistics.put(key, record)
    measuring.clear()


def _device(wanted: Wanted, store: Store) -> torch.device:
    """Return a GPU where one has room for it, else the CPU, and let torch use all cores."""
    import torch

    torch.set_num_threads(len(cores()))
    if torch.cuda.is_available():
        sizes = [entry.numel for entry in open_model(wanted.expert, store).tensors.values()]
        needed = 4 * 4 * sum(sorted(sizes)[-8:])  # embedding and head, or a layer: with gradients and statistic
        if torch.cuda.mem_get_info()[0] > _SPARE * needed:
            return torch.device("cuda")
    return torch.device("cpu")


class _Measuring:
    """One measurement: where it lies, what it is of, and how far it is."""

    def __init__(
        self, wanted: Wanted, folder: Path, model: LayeredModel, ids: Sequence[Sequence[int]], seed: str, say: Say
    ) -> None:
        self._wanted, self._folder, self._model, self._ids, self._say = wanted, folder, model, ids, say
        self._seed = seed
        self._scratch = folder / "scratch"
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._width = 0  # of the hidden states

    def clear(self) -> None:
        """Remove the scratch files."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    # -------------------------------------------------------------------------------------------------------- grams

    def grams(self) -> list[str]:
        """Measure the Gram matrices of each layer's linear modules; return the names of the files."""
        if not any(self._model.linear(layer) for layer in range(self._model.layers)):
            raise self._model.refused("has no torch.nn.Linear in its decoder layers")
        layers = range(self._model.layers + 1)
        reached = [k for k in layers if self._is_there("hidden", k) and all(map(self._is_measured, range(k)))]
        last = self._begin(embed=not reached)
        for layer in range(max(reached, default=0), self._model.layers):
            self._say_layer("forward", layer)
            self._forward(layer, self._new_grams(layer))
        self._check_last(last)
        return [_part(layer) for layer in range(self._model.layers)]

    def _new_grams(self, layer: int) -> _Grams | None:
        return None if self._is_measured(layer) else _Grams(self._model.linear(layer))

    def _forward(self, layer: int, grams: _Grams | None, keep: bool = False) -> None:
        """Take all sequences through a layer; `keep`: what goes into it stays."""
        import torch

        hidden = self._open("hidden", layer)
        with self._writing("hidden", layer + 1) as out, torch.no_grad(), self._model.weights(layer):
            for index in range(len(self._ids)):
                out[index] = self._model.layer(layer, self._one(hidden, index))[0].cpu()
                if grams is not None:
                    grams.take()
            if grams is not None:
                kept.write_part(self._path(layer), *grams.finish(self._wanted.tokens))
        if not keep:
            self._drop("hidden", layer)

    # ------------------------------------------------------------------------------------------------------- fisher

    def fisher(self) -> list[str]:
        """Measure the Fisher diagonal of every parameter; return the names of the files."""
        layers = self._model.layers
        forward = [k for k in range(layers + 1) if all(self._is_there("hidden", i) for i in range(k + 1))]
        backward = [k for k in range(layers + 1) if self._is_there("gradient", k)]
        if not all(map(self._is_measured, range(min(backward, default=layers), layers))):
            backward = []
        last = self._begin(embed=not forward)
        if not backward:
            for layer in range(max(forward, default=0), layers):
                self._say_layer("forward", layer)
                self._forward(layer, None, keep=True)
            self._check_last(last)
            self._say("the log-likelihood and its gradient")
            self._from_head()
        for layer in reversed(range(min(backward, default=layers))):
            self._say_layer("backward", layer)
            self._backward(layer)
        self._say("backward, embedding and head")
        self._outside()
        return [*(_part(layer) for layer in range(layers)), _part(OUTSIDE)]

    def _from_head(self) -> None:
        """Choose each sequence's next tokens, and take the gradient of their log-likelihood at the last layer."""
        import torch

        hidden = self._open("hidden", self._model.layers)
        targets = torch.empty(len(self._ids), self._wanted.length - 1, dtype=torch.int64)
        with self._model.weights(OUTSIDE), self._writing("gradient", self._model.layers) as out:
            for index, ids in enumerate(self._ids):
                leaf = self._one(hidden, index).requires_grad_()
                logits = self._model.logits(ids, leaf)[:-1]
                targets[index] = self._targets(ids, logits.detach(), index)
                (gradient,) = torch.autograd.grad(_likelihood(logits, targets[index]), [leaf])
                out[index] = gradient[0].cpu()
            kept.write_part(self._scratch / "targets", {"targets": targets.float()}, {})

    def _targets(self, ids: Sequence[int], logits: Tensor, index: int) -> Tensor:
        """Return the next token at each position: the text's, or one drawn by the model, the same ones every time."""
        import torch

        if self._wanted.labels == "text":
            return torch.tensor(list(ids[1:]))
        generator = torch.Generator().manual_seed(int(self._seed[:12], 16) + index)
        return torch.multinomial(logits.cpu().double().softmax(dim=-1), 1, generator=generator)[:, 0]

    def _backward(self, layer: int) -> None:
        import torch

        hidden, above = self._open("hidden", layer), self._open("gradient", layer + 1)
        with self._writing("gradient", layer) as out, self._model.weights(layer, gradients=True) as weights:
            squared = _Squared(weights)
            for index in range(len(self._ids)):
                leaf = self._one(hidden, index).requires_grad_()
                made = self._model.layer(layer, leaf)
                wanted = [leaf, *weights.values()]
                gradient, *own = torch.autograd.grad(made, wanted, self._one(above, index), allow_unused=True)
                squared.add(own)
                out[index] = gradient[0].cpu()
            if not self._is_measured(layer):
                kept.write_part(self._path(layer), squared.mean(len(self._ids)), {})
        self._drop("gradient", layer + 1)

    def _outside(self) -> None:
        """Measure what lies outside of the layers; of a tied matrix both uses add up to one gradient."""
        import torch
        from safetensors.torch import load_file

        if self._is_measured(OUTSIDE):
            return
        hidden, below = self._open("hidden", self._model.layers), self._open("gradient", 0)
        targets = load_file(self._scratch / "targets")["targets"].long()
        with self._model.weights(OUTSIDE, gradients=True) as weights:
            squared, wanted = _Squared(weights), list(weights.values())
            for index, ids in enumerate(self._ids):
                likelihood = _likelihood(self._model.logits(ids, self._one(hidden, index))[:-1], targets[index])
                after = torch.autograd.grad(likelihood, wanted, allow_unused=True)
                made = self._model.embedded(ids)
                before = torch.autograd.grad(made, wanted, self._one(below, index), allow_unused=True)
                squared.add([_sum(one, other) for one, other in zip(before, after, strict=True)])
            kept.write_part(self._path(OUTSIDE), squared.mean(len(self._ids)), {})

    # ------------------------------------------------------------------------------------------------ scratch files

    def _begin(self, embed: bool) -> Tensor:
        """Run the first sequence through the whole model, and return what leaves the last layer. `embed`: all."""
        import torch

        self._say("the whole model once")
        with self._model.weights(OUTSIDE), torch.no_grad():
            last = self._model.begin(self._ids[0]).cpu()
            self._width = last.shape[-1]
            if embed:
                with self._writing("hidden", 0) as out:
                    for index, ids in enumerate(self._ids):
                        out[index] = self._model.embedded(ids)[0].cpu()
        return last

    def _check_last(self, last: Tensor) -> None:
        """Refuse a model of which the layers, one by one, make something else than the whole."""
        made = self._open("hidden", self._model.layers)[:1]
        if not float((made - last).abs().max()) <= _TOLERANCE * float(last.abs().max()):
            raise self._model.refused("makes something else as a whole than layer by layer")

    def _say_layer(self, way: str, layer: int) -> None:
        self._say(f"{way}, layer {layer + 1} of {self._model.layers}")

    def _path(self, layer: int) -> Path:
        return self._folder / _part(layer)

    def _is_measured(self, layer: int) -> bool:
        return kept.is_whole(self._path(layer))

    def _is_there(self, kind: str, layer: int) -> bool:
        return (self._scratch / f"{kind}-{layer}").exists()

    def _drop(self, kind: str, layer: int) -> None:
        (self._scratch / f"{kind}-{layer}").unlink(missing_ok=True)

    def _one(self, states: Tensor, index: int) -> Tensor:
        return states[index : index + 1].clone().to(self._model.device)

    def _open(self, kind: str, layer: int) -> Tensor:
        return self._mapped(self._scratch / f"{kind}-{layer}")

    def _mapped(self, path: Path) -> Tensor:
        import torch

        shape = len(self._ids), self._wanted.length, self._width
        return torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=torch.float32).view(shape)

    @contextmanager
    def _writing(self, kind: str, layer: int) -> Iterator[Tensor]:
        """Give a file (sequences, length, width) to be filled; it has its name when the block has ended well."""
        path = self._scratch / f"{kind}-{layer}"
        partial = path.with_suffix(".partial")
        yield self._mapped(partial)
        sync(partial)
        os.replace(partial, path)
        sync(self._scratch)


class _Grams:
    """The sums of x x^T over the inputs x of linear modules; modules that share their input have one matrix."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._inputs: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._same: dict[str, str] = {}
        self._hooks = [one.register_forward_pre_hook(self._hook(name)) for name, one in modules.items()]

    def take(self) -> None:
        """Add what went into the modules since the last call."""
        first: dict[int, str] = {}  # by the input: they are all held, so that no two have one id
        for name, inputs in self._inputs.items():
            leader = first.setdefault(id(inputs), name)
            if self._same.setdefault(name, leader) != leader:
                raise M3Error(f"{name} shares its input with {leader} for some texts only: give another method")
            if leader == name:
                rows = inputs.reshape(-1, inputs.shape[-1])
                self._sums[name] = _added(self._sums.get(name), rows)
        self._inputs.clear()

    def finish(self, tokens: int) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the means over so many tokens, and for modules that share an input whose matrix is theirs."""
        for hook in self._hooks:
            hook.remove()
        means = {name: total / tokens for name, total in self._sums.items()}
        return means, {name: leader for name, leader in self._same.items() if leader != name}

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if name in self._inputs:
                raise M3Error(f"{name} is used twice for one text: regmean cannot measure it; give another method")
            self._inputs[name] = arguments[0]

        return keep


def _part(layer: int) -> str:
    return "outside.safetensors" if layer == OUTSIDE else f"layer-{layer:05d}.safetensors"


def _likelihood(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the log-likelihood of next tokens, summed over the positions."""
    return logits.log_softmax(dim=-1).gather(-1, targets.to(logits.device)[:, None]).sum()


def _added(total: Tensor | None, rows: Tensor) -> Tensor:
    return rows.T @ rows if total is None else total.addmm_(rows.T, rows)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other


class _Squared:
    """The sums of squared gradients of parameters."""

    def __init__(self, weights: dict[str, nn.Parameter]) -> None:
        import torch

        self._sums = {name: torch.zeros_like(one, requires_grad=False) for name, one in weights.items()}

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        for total, gradient in zip(self._sums.values(), gradients, strict=True):
            if gradient is not None:
                total.addcmul_(gradient, gradient)

    def mean(self, count: int) -> dict[str, Tensor]:
        return {name: total / count for name, total in self._sums.items()}

"""A transformers model whose decoder layers get their weights one at a time, in float32; the others have none.

The model's own code makes what goes into the first layer, what each layer gets beside the hidden states (masks,
positions), and what follows the last layer. Hidden states are float32, (1, length, width), one sequence at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from m3_exp.merging import parts
from m3_exp.merging.checkpoint import Model
from m3_exp.types import M3Error

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

OUTSIDE = -1  # in place of a layer's number: what lies in no decoder layer (embedding, last norm, head)


class _Reached(Exception):
    """The first decoder layer was reached."""


class LayeredModel:
    """One causal language model; `device` is where its layers compute.

    Raises:
        M3Error: transformers has no causal language model for it, or computes with other tensors than it stores.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        self._model, self.device = model, device
        self._net = _without_weights(model)
        for module in self._net.modules():
            module._buffers = {name: one if one is None else one.to(device) for name, one in module._buffers.items()}
        self._stack_name, self._stack = _decoder_layers(self._net, model)
        self._places = _places(self._net)
        self._check_names()
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._in_tuples = False

    @property
    def layers(self) -> int:
        return len(self._stack)

    def names(self, layer: int) -> list[str]:
        """Return the names of the parameters of one layer, or of what lies `OUTSIDE` of all."""
        prefix = f"{self._stack_name}.{layer}."
        if layer != OUTSIDE:
            return sorted(name for name in self._places if name.startswith(prefix))
        return sorted(name for name in self._places if not name.startswith(f"{self._stack_name}."))

    def size(self, layer: int) -> int:
        """Return the number of elements of the parameters of one layer."""
        return sum(self._model.tensors[name].numel for name in self.names(layer))

    def linear(self, layer: int) -> Mapping[str, nn.Module]:
        """Return the linear modules of one layer by the names of their weights."""
        import torch

        prefix = f"{self._stack_name}.{layer}"
        modules = self._stack[layer].named_modules()
        return {f"{prefix}.{name}.weight": one for name, one in modules if isinstance(one, torch.nn.Linear)}

    @contextlib.contextmanager
    def weights(self, layer: int, *, gradients: bool = False) -> Iterator[dict[str, nn.Parameter]]:
        """Give one layer, or what lies `OUTSIDE`, its weights inside the block; `gradients`: they require them."""
        import torch

        held = {}
        try:
            for name in self.names(layer):
                entry = self._model.tensors[name]
                stored = self._model.read(name, 0, entry.numel).view(entry.shape)
                held[name] = torch.nn.Parameter(stored.to(self.device, torch.float32), requires_grad=gradients)
                self._put(name, held[name])
            yield held
        finally:
            for name, parameter in held.items():
                self._put(name, torch.nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False))

    def begin(self, ids: Sequence[int]) -> Tensor:
        """Run the whole model once on a sequence, and remember what each layer gets beside the hidden states.

        Returns what leaves the last layer. What lies `OUTSIDE` must have its weights.
        """
        import torch

        self._calls = []
        last: list[Tensor] = []

        def watched(layer: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                hidden, rest, named = _split(args, kwargs)
                self._calls.append((rest, named))
                with self.weights(layer):
                    made = type(self._stack[layer]).forward(self._stack[layer], hidden, *rest, **named)
                self._in_tuples = isinstance(made, tuple)
                last[:] = [_hidden(made)]
                return made

            return forward

        with torch.no_grad(), self._replaced([watched(layer) for layer in range(self.layers)]):
            self._run(ids)
        if len(self._calls) != self.layers:
            raise self.refused("does not run each of its decoder layers once")
        return last[0]

    def embedded(self, ids: Sequence[int]) -> Tensor:
        """Return what goes into the first layer; gradients flow where they are wanted. After `begin`."""
        found: list[Tensor] = []

        def caught(*args: Any, **kwargs: Any) -> Any:
            hidden, *rest = _split(args, kwargs)
            if not _same(tuple(rest), self._calls[0]):
                raise self.refused("gives its decoder layers more than hidden states of a text")
            found.append(hidden)
            raise _Reached

        with contextlib.suppress(_Reached), self._replaced([caught] * self.layers):
            self._run(ids)
        return found[0]

    def layer(self, number: int, hidden: Tensor) -> Tensor:
        """Return what a layer makes of hidden states; it must have its weights. After `begin`."""
        rest, named = self._calls[number]
        return _hidden(self._stack[number](hidden, *rest, **named))

    def logits(self, ids: Sequence[int], hidden: Tensor) -> Tensor:
        """Return the logits (length, vocabulary) that follow from what leaves the last layer. After `begin`."""

        def passed(*args: Any, **kwargs: Any) -> Any:
            return (hidden,) if self._in_tuples else hidden

        with self._replaced([passed] * self.layers):
            found: Tensor = self._run(ids).logits[0]
        return found

    def _run(self, ids: Sequence[int]) -> Any:
        import torch

        return self._net(input_ids=torch.tensor([list(ids)], device=self.device), use_cache=False)

    @contextlib.contextmanager
    def _replaced(self, forwards: Sequence[Callable[..., Any]]) -> Iterator[None]:
        """Let other functions stand for the layers inside the block."""
        for layer, forward in zip(self._stack, forwards, strict=True):
            layer.forward = forward
        try:
            yield
        finally:
            for layer in self._stack:
                del layer.forward

    def _put(self, name: str, parameter: nn.Parameter) -> None:
        for module, leaf in self._places[name]:
            module._parameters[leaf] = parameter

    def _check_names(self) -> None:
        """Refuse a model whose parameters are not the tensors of the checkpoint, as of experts that are stacked."""
        parameters = dict(self._net.named_parameters())
        for name in self._places:
            entry = self._model.tensors.get(name)
            if entry is None or entry.shape != tuple(parameters[name].shape):
                held = "lacks" if entry is None else f"stores as {entry.shape}"
                raise self.refused(f"computes with {name} {tuple(parameters[name].shape)}, which the checkpoint {held}")

    def refused(self, why: str) -> M3Error:
        """Return the refusal of a model that cannot be taken layer by layer."""
        return M3Error(
            f"{self._model.source}: {type(self._net).__name__} {why}: fisher and regmean cannot measure it; "
            "give another method"
        )


def _split(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """Return a layer's hidden states, and the other arguments, by place and by name."""
    if args:
        return args[0], args[1:], dict(kwargs)
    return kwargs["hidden_states"], (), {key: value for key, value in kwargs.items() if key != "hidden_states"}


def _hidden(made: Any) -> Tensor:
    """Return the hidden states of what a layer returns; some return them with more."""
    hidden: Tensor = made[0] if isinstance(made, tuple) else made
    return hidden


def _same(one: Any, other: Any) -> bool:
    """Tell whether two layers' arguments are alike: tensors by their values, also within lists and mappings."""
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, tuple | list):
        return type(one) is type(other) and len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    return bool(one is other or one == other)


def _without_weights(model: Model) -> Any:
    """Return the causal language model of a configuration; its buffers are there, its parameters have no values."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = str(model.config.get("model_type"))
    auto: Any = AutoModelForCausalLM
    config: Any = CONFIG_MAPPING[kind].from_dict(dict(model.config)) if kind in CONFIG_MAPPING else None
    made = auto._model_mapping.get(type(config), None)
    named = model.config.get("architectures") or []
    if made is None or (named and made.__name__ not in named):
        what = f"{named[0] if named else kind} is no causal language model that transformers knows"
        raise M3Error(f"{model.source}: {what}: fisher and regmean measure those only; give another method")
    config.tie_word_embeddings = model.tied
    if model.vocabulary:
        config.vocab_size = model.vocabulary
    original = torch.nn.Module.register_parameter

    def without_values(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        original(module, name, parameter)
        if parameter is not None and not parameter.is_meta:
            module._parameters[name] = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)

    torch.nn.Module.register_parameter = without_values  # type: ignore[method-assign, assignment]
    try:
        net = auto.from_config(config, dtype=torch.float32, trust_remote_code=False)
    finally:
        torch.nn.Module.register_parameter = original  # type: ignore[method-assign]
    return net.eval()


def _decoder_layers(net: Any, model: Model) -> tuple[str, nn.ModuleList]:
    """Return the list of a model's decoder layers, and its name."""
    import torch

    count = net.config.get_text_config().num_hidden_layers
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count and parts.layer(f"{name}.0.") == 0:
            return name, module
    raise M3Error(
        f"{model.source}: {type(net).__name__} has no list of {count} decoder layers: fisher and regmean cannot "
        "measure it; give another method"
    )


def _places(net: Any) -> dict[str, list[tuple[nn.Module, str]]]:
    """Return where each parameter is used: a tied one in several modules, under the first of its names."""
    first: dict[int, str] = {}
    places: dict[str, list[tuple[nn.Module, str]]] = {}
    for name, parameter in net.named_parameters(remove_duplicate=False):
        owner, _, leaf = name.rpartition(".")
        place = net.get_submodule(owner), leaf
        places.setdefault(first.setdefault(id(parameter), name), []).append(place)
    return places

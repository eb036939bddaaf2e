"""What an engine's model looks like before it has weights, and the guard on what is streamed into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.model_config import check_same_architecture
from m3_exp.merging.tokenizer import tokenizer_directory
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe, Source

if TYPE_CHECKING:
    import torch

MAX_MODEL_LEN = 4096
# Llama-2's old files carry buffers that today's code computes; they are not weights.
_COMPUTED = (".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached", ".masked_bias")


@dataclass(frozen=True)
class Skeleton:
    """A model without weights: `directory` holds its config and tokenizer, `rows` is the widest embedding's length."""

    directory: Path
    config: object  # transformers' configuration, with vocab_size = rows
    rows: int
    tied: bool

    def tensors(self) -> Expected:
        """Return the names and shapes that its weights have in a checkpoint: a tied head once, persistent buffers."""
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.core_model_loading import revert_weight_conversion

        auto: Any = AutoModelForCausalLM
        with torch.device("meta"):
            model = auto.from_config(self.config)
        model.tie_weights()
        aliases = set(dict(model.named_parameters(remove_duplicate=False))) - set(dict(model.named_parameters()))
        state = {name: value for name, value in model.state_dict(keep_vars=True).items() if name not in aliases}
        stored: dict[str, torch.Tensor] = revert_weight_conversion(model, state)
        tables = [one for one in (model.get_input_embeddings(), model.get_output_embeddings()) if one is not None]
        embeddings = {id(value) for one in tables for value in one.parameters()}
        return Expected(
            {name: tuple(value.shape) for name, value in stored.items()},
            tuple(name for name, value in stored.items() if id(value) in embeddings),
            tuple(name for name, value in stored.items() if state.get(name) is not value),
        )

    def max_model_len(self, wanted: int | None) -> int:
        """Return the longest prompt with answer, in tokens: as asked for, else the model's own, at most 4096.

        Raises:
            M3Error: more is asked for than the model has positions.
        """
        positions = int(getattr(self.config, "max_position_embeddings", MAX_MODEL_LEN))
        if wanted is not None and wanted > positions:
            raise M3Error(f"engine.max_model_len={wanted}: this model has {positions} positions; give at most that")
        return wanted or min(positions, MAX_MODEL_LEN)


@dataclass(frozen=True)
class Expected:
    """Names and shapes that a stream of weights must have; `embeddings` may have fewer rows than their shape.

    transformers holds those that are `converted` in another form: a layer's experts in one tensor, say.
    """

    shapes: dict[str, tuple[int, ...]]
    embeddings: tuple[str, ...]
    converted: tuple[str, ...] = ()


def read_skeleton(recipe: Recipe, tokenizer: Source, store: Store) -> Skeleton:
    """Describe the model that holds any recipe over these sources, wide enough for `tokenizer`'s own model too.

    Raises:
        M3Error: a source cannot be read, is another architecture, or its configuration wants code of its own.
    """
    from transformers import AutoConfig

    models = [open_model(source, store) for source in dict.fromkeys((recipe.base, *recipe.experts, tokenizer))]
    for other in models[1:]:  # all of them will pass through one configuration
        check_same_architecture(models[0].config, other.config, (str(models[0].source), str(other.source)))
    directory = tokenizer_directory(tokenizer, store)
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise M3Error(f"{tokenizer}: transformers does not take its config.json: {error}") from error
    rows = max(int(model.config["vocab_size"]) for model in models)
    config.vocab_size = rows
    tied = all(model.tied for model in models)
    config.tie_word_embeddings = tied
    return Skeleton(directory, config, rows, tied)


class Fitted:
    """A stream of weights, checked on its way: each expected tensor exactly once, and nothing else.

    An embedding with fewer rows is filled up with zeros; `rows` is then the number of real ones (logits past them
    must be masked). `complete` turns true when the stream ended with nothing missing.
    """

    def __init__(self, stream: Iterable[tuple[str, torch.Tensor]], expected: Expected) -> None:
        self._stream = stream
        self._expected = expected
        self.rows: int | None = None
        self.complete = False

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        missing = dict(self._expected.shapes)
        for name, tensor in self._stream:
            if name not in missing and name.endswith(_COMPUTED):
                continue
            if name not in missing:
                told = "came twice" if name in self._expected.shapes else "is unknown to this model"
                raise M3Error(f"tensor {name} {told}: the recipe's models do not fit the engine's")
            yield name, self._fit(name, tensor, missing.pop(name))
        if missing:
            raise M3Error(f"{len(missing)} tensors are missing, {min(missing)} among them: the models are incomplete")
        self.complete = True

    def _fit(self, name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        if name in self._expected.embeddings and tensor.shape[1:] == shape[1:] and tensor.shape[0] <= shape[0]:
            if self.rows not in (None, tensor.shape[0]):
                raise M3Error(f"tensor {name} has {tensor.shape[0]} rows, the other embedding {self.rows}")
            self.rows = tensor.shape[0]
            if tensor.shape[0] == shape[0]:
                return tensor
            wide = tensor.new_zeros(shape)
            wide[: tensor.shape[0]] = tensor
            return wide
        if tuple(tensor.shape) != shape:
            raise M3Error(f"tensor {name} has shape {list(tensor.shape)}, the engine was started for {list(shape)}")
        return tensor

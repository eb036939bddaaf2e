"""The part of the vLLM engine that runs inside its workers: the merge, into the living model.

vLLM mixes `MergeExtension` into its worker class and finds it by name, so what crosses to a worker (in this process,
or one of several with tensor parallelism) is the recipe as plain data. Written against vLLM 0.32.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import torch

from m3_exp.engines.weights import Expected, Fitted
from m3_exp.merging.stream import stream
from m3_exp.store import Store, decoded
from m3_exp.types import Json, M3Error, Recipe


class MergeExtension:
    """Methods that vLLM adds to its worker; `model_runner` is the worker's."""

    model_runner: Any
    _vocabulary: int | None = None

    def merge_weights(self, recipe: str, store: str, expected: Json, threads: int) -> Json:
        """Merge a recipe (JSON) into the model. Returns its digest, report and rows.

        A refusal is returned as {"refused", "dirty"}: `dirty` once the old weights have been touched.
        """
        touched = False
        try:
            weights = stream(decoded(Recipe, json.loads(recipe)), Store(Path(store)), threads=threads)
            fitted = Fitted(weights, decoded(Expected, expected))
            pairs = iter(fitted)
            first = next(pairs)
            touched = True
            self._reload(itertools.chain([first], pairs))
        except M3Error as error:
            return {"refused": str(error), "dirty": touched}
        if not fitted.complete or fitted.rows is None:
            raise RuntimeError("vLLM did not read all weights")
        return {"digest": weights.digest, "report": weights.report, "rows": fitted.rows}

    def limit_vocabulary(self, rows: int) -> None:
        """Mask the logits of token ids from `rows` on, until told otherwise."""
        if self._vocabulary is None:
            _logits_processor(self.model_runner.get_model()).register_forward_hook(self._mask)
        self._vocabulary = rows

    def _reload(self, weights: Any) -> None:
        from vllm.config import set_current_vllm_config

        runner = self.model_runner
        with set_current_vllm_config(runner.vllm_config), torch.no_grad():
            runner.reload_weights(weights_iterator=weights)
            if getattr(runner.model_config.hf_config, "tie_word_embeddings", False):
                _tie_again(runner.get_model())

    def _mask(self, module: Any, arguments: Any, logits: Any) -> Any:
        if logits is None or self._vocabulary is None or self._vocabulary >= module.vocab_size:
            return logits
        if logits.shape[-1] != module.vocab_size:
            raise RuntimeError(f"logits of width {logits.shape[-1]} where {module.vocab_size} were expected")
        logits[..., self._vocabulary :] = float("-inf")
        return logits


def _logits_processor(model: Any) -> Any:
    from vllm.model_executor.layers.logits_processor import LogitsProcessor

    (processor,) = [module for module in model.modules() if isinstance(module, LogitsProcessor)]
    return processor


def _tie_again(model: Any) -> None:
    """Give a tied head the new embedding, and check that it computes with it.

    A reload skips the head (it has no tensor of its own); on the CPU its packed copy would stay that of the old one.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    heads: list[Any] = [module for module in model.modules() if isinstance(module, ParallelLMHead)]
    tables: list[Any] = [module for module in model.modules() if type(module) is VocabParallelEmbedding]
    for head, table in itertools.product(heads, tables):
        head.weight = table.weight
        head.quant_method.process_weights_after_loading(head)
        probe = table.weight[: 1 << 6].mean(dim=0, keepdim=True)
        got = head.quant_method.apply(head, probe).float()
        wanted = torch.nn.functional.linear(probe.float(), table.weight.float())
        if (got - wanted).norm() > 0.02 * wanted.norm():
            raise RuntimeError("the tied output head did not take the new embedding")

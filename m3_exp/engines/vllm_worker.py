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

_HEAD_BIAS = "lm_head.bias"


class MergeExtension:
    """Methods that vLLM adds to its worker; `model_runner` is the worker's."""

    model_runner: Any
    _vocabulary: int | None = None
    _direct: frozenset[str] = frozenset()  # modules whose weights vLLM's own code writes past its loaders

    def merge_weights(self, recipe: str, store: str, expected: Json, threads: int) -> Json:
        """Merge a recipe (JSON) into the model. Returns its digest, report and rows.

        A refusal is returned as {"refused", "dirty"}: `dirty` once the old weights have been touched.
        """
        touched = False
        wanted = decoded(Expected, expected)
        try:
            while True:
                weights = stream(decoded(Recipe, json.loads(recipe)), Store(Path(store)), threads=threads)
                fitted = Fitted(weights, wanted)
                pairs = iter(fitted)
                first = next(pairs)
                touched = True
                missed = self._reload(itertools.chain([first], pairs), _HEAD_BIAS in wanted.shapes)
                if not missed:
                    break
                self._open(missed)
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

    def _reload(self, weights: Any, head_bias: bool) -> frozenset[str]:
        """Do what vLLM's `reload_weights` does and what it leaves undone; return the modules that kept old weights."""
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader import reload

        layers: Any = reload
        runner = self.model_runner
        model = runner.get_model()
        tied = bool(getattr(runner.model_config.hf_config, "tie_word_embeddings", False))
        with set_current_vllm_config(runner.vllm_config), torch.no_grad():
            if head_bias and model.lm_head.bias is None:
                _add_head_bias(model.lm_head)
            _pack_experts_again(model)
            layers.initialize_layerwise_reload(model)
            for name in self._direct:
                _make_writable(model.get_submodule(name))
            model.load_weights(weights)
            missed = _missed(model, tied, self._direct)
            layers.finalize_layerwise_reload(model, runner.model_config)
            if tied:
                _tie_again(model)
        return missed

    def _open(self, missed: frozenset[str]) -> None:
        """Let the next reload give vLLM's own code real tensors to write to in these modules.

        Raises:
            M3Error: they were open already.
        """
        if missed <= self._direct:
            name = type(self.model_runner.get_model()).__name__
            what = f"{min(missed)} keeps its old weights"
            raise M3Error(f"engine=vllm: vLLM's {name} takes no new weights ({what}): take engine=transformers")
        self._direct |= missed

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


def _add_head_bias(head: Any) -> None:
    """Make a head's bias before a reload. Where vLLM makes it during one, the end of the reload takes it away."""
    with torch.device(head.weight.device):
        head._register_bias()


def _pack_experts_again(model: Any) -> None:
    """Let the next load of a CPU's experts pack them: vLLM packs those of the first load only, and would then compute
    with numbers in the wrong order.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    for module in model.modules():
        method: Any = getattr(module, "quant_method", None)
        if getattr(method, "moe_kernel", None) is not None:
            method.moe_kernel = None


def _make_writable(module: Any) -> None:
    """Give a module that a reload has emptied real tensors, of NaN."""
    from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
    from vllm.model_executor.model_loader.reload.meta import materialize_layer

    layer = get_layerwise_info(module)
    materialize_layer(module, layer)
    for name in layer.restore_metadata[0]:
        getattr(module, name).fill_(float("nan"))


def _missed(model: Any, tied: bool, direct: frozenset[str]) -> frozenset[str]:
    """Return the modules that would keep old weights, since vLLM's own code passed its loaders by.

    Those of `direct` hold NaN where nothing was written; the others are marked as loaded.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
    from vllm.model_executor.model_loader.reload.meta import SKIP_LOAD_TENSORS

    found = set()
    for name, module in model.named_modules():
        layer = get_layerwise_info(module)
        if not layer.can_load() or (tied and isinstance(module, ParallelLMHead)):
            continue  # complete, or it follows the embedding
        given = {parameter for parameter, _ in layer.loaded_weights} | SKIP_LOAD_TENSORS
        left = [parameter for parameter in layer.restore_metadata[0] if parameter not in given]
        if name in direct and not any(getattr(module, parameter).isnan().any() for parameter in left):
            layer.load_numel = max(layer.load_numel, 1)
        elif left:
            found.add(name)
    return frozenset(found)


def _tie_again(model: Any) -> None:
    """Give a tied head the new embedding, and check that it computes with it.

    A reload skips the head (it has no tensor of its own); on the CPU its packed copy would stay that of the old one.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    both: list[Any] = [module for module in model.modules() if isinstance(module, VocabParallelEmbedding)]
    heads = [module for module in both if isinstance(module, ParallelLMHead)]
    for head in heads:
        (table,) = [one for one in both if one not in heads and one.weight.shape == head.weight.shape]
        head.weight = table.weight
        head.quant_method.process_weights_after_loading(head)
        probe = table.weight[: 1 << 6].mean(dim=0, keepdim=True)
        got = head.quant_method.apply(head, probe).float()
        wanted = torch.nn.functional.linear(probe.float(), table.weight.float())
        if (got - wanted).norm() > 0.02 * wanted.norm():
            raise RuntimeError("the tied output head did not take the new embedding")

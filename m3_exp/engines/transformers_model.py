"""The model behind engine=transformers, in the engine's own process: Hugging Face's, with a plain decode loop.

Rows are decoded in left-padded batches; a row leaves its batch, and is handed over, in the step that finishes it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from m3_exp.engines.child import threads
from m3_exp.engines.protocol import Loaded
from m3_exp.engines.text import Text, Vocabulary, check_pairs, samples, seed, vocabulary
from m3_exp.engines.weights import Fitted, Skeleton
from m3_exp.engines.wire import Pair
from m3_exp.store import Store
from m3_exp.types import Answer, EngineSettings, Likelihood, M3Error, Prompt, Recipe, Sampling, Source

_SEQUENCES = 32


@dataclass
class _Row:
    """One answer being written."""

    prompt: Prompt
    sample: int
    text: Text
    room: int  # tokens that it may still get
    generator: torch.Generator | None
    sampling: Sampling
    words: Vocabulary
    number: int = 0  # of its batch
    n_tokens: int = 0
    finish: str = ""

    def take(self, token: int) -> None:
        """Add a token; sets `finish` where it was the last one."""
        self.n_tokens += 1
        self.room -= 1
        if token in self.words.ends or self.text.add(token):
            self.finish = "stop"
        elif self.room == 0:
            self.finish = "length"

    @property
    def answer(self) -> Answer:
        return Answer(self.prompt.id, self.text.text, self.sample, self.n_tokens, self.finish)


class TransformersModel:
    """A transformers model; see `child.Model`."""

    def __init__(self, settings: EngineSettings, skeleton: Skeleton, store: Store) -> None:
        from transformers import AutoModelForCausalLM

        if settings.tensor_parallel_size != 1:
            raise M3Error(
                "engine.tensor_parallel_size: engine=transformers has one device; give 1, or take engine=vllm"
            )
        self.dirty = False
        self._waiting: list[_Row] = []
        self.rows = skeleton.rows
        self._store = store
        self._threads = threads(settings)
        self._expected = skeleton.tensors()
        self._max_model_len = skeleton.max_model_len(settings.max_model_len)
        self._sequences = settings.max_num_seqs or _SEQUENCES
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(self._threads)
        auto: Any = AutoModelForCausalLM
        with self._device:
            model = auto.from_config(skeleton.config, dtype=getattr(torch, settings.dtype))
        self._model = model.eval().requires_grad_(False)
        self.conditions: Mapping[str, object] = {
            "max_num_seqs": self._sequences,
            "tp": 1,
            "device": str(self._device),
            "threads": self._threads,
            "max_model_len": self._max_model_len,
        }

    def load(self, recipe: Recipe) -> Loaded:
        """Stream a recipe's weights into the model in place; a tied head follows its embedding."""
        from m3_exp.merging.stream import stream

        started = time.monotonic()
        weights = stream(recipe, self._store, threads=self._threads)
        fitted = Fitted(weights, self._expected)
        own, converted = self._model.state_dict(), {}
        with torch.no_grad():
            for name, tensor in fitted:
                if name in self._expected.converted:
                    converted[name] = tensor
                else:
                    own[name].copy_(tensor)
        self._convert(converted)
        torch.set_num_threads(self._threads)  # the merge may have set it for its own threads
        assert fitted.rows is not None
        self.rows = fitted.rows
        return Loaded(weights.digest, time.monotonic() - started, weights.report)

    def _convert(self, weights: dict[str, torch.Tensor]) -> None:
        """Load what the model holds in another form than checkpoints do, as transformers does when it opens one."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig

        if not weights:
            return
        mapping: Any = get_model_conversion_mapping(self._model)
        config = LoadStateDictConfig(device_map={"": self._device}, weight_mapping=mapping)
        told, _ = convert_and_load_state_dict_in_model(self._model, weights, config)
        if told.unexpected_keys or told.mismatched_keys or told.conversion_errors:
            raise RuntimeError(f"transformers did not convert all weights: {told}")
        self._model.requires_grad_(False)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, tokenizer: Source, at_once: int | None = None
    ) -> Iterator[Answer | int]:
        """Decode batch by batch, long prompts first, so that a batch's prompts are of about one length."""
        yield from self.add(0, prompts, sampling, tokenizer)
        for item in self.steps(at_once):
            yield item if isinstance(item, int) else item[1]

    def add(self, number: int, prompts: Sequence[Prompt], sampling: Sampling, tokenizer: Source) -> Sequence[Answer]:
        """Let prompts wait for the next batch that is decoded."""
        words = vocabulary(tokenizer, self._store)
        asked, refused = samples(prompts, sampling, self._max_model_len)
        self._waiting += [self._row(number, prompt, sample, sampling, words) for prompt, sample in asked]
        return refused

    def steps(self, at_once: int | None = None) -> Iterator[tuple[int, Answer] | int]:
        """Decode batch by batch until no prompt waits, at most `at_once` together."""
        tokens, batch = 0, min(self._sequences, at_once or self._sequences)
        while self._waiting:
            self._waiting.sort(key=lambda row: -len(row.prompt.token_ids))
            rows, self._waiting = self._waiting[:batch], self._waiting[batch:]
            for count, finished in self._decode(rows):
                tokens += count
                yield from ((row.number, row.answer) for row in finished)
                yield tokens

    def _row(self, number: int, prompt: Prompt, sample: int, sampling: Sampling, words: Vocabulary) -> _Row:
        room = min(sampling.max_tokens, self._max_model_len - len(prompt.token_ids))
        generator = None
        if sampling.temperature > 0:
            generator = torch.Generator().manual_seed(seed(sampling, prompt, sample))
        text = Text(words, prompt.token_ids, sampling.stops)
        return _Row(prompt, sample, text, room, generator, sampling, words, number)

    @torch.inference_mode()
    def _decode(self, rows: list[_Row]) -> Iterator[tuple[int, list[_Row]]]:
        """Decode one batch to its end; after each step give the number of new tokens and the rows it finished."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config)
        ids, mask = self._padded([row.prompt.token_ids for row in rows])
        while rows:
            logits = self._forward(ids, mask, cache, 1)[:, -1]
            for index, row in enumerate(rows):
                logits[index, min(row.words.length, self.rows) :] = float("-inf")
            tokens = _choose(logits, rows)
            for row, token in zip(rows, tokens, strict=True):
                row.take(token)
            yield len(rows), [row for row in rows if row.finish]
            keep = [index for index, row in enumerate(rows) if not row.finish]
            if len(keep) < len(rows):
                cache.batch_select_indices(torch.tensor(keep, dtype=torch.long, device=self._device))
            rows = [rows[index] for index in keep]
            ids = torch.tensor([[tokens[index]] for index in keep], device=self._device)
            mask = torch.cat([mask[keep], mask.new_ones(len(keep), 1)], dim=1)

    @torch.inference_mode()
    def loglikelihood(self, pairs: Sequence[Pair]) -> Iterator[Likelihood | int]:
        """Score continuations as the ends of left-padded batches."""
        check_pairs(pairs, self._max_model_len)
        order = sorted(pairs, key=lambda pair: -len(pair[0].token_ids) - len(pair[1]))
        tokens = 0
        for first in range(0, len(order), self._sequences):
            batch = order[first : first + self._sequences]
            longest = max(len(ids) for _, ids in batch)
            sequences, mask = self._padded([(*prompt.token_ids, *ids) for prompt, ids in batch])
            logits = self._forward(sequences, mask, None, longest + 1)[:, :-1].float()
            logits[..., self.rows :] = float("-inf")
            logprobs = logits.log_softmax(dim=-1)
            for index, (prompt, ids) in enumerate(batch):
                tokens += len(ids)
                yield _likelihood(prompt, ids, logprobs[index, longest - len(ids) :])
            yield tokens

    def close(self) -> None:
        """Nothing runs beside this process."""

    def _padded(self, sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids padded on the left, and the mask of the real ones, both (rows, longest)."""
        width = max(len(sequence) for sequence in sequences)
        ids = torch.zeros(len(sequences), width, dtype=torch.long)
        mask = torch.zeros(len(sequences), width, dtype=torch.long)
        for index, sequence in enumerate(sequences):
            ids[index, width - len(sequence) :] = torch.tensor(sequence)
            mask[index, width - len(sequence) :] = 1
        return ids.to(self._device), mask.to(self._device)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: object, keep: int) -> torch.Tensor:
        """Return the logits of the last `keep` positions, (rows, keep, vocabulary)."""
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=keep,
        )
        logits: torch.Tensor = output.logits
        return logits


def _choose(logits: torch.Tensor, rows: Sequence[_Row]) -> list[int]:
    """Return the next token of each row: the argmax, or a draw from the nucleus with the row's own generator."""
    tokens = [int(token) for token in logits.argmax(dim=-1)]
    for index, row in enumerate(rows):
        if row.sampling.temperature > 0:
            chances = (logits[index].float() / row.sampling.temperature).softmax(dim=-1)
            values, order = chances.cpu().sort(dim=-1, descending=True)
            values[values.cumsum(dim=-1) - values >= row.sampling.top_p] = 0.0
            tokens[index] = int(order[torch.multinomial(values, 1, generator=row.generator)])
    return tokens


def _likelihood(prompt: Prompt, ids: Sequence[int], logprobs: torch.Tensor) -> Likelihood:
    """Sum the rows of (continuation, vocabulary) log-probabilities at the continuation's tokens."""
    wanted = torch.tensor(ids, device=logprobs.device)
    scored = logprobs.gather(-1, wanted[:, None])[:, 0]
    greedy = bool((logprobs.argmax(dim=-1) == wanted).all())
    return Likelihood(prompt.id, float(scored.double().sum()), len(ids), greedy)

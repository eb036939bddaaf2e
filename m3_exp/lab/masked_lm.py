"""Train the lab's masked language model: `python -m m3_exp.lab.masked_lm` re-makes `m3_exp/lab/masked_lm/`.

BERTAttack asks such a model for words that may stand in place of another. This one is a BERT of two layers, 64 wide,
over whole words: it knows the lab's training sentences and many wordings of the two instructions that are attacked, so
that its proposals are words of like use. Seeded; under a minute on one core.
"""

import itertools
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from m3_exp.lab.make_items import examples_of

FOLDER = Path(__file__).parent / "masked_lm"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LENGTH = 64  # words of a training text; attacks pad theirs to 512
_POSITIONS = 512
_STEPS, _BATCH, _MASKED, _SEED = 500, 32, 0.2, 1
_TEXTS = {
    "alpaca_eval": ("instruction", 400),
    "livebench_typos": ("ground_truth", 300),
    "prompt_bench_cola": ("sentence", 500),
    "prompt_bench_sst2": ("sentence", 500),
}

_PLACE = ["{", "content", "}"]  # what attacked instructions hold in place of an item

# Wordings of instructions like PromptBench's: one word of each group, the groups in order.
_SENTIMENT = """
    as a|the sentiment|mood|opinion|tone|feeling classifier|judge|reader|critic|expert ,
    determine|decide|say|tell|find|judge|check whether|if the|this following|next|given|first
    text|line|review|passage|sentence is|sounds|seems ' positive|good ' or ' negative|bad ' .
    text|line|review : CONTENT . please|now|kindly respond|answer|reply|react with|by|using
    ' positive|good ' or ' negative|bad ' .
"""
_GRAMMAR = """
    as a|the grammar|language|syntax|spelling identification|recognition|detection|checking system|tool|program|expert ,
    examine|check|read|study|inspect|review the|this provided|given|following|next sentence|line|text|phrase
    and|then respond|answer|reply|react with|by ' acceptable|valid ' for|to grammatically|formally|really
    correct|right|proper|good sentences|lines|texts|ones or ' unacceptable|invalid ' for|to
    incorrect|wrong|faulty|bad ones|sentences|lines . sentence|line|text : CONTENT . please|now|kindly
    respond|answer|reply|react with|by|using ' acceptable|valid ' or ' unacceptable|invalid ' .
"""


def words_of(text: str) -> list[str]:
    """Split a text as BERT's basic tokenizer does: lower case, every sign of punctuation a word of its own."""
    return re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower())


def corpus() -> list[list[str]]:
    """Return the training texts as words: sentences of the lab's training side, and wordings of the instructions."""
    rng = random.Random(_SEED)
    drawn = {
        name: [words_of(example.row[column]) for example in examples_of(name, "train", count, _SEED)]
        for name, (column, count) in _TEXTS.items()
    }
    reviews, sentences = drawn["prompt_bench_sst2"], drawn["prompt_bench_cola"]
    worded = [
        _worded(rng, groups, rng.choice((_PLACE, rng.choice(filled))))
        for groups, filled in ((_SENTIMENT, reviews), (_GRAMMAR, sentences))
        for _ in range(900)
    ]
    texts = [*itertools.chain.from_iterable(drawn.values()), *worded]
    rng.shuffle(texts)
    return texts


def _worded(rng: random.Random, groups: str, content: list[str]) -> list[str]:
    words: list[str] = []
    for group in groups.split():
        word = rng.choice(group.split("|"))
        words += content if word == "CONTENT" else [word]
    return words


def vocabulary(texts: list[list[str]]) -> list[str]:
    """Return BERT's special tokens and every word of the texts, most frequent first."""
    counts = Counter(itertools.chain.from_iterable(texts))
    return [*_SPECIAL, *sorted(counts, key=lambda word: (-counts[word], word))]


def encode(texts: list[list[str]], index: dict[str, int]) -> torch.Tensor:
    """Return token ids (texts, length) between [CLS] and [SEP], padded, cut at the model's length."""
    rows = torch.zeros(len(texts), _LENGTH, dtype=torch.long)
    for row, words in zip(rows, texts, strict=True):
        ids = [index["[CLS]"], *(index[word] for word in words[: _LENGTH - 2]), index["[SEP]"]]
        row[: len(ids)] = torch.tensor(ids)
    return rows


def train() -> tuple[Any, list[str], float]:
    """Train the model; return it, its vocabulary and the mean loss of the last 20 steps in nats a masked word."""
    texts = corpus()
    words = vocabulary(texts)
    index = {word: i for i, word in enumerate(words)}
    rows = encode(texts, index)
    torch.manual_seed(_SEED)
    model = _new_model(len(words))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=_STEPS)
    last: list[float] = []
    for _ in range(_STEPS):
        chosen = rows[torch.randint(len(rows), (_BATCH,))]
        loss = _loss(model, chosen, index["[MASK]"])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        last = [*last[-19:], loss.item()]
    return model.eval(), words, sum(last) / len(last)


def _new_model(n_words: int) -> Any:
    import transformers

    bert: Any = transformers.BertForMaskedLM
    config = transformers.BertConfig(
        vocab_size=n_words,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=_POSITIONS,
    )
    return bert(config).train()


def _loss(model: Any, rows: torch.Tensor, mask: int) -> torch.Tensor:
    """Hide a share of the words of each row and return the loss on them; no random words, no kept ones."""
    hidden = (torch.rand(rows.shape) < _MASKED) & (rows >= len(_SPECIAL))
    logits = model(input_ids=rows.masked_fill(hidden, mask), attention_mask=rows != 0).logits
    return functional.cross_entropy(logits[hidden], rows[hidden])


def save(model: Any, words: list[str], out: Path) -> None:
    """Write the model in half precision and its tokenizer, without a word about this machine."""
    from transformers import BertTokenizer

    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.float16).save_pretrained(out)
    vocabulary = {word: i for i, word in enumerate(words)}
    BertTokenizer(vocabulary, do_lower_case=True, model_max_length=_POSITIONS).save_pretrained(out)
    for path in out.iterdir():
        path.chmod(0o644)


def main() -> None:
    model, words, loss = train()
    save(model, words, FOLDER)
    print(f"{FOLDER.name}: {len(words)} words, {model.num_parameters()} parameters, loss {loss:.2f}")


if __name__ == "__main__":
    main()

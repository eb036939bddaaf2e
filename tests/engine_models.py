"""Tiny Llama models with tokenizers, made for the engines' tests: two layers, 64 wide, greedy texts that differ."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = 1


def write_tokenizer(folder: Path, words: int) -> None:
    """Save a tokenizer of `words` words w0, w1, ...; w1's id is </s>."""
    vocabulary = {"</s>" if i == END else f"w{i}": i for i in range(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="w0").save_pretrained(folder)


def write_model(
    folder: Path, seed: int, *, tied: bool, rows: int = 320, words: int | None = None, inner: int = 128
) -> Path:
    """Save a random model with `rows` embedding rows and a tokenizer of `words` (default: as many)."""
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=64,
        intermediate_size=inner,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=END,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    model.save_pretrained(folder)
    write_tokenizer(folder, words or rows)
    return folder


def mixed(folders: Sequence[Path], shares: Sequence[float]) -> LlamaForCausalLM:
    """Return the weighted sum of models, computed in float64: the reference for an engine that holds such a merge."""
    models = [LlamaForCausalLM.from_pretrained(folder) for folder in folders]
    states = [{name: tensor.double() for name, tensor in model.state_dict().items()} for model in models]
    total = {name: sum(state[name] * share for state, share in zip(states, shares, strict=True)) for name in states[0]}
    models[0].load_state_dict(total)
    return models[0].eval()


def continued(model: LlamaForCausalLM, folder: Path, ids: Sequence[int], tokens: int, words: int) -> str:
    """Write greedily, one whole forward pass a token: the plainest way there is. Ids from `words` on are not used."""
    written = list(ids)
    with torch.inference_mode():
        while len(written) < len(ids) + tokens:
            logits = model(torch.tensor([written])).logits[0, -1, :words]
            written.append(int(logits.argmax()))
            if written[-1] == END:
                break
    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = tokenizer.decode(written, skip_special_tokens=True)
    return str(whole[len(tokenizer.decode(list(ids), skip_special_tokens=True)) :])

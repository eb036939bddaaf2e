"""Tiny models of many architectures, by transformers' `model_type`: what is not the default in their configurations."""

from pathlib import Path
from typing import Any

import torch

NAMES = ("base", "a", "b")
ROWS = 48
_SIZES: dict[str, Any] = {
    "vocab_size": ROWS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0,
}  # fmt: skip
_GPT2 = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64}
_EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LATENT = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "q_lora_rank": 8, "kv_lora_rank": 8,
    "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1, "n_shared_experts": 1, "num_key_value_heads": 4, "head_dim": 4,
}  # fmt: skip
_MAMBA = {"state_size": 4, "conv_kernel": 3, "expand": 2, "time_step_rank": 4}
_MIXED = {"mamba_d_state": 4, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
_WINDOWS = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}

KINDS: dict[str, dict[str, Any]] = {
    # dense decoders
    "llama": {}, "mistral": {}, "qwen2": {}, "qwen3": {}, "gemma": {}, "gemma2": {"sliding_window": 8},
    "gemma3_text": _WINDOWS, "cohere": {}, "cohere2": _WINDOWS, "phi": {}, "phi3": {}, "stablelm": {},
    "starcoder2": {}, "olmo": {}, "olmo2": {}, "olmo3": {}, "granite": {}, "glm": {}, "glm4": {}, "exaone4": {},
    "ernie4_5": {}, "smollm3": {}, "helium": {}, "hunyuan_v1_dense": {}, "arcee": {}, "seed_oss": {}, "nemotron": {},
    "persimmon": {}, "diffllama": {}, "apertus": {}, "bitnet": {},
    # the generation of GPT-2
    "gpt2": _GPT2, "gptj": {**_GPT2, "rotary_dim": 4}, "codegen": {**_GPT2, "rotary_dim": 4}, "gpt_bigcode": _GPT2,
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gpt_neox": {}, "bloom": {"n_head": 4, "n_layer": 2}, "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "falcon": {"head_dim": None}, "biogpt": {},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "expansion_ratio": 2},
    "ctrl": {**_GPT2, "dff": 48},
    # mixtures of experts
    "mixtral": _EXPERTS, "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 16}, "qwen3_moe": _EXPERTS,
    "gpt_oss": {**_EXPERTS, **_WINDOWS}, "phimoe": _EXPERTS, "olmoe": _EXPERTS, "granitemoe": _EXPERTS,
    "deepseek_v2": _LATENT, "deepseek_v3": _LATENT, "glm4_moe": _LATENT,
    "ernie4_5_moe": {**_EXPERTS, "moe_num_experts": 4, "moe_k": 2}, "jetmoe": {**_EXPERTS, "kv_channels": 8},
    "flex_olmo": _EXPERTS, "llama4_text": {**_EXPERTS, "intermediate_size_mlp": 48},
    "minimax": {**_EXPERTS, "layer_types": ["linear_attention", "full_attention"], "block_size": 8},
    # recurrent and mixed
    "mamba": _MAMBA, "falcon_mamba": _MAMBA, "rwkv": {"attention_hidden_size": 32, "context_length": 64},
    "mamba2": {"state_size": 4, "num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 1, "chunk_size": 8},
    "falcon_h1": {**_MIXED, "mamba_d_ssm": 64}, "bamba": {**_MIXED, "attn_layer_indices": [1]},
    "jamba": {**_EXPERTS, "mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False, "attn_layer_period": 2,
              "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 16, "block_types": ["recurrent", "attention"]},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 48, "block_multiple_of": 8},
    "qwen3_next": {**_EXPERTS, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
                   "linear_value_head_dim": 8, "shared_expert_intermediate_size": 16,
                   "layer_types": ["linear_attention", "full_attention"]},
}  # fmt: skip

# vLLM's attention on a CPU has heads of at least 32, its latent one has those of DeepSeek's models only.
_WIDE: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
}  # fmt: skip
_GPT2_WIDE = {"n_embd": 64, "n_head": 2}
_LATENT_WIDE = {
    "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 32, "v_head_dim": 32, "num_key_value_heads": 2,
    "head_dim": 64,
}  # fmt: skip
_MIXED_WIDE = {"mamba_d_state": 16, "mamba_n_heads": 2, "mamba_d_head": 64}
_WIDE_BY_KIND: dict[str, dict[str, Any]] = {
    "gpt2": _GPT2_WIDE, "gptj": {**_GPT2_WIDE, "rotary_dim": 16}, "gpt_bigcode": _GPT2_WIDE,
    "codegen": {"n_embd": 128, "hidden_size": 128, "num_attention_heads": 4},
    "ctrl": {**_GPT2_WIDE, "dff": 128}, "gpt_neo": {"num_heads": 2}, "bloom": {"n_head": 2},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64}, "mpt": {"d_model": 64, "n_heads": 2},
    "falcon": {"head_dim": None}, "jetmoe": {"kv_channels": 32}, "lfm2": {"block_ff_dim": 128},
    "llama4_text": {"intermediate_size_mlp": 128}, "deepseek_v2": _LATENT_WIDE, "deepseek_v3": _LATENT_WIDE,
    "diffllama": {"num_key_value_heads": 2}, "rwkv": {"attention_hidden_size": 64},
    "glm4_moe": {"num_key_value_heads": 1, "head_dim": 32},
    "mamba": {"state_size": 16, "conv_kernel": 4}, "falcon_mamba": {"state_size": 16, "conv_kernel": 4},
    "mamba2": {"state_size": 16, "num_heads": 2, "head_dim": 64}, "falcon_h1": {**_MIXED_WIDE, "mamba_d_ssm": 128},
    "bamba": _MIXED_WIDE, "jamba": {"mamba_d_state": 16}, "recurrent_gemma": {"lru_width": 64},
    "qwen3_next": {"linear_key_head_dim": 32, "linear_value_head_dim": 32},
}  # fmt: skip


def config_of(kind: str, *, wide: bool = False) -> Any:
    """Return the configuration of a tiny model: two layers, 32 wide, or with heads as `wide` as vLLM wants them."""
    from transformers import AutoConfig

    settings = {**_SIZES, **KINDS[kind], **({**_WIDE, **_WIDE_BY_KIND.get(kind, {})} if wide else {})}
    return AutoConfig.for_model(kind, **{key: value for key, value in settings.items() if value is not None})


def three(root: Path, config: Any, sizes: tuple[float, float, float] = (0.05, 0.02, 0.02)) -> None:
    """Write a base and two fine-tunes as transformers saves them, in float32: each `sizes` away from the last."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, size in zip(NAMES, sizes, strict=True):
            for value in model.parameters():
                value.add_(size * torch.randn(value.shape))
            model.save_pretrained(root / name)

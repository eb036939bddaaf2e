"""vLLM alone on a checkpoint, for `trial`: log-likelihoods of given tokens. Nothing of ours is between.

`python -m m3_exp.engines.fresh_vllm < ASKED.json` prints one sum a line of tokens, as a JSON list.
"""

import json
import os
import sys
from typing import Any


def main() -> None:
    asked = json.load(sys.stdin)
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
    from vllm import LLM, SamplingParams

    small: dict[str, Any] = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 28}
    small |= {"max_model_len": 512, "max_num_seqs": 64}
    model: Any = LLM(asked["model"], dtype=asked["dtype"], tensor_parallel_size=asked["devices"], **small)
    prompts = [{"prompt_token_ids": given + scored} for given, scored in asked["lines"]]
    params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
    sums = []
    for (given, scored), output in zip(asked["lines"], model.generate(prompts, params, use_tqdm=False), strict=True):
        rows = output.prompt_logprobs[len(given) :]
        sums.append(sum(row[token].logprob for row, token in zip(rows, scored, strict=True)))
    print(json.dumps(sums))


if __name__ == "__main__":
    main()

"""vLLM called directly, for comparison: `direct_vllm.py MODEL PROMPTS.json` prints the texts."""

import json
import sys
from pathlib import Path

from vllm import LLM, SamplingParams


def main(model: str, prompts: str) -> None:
    inputs = [{"prompt_token_ids": ids} for ids in json.loads(Path(prompts).read_text())]
    llm = LLM(
        model,
        dtype="float32",
        max_num_seqs=128,
        max_model_len=4096,
        enforce_eager=True,
        kv_cache_memory_bytes=2 << 30,
        disable_log_stats=True,
    )
    outputs = [o.outputs[0] for o in llm.generate(inputs, SamplingParams(temperature=0, max_tokens=64), use_tqdm=False)]
    print(json.dumps([output.text for output in outputs]))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""vLLM called directly, for comparison: `direct_vllm.py MODEL PROMPTS.json` prints texts and tokens a CPU second."""

import json
import sys
import time
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
    llm.generate(inputs[:8], SamplingParams(temperature=0, max_tokens=8), use_tqdm=False)
    llm.reset_prefix_cache()
    before = time.process_time()
    outputs = [o.outputs[0] for o in llm.generate(inputs, SamplingParams(temperature=0, max_tokens=64), use_tqdm=False)]
    speed = sum(len(output.token_ids) for output in outputs) / (time.process_time() - before)
    print(json.dumps({"speed": speed, "texts": [output.text for output in outputs]}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""transformers alone on a checkpoint, for `trial`: log-likelihoods of given tokens. Nothing of ours is between.

`python -m m3_exp.engines.fresh_transformers < ASKED.json` prints one sum a line of tokens, as a JSON list.
"""

import json
import sys
from typing import Any


def main() -> None:
    asked = json.load(sys.stdin)
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(asked["model"], dtype=getattr(torch, asked["dtype"])).to(device)
    sums = []
    for given, scored in asked["lines"]:
        ids = torch.tensor([given + scored], device=device)
        with torch.inference_mode():
            logits = model(ids).logits[0].float().log_softmax(-1)
        rows = logits[len(given) - 1 : -1]
        sums.append(float(rows.gather(1, ids[0, len(given) :, None]).sum()))
    print(json.dumps(sums))


if __name__ == "__main__":
    main()

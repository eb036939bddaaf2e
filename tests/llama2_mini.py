"""`family=llama2_mini`: a shape-faithful miniature of llama2_13b, with the conf/ entries that name it.

As the paper's models: Llama-2 tensor names, an untied head, float16, vocabularies of 32000 rows and (math) 32001 with
[PAD], sharded `pytorch_model-*.bin` experts, three tokenizers and templates. Only sizes and paths differ.
"""

from pathlib import Path

import torch

from m3_exp.config import ROOT
from tests.models import Shape, fine_tuned, random_weights, resized, write_model

SHAPE = Shape(vocab=32000, hidden=64, inner=128, layers=2, heads=2, kv_heads=2, context=4096)
TEMPLATES = {
    "base": None,
    "lm": "{% for m in messages %}{{ m['role'] | upper }}: {{ m['content'] }} {% endfor %}ASSISTANT:",
    "math": "{% for m in messages %}### Instruction:\n{{ m['content'] }}\n\n### Response:{% endfor %}",
    "code": "{% for m in messages %}Problem: {{ m['content'] }}\nSolution:{% endfor %}",
}


def build(folder: Path) -> Path:
    """Write the four models and a config directory; return the latter (for `--config-dir`)."""
    base = random_weights(SHAPE, seed=0, dtype=torch.float16)
    write_model(folder / "base", base, SHAPE, template=TEMPLATES["base"])
    for seed, name in enumerate(("lm", "math", "code"), 1):
        weights = fine_tuned(base, seed)
        if name == "math":
            weights = resized(weights, 32001, seed=9)
        write_model(folder / name, weights, SHAPE, layout="bin", shards=2, template=TEMPLATES[name])
        if name == "math":
            _name_pad(folder / name)
    return write_conf(folder)


def _name_pad(folder: Path) -> None:
    """Call the token of row 32000 [PAD], as WizardMath's tokenizer does."""
    for path in folder.glob("tokenizer*.json"):
        path.write_text(path.read_text().replace("<filler32000>", "[PAD]"))


def write_conf(folder: Path) -> Path:
    """Write family/llama2_mini.yaml and its tuned values: llama2_13b's files with sizes and paths changed."""
    conf = folder / "conf"
    text = (ROOT / "conf/family/llama2_13b.yaml").read_text()
    for old, new in {
        "name: llama2_13b": "name: llama2_mini",
        "meta-llama/Llama-2-13b-hf": str(folder / "base"),
        "WizardLMTeam/WizardLM-13B-V1.2": str(folder / "lm"),
        "vanillaOVO/WizardMath-13B-V1.0": str(folder / "math"),
        "layoric/llama-2-13b-code-alpaca": str(folder / "code"),
        "parameters: 13015864320": "parameters: 4178240",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (conf / "family").mkdir(parents=True)
    (conf / "family/llama2_mini.yaml").write_text(text)
    (conf / "tuned").mkdir()
    for path in (ROOT / "conf/tuned").glob("llama2_13b_*.yaml"):
        (conf / "tuned" / path.name.replace("llama2_13b", "llama2_mini")).write_text(path.read_text())
    return conf

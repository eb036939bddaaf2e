"""What mergekit 0.1.5 makes of small recipes: `recipes_mergekit.json`, which tests/test_recipes_mergekit.py reads.

    PYTHON_WITH_MERGEKIT tests/mergekit_peer.py FOLDER      writes FOLDER/NAME/model.safetensors for each recipe
    PYTHON_WITH_MERGEKIT tests/mergekit_peer.py --record    writes tests/recipes_mergekit.json

It imports nothing of m3. The models are llama checkpoints of 4 layers in float32, made from seeds by `make_models`; a
recipe names them {base}, {a}, {b} and {c}. Of each merged tensor the record holds one mean, of its elements times 1, 2,
3, ...
"""

import json
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

RECORD = Path(__file__).with_name("recipes_mergekit.json")
LAYERS, HIDDEN, INNER, VOCABULARY = 4, 16, 32, 24
ADAPTER = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "bias": "none",
    "target_modules": ["q_proj", "down_proj"], "base_model_name_or_path": None,
}  # fmt: skip
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
    "num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
    "vocab_size": VOCABULARY, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "hidden_act": "silu",
    "tie_word_embeddings": False, "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LINEAR = """
merge_method: linear
models:
- {{model: "{a}", parameters: {{weight: {0}}}}}
- {{model: "{b}", parameters: {{weight: {1}}}}}
dtype: float32
"""
DELTAS = """
merge_method: {0}
base_model: "{base}"
models:
- {{model: "{base}"}}
- {{model: "{a}", parameters: {{weight: {1}}}}}
- {{model: "{b}", parameters: {{weight: {2}}}}}
parameters: {3}
dtype: float32
"""
SLERP = """
merge_method: slerp
base_model: "{a}"
models:
- {{model: "{a}"}}
- {{model: "{b}"}}
parameters: {{t: {0}}}
dtype: float32
"""
SLICES = """
merge_method: {0}
slices:
- sources:
  - {{model: "{a}", layer_range: [0, 2], parameters: {{weight: 1}}}}
  - {{model: "{b}", layer_range: [0, 2], parameters: {{weight: {1}}}}}
- sources:
  - {{model: "{a}", layer_range: [2, 4], parameters: {{weight: 1}}}}
  - {{model: "{b}", layer_range: [2, 4], parameters: {{weight: {2}}}}}
dtype: float32
"""


def filled(text: str, *values: object) -> str:
    """Put values into {0}, {1}, ...; the names of the models stay, and braces are written once."""
    for number, value in enumerate(values):
        text = text.replace(f"{{{number}}}", json.dumps(value) if not isinstance(value, str) else value)
    return text.replace("{{", "{").replace("}}", "}")


RECIPES = {
    "linear": filled(LINEAR, 1.0, 0.5),
    "linear_gradient": filled(LINEAR, [0.2, 0.5, 1.0], 0.5),
    "linear_line": filled(LINEAR, [0.2, 1.0], 0.5),
    "linear_filters": filled(
        LINEAR,
        [{"filter": "self_attn", "value": [0.1, 0.9]}, {"filter": "norm", "value": [1, 0, 2]}, {"value": 0.3}],
        0.5,
    ),
    "linear_filters_of_two": filled(
        LINEAR,
        [{"filter": "mlp", "value": 0.9}, {"value": [0.3, 0.6]}],
        [{"filter": "mlp", "value": 0.1}, {"value": 1}],
    ),
    "linear_filter_with_dots": filled(
        LINEAR, [{"filter": "layers.2.mlp.up_proj.weight", "value": 2.0}, {"filter": "*", "value": 0.3}], 0.5
    ),
    "linear_slices": filled(SLICES, "linear", 0.5, [0.2, 2.0]),
    "passthrough_layers": """
merge_method: passthrough
slices:
- sources: [{model: "{a}", layer_range: [0, 1]}]
- sources: [{model: "{b}", layer_range: [1, 3]}]
- sources: [{model: "{c}", layer_range: [3, 4]}]
dtype: float32
""",
    "task_arithmetic": filled(DELTAS, "task_arithmetic", 0.7, 0.4, {"lambda": 0.8}),
    "task_arithmetic_normalize": filled(DELTAS, "task_arithmetic", 0.7, 0.4, {"lambda": 0.8, "normalize": True}),
    "task_arithmetic_lambda_by_layer": filled(DELTAS, "task_arithmetic", 0.7, 0.4, {"lambda": [0.2, 1.5, 0.4]}),
    "task_arithmetic_of_one": """
merge_method: task_arithmetic
base_model: "{base}"
models:
- {model: "{a}", parameters: {weight: 0.6}}
dtype: float32
""",
    "task_arithmetic_of_an_adapter": """
merge_method: task_arithmetic
base_model: "{base}"
models:
- {model: "{base}+{adapter}", parameters: {weight: 0.6}}
- {model: "{b}", parameters: {weight: 0.3}}
dtype: float32
""",
    "slerp": filled(SLERP, 0.3),
    "slerp_gradients": filled(
        SLERP,
        [{"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]}, {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
         {"value": 0.5}],
    ),
    "karcher": """
merge_method: karcher
models: [{model: "{a}"}, {model: "{b}"}, {model: "{c}"}]
parameters: {max_iter: 12, tol: 1e-7}
dtype: float32
""",
    "nuslerp": filled(LINEAR, 0.9, 0.3).replace("linear", "nuslerp"),
    "nuslerp_of_deltas": filled(DELTAS, "nuslerp", 0.9, 0.3, {}),
    "nuslerp_of_rows": filled(DELTAS, "nuslerp", 0.9, [0.3, 0.6], {"nuslerp_flatten": False}),
    "nuslerp_of_columns": filled(DELTAS, "nuslerp", 0.9, 0.3, {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
    "model_stock": """
merge_method: model_stock
base_model: "{base}"
models: [{model: "{a}"}, {model: "{b}"}, {model: "{c}"}]
dtype: float32
""",
    "ties_trimmed": filled(DELTAS, "ties", 0.5, 0.5, {"density": 0.6, "lambda": 1.2}),
    "ties_rescaled": filled(DELTAS, "ties", 0.5, 0.5, {"density": 0.6, "rescale": True}),
    "ties_of_one": """
merge_method: ties
base_model: "{base}"
models:
- {model: "{a}", parameters: {weight: 0.6, density: 0.5}}
dtype: float32
""",
    "breadcrumbs": filled(DELTAS, "breadcrumbs", 0.7, 0.4, {"density": 0.6, "gamma": 0.1}),
    "breadcrumbs_ties": filled(DELTAS, "breadcrumbs_ties", 0.5, 0.5, {"density": 0.6, "gamma": 0.1, "normalize": True}),
    "dare_linear_density_1": filled(DELTAS, "dare_linear", 0.7, 0.4, {"density": 1.0}),
    "dare_ties_density_1": filled(DELTAS, "dare_ties", 0.7, 0.7, {"lambda": 0.5, "normalize": True}),
    "della_density_1": filled(DELTAS, "della", 0.7, 0.7, {}),
    "della_linear_density_1": filled(DELTAS, "della_linear", 0.7, 0.4, {"normalize": True}),
    "sce": """
merge_method: sce
base_model: "{base}"
models: [{model: "{a}"}, {model: "{b}"}, {model: "{c}"}]
parameters: {select_topk: 0.4}
dtype: float32
""",
    "nearswap": """
merge_method: nearswap
base_model: "{base}"
models: [{model: "{base}"}, {model: "{a}"}]
parameters: {t: 0.015}
dtype: float32
""",
    "ties_weighted": filled(DELTAS, "ties", 0.7, 0.4, {"density": 0.6, "lambda": 1.2}),
    "ties_summed": filled(DELTAS, "ties", 0.7, 0.4, {"density": 0.6, "normalize": False}),
    "ties_of_negative_weight": filled(DELTAS, "ties", 0.7, -0.4, {"density": 0.6}),
    "ties_by_layer": filled(DELTAS, "ties", [0.2, 0.5, 1.0], 0.5, {"density": 0.6}),
    "dare_ties": filled(DELTAS, "dare_ties", 0.7, 0.4, {"density": 1.0}),
    "breadcrumbs_ties_summed": filled(DELTAS, "breadcrumbs_ties", 0.5, 0.5, {"density": 0.6, "gamma": 0.1}),
    "ties_density_1": filled(DELTAS, "ties", 0.5, 0.5, {"density": 1.0, "lambda": 0.9}),
}  # fmt: skip
DRAWN = """
merge_method: dare_linear
base_model: "{base}"
models:
- {model: "{a}", parameters: {weight: 0.5, density: 0.8}}
parameters: {rescale: false}
dtype: float32
"""


def make_models(folder: Path) -> dict[str, Path]:
    """Write the checkpoints base, a, b, c and a LoRA adapter of base, and return where each lies."""
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        shapes |= {f"{at}{name}.weight": (HIDDEN,) for name in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{at}self_attn.{name}_proj.weight": (16, HIDDEN) for name in "q"}
        shapes |= {f"{at}self_attn.{name}_proj.weight": (8, HIDDEN) for name in "kv"}
        shapes |= {f"{at}self_attn.o_proj.weight": (HIDDEN, 16), f"{at}mlp.down_proj.weight": (HIDDEN, INNER)}
        shapes |= {f"{at}mlp.{name}_proj.weight": (INNER, HIDDEN) for name in ("gate", "up")}
    tensors = {"base": {name: _normal("base", name, shape) * 0.1 for name, shape in shapes.items()}}
    for expert in "abc":
        moved = {name: _normal(expert, name, shape) * 0.02 for name, shape in shapes.items()}
        tensors[expert] = {name: tensors["base"][name] + moved[name] for name in shapes}
    for name, held in tensors.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(CONFIG))
        save_file({key: np.ascontiguousarray(one, np.float32) for key, one in held.items()},
                  folder / name / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(ADAPTER))
    factors = {}
    for name in (name for name in shapes if "q_proj" in name or "down_proj" in name):
        key, (rows, columns) = f"base_model.model.{name.removesuffix('.weight')}", shapes[name]
        factors[f"{key}.lora_A.weight"] = np.float32(_normal("lora_A", name, (2, columns)) * 0.1)
        factors[f"{key}.lora_B.weight"] = np.float32(_normal("lora_B", name, (rows, 2)) * 0.1)
    save_file(factors, folder / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    return {name: folder / name for name in (*tensors, "adapter")}


def _normal(*seed_and_shape: object) -> np.ndarray:
    model, name, shape = seed_and_shape
    return np.random.default_rng(zlib.crc32(f"{model} {name}".encode())).standard_normal(shape)


def with_models(text: str, models: dict[str, Path]) -> str:
    for name, path in models.items():
        text = text.replace(f"{{{name}}}", str(path))
    return text


def sums(path: Path) -> dict[str, float]:
    """Return of each tensor the mean of its elements, each times its place from 1 on."""
    found = {}
    for name, tensor in sorted(load_file(path).items()):
        flat = tensor.astype(np.float64).ravel()
        found[name] = round(float(flat @ np.arange(1.0, flat.size + 1)) / flat.size, 7)
    return found


def merge_all(recipes: dict[str, str], out: Path) -> None:
    """Merge each recipe (its YAML, with the paths of the models) by mergekit into out/NAME."""
    import yaml
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True, random_seed=0,
                           lora_merge_cache=str(out / "lora"))  # fmt: skip
    for name, text in recipes.items():
        run_merge(MergeConfiguration.model_validate(yaml.safe_load(text)), str(out / name), options)


def main() -> None:
    """Merge all recipes, or those of a JSON file {NAME: YAML} (`FOLDER RECIPES.json`), into FOLDER."""
    if sys.argv[1] != "--record":
        merge_all(json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        models = make_models(Path(folder))
        merge_all({name: with_models(text, models) for name, text in RECIPES.items()}, Path(folder, "out"))
        found = {name: sums(Path(folder, "out", name, "model.safetensors")) for name in RECIPES}
    names = list(next(iter(found.values())))
    lines = (f"{json.dumps(name)}: {json.dumps([held[tensor] for tensor in names])}" for name, held in found.items())
    RECORD.write_text('{\n"tensors": ' + json.dumps(names) + ",\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()

"""Quantised checkpoints, which are refused: rounding a merge of rounded weights is no merge of the models."""

from collections.abc import Iterable, Mapping

from m3_exp.types import M3Error

# What config.json calls a quantisation, what people call it, and the class by which transformers loads it in 16 bits.
_NAMES = {
    "gptq": "GPTQ", "awq": "AWQ", "bitsandbytes": "bitsandbytes", "fp8": "FP8", "fbgemm_fp8": "FP8 (fbgemm)",
    "mxfp4": "MXFP4", "compressed-tensors": "compressed-tensors", "hqq": "HQQ", "aqlm": "AQLM", "torchao": "torchao",
}  # fmt: skip
_LOADS = {"fp8": "FineGrainedFP8Config", "mxfp4": "Mxfp4Config", "compressed-tensors": "CompressedTensorsConfig"}
# Ends of names that packed tensors have, where config.json says nothing.
_PACKED = {
    (".qweight", ".qzeros"): "gptq or awq",
    (".weight_scale_inv",): "fp8",
    ("_blocks", "_scales"): "mxfp4",
    (".weight.quant_map", ".weight.absmax"): "bitsandbytes",
}


def refuse(model: object, config: Mapping[str, object], names: Iterable[str]) -> None:
    """Refuse a model that config.json or the names of its tensors show to be quantised.

    Raises:
        M3Error: by which method, and what to give in its place.
    """
    text_config = config.get("text_config")
    for one in (config, text_config if isinstance(text_config, dict) else {}):
        settings = one.get("quantization_config")
        if settings:
            method = settings.get("quant_method") if isinstance(settings, dict) else None
            raise _refusal(model, str(method or "an unnamed method"), "config.json has a quantization_config")
    every = list(names)
    for ends, method in _PACKED.items():
        found = [next((name for name in every if name.endswith(end)), None) for end in ends]
        if all(found):
            raise _refusal(model, method, f"it holds {found[0]}")


def _refusal(model: object, method: str, why: str) -> M3Error:
    use = "give the model it was made from, in 16 or 32 bits"
    if method in _LOADS:
        use += (
            f", or a copy that transformers saves after from_pretrained(..., quantization_config="
            f"{_LOADS[method]}(dequantize=True))"
        )
    return M3Error(f"{model} is quantised by {_NAMES.get(method, method)} ({why}): {use}")

"""engine=transformers: Hugging Face's own model and a plain decode loop, where vLLM cannot be installed."""

import importlib.metadata
from collections.abc import Mapping

from m3_exp.engines.child import Model, importing
from m3_exp.engines.resident import batched as batched
from m3_exp.engines.resident import start as start
from m3_exp.engines.text import vocabulary
from m3_exp.engines.weights import read_skeleton
from m3_exp.store import Store
from m3_exp.types import EngineSettings, Recipe, Source


def fingerprint(settings: EngineSettings) -> Mapping[str, str]:
    """Return what of this engine belongs to an answer's key."""
    version = importlib.metadata.version("transformers")
    return {"engine": "transformers", "version": version, "dtype": settings.dtype}


def build(settings: EngineSettings, recipe: Recipe, tokenizer: Source, store: Store) -> Model:
    """Make the model; called in the engine's own process."""
    with importing():
        from m3_exp.engines.transformers_model import TransformersModel

        vocabulary(tokenizer, store)  # read now, where there is time for it
        skeleton = read_skeleton(recipe, tokenizer, store)
    return TransformersModel(settings, skeleton, store)

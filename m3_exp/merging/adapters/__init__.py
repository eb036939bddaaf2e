"""A LoRA adapter on a base model, read as if it were merged: what peft's `merge_and_unload` gives, in float32.

adapt(folder, Base(entries, read, ...)) -> Adapted     tensors like any other model's

config.py    adapter_config.json: honoured, harmless, or refused by name
names.py     what each tensor of an adapter is, by peft's names
places.py    where a module's weight lies among the base's tensors
parts.py     an adapter's tensors, sorted: pairs of factors, whole tensors, rows of tokens
changes.py   what an adapter does to each tensor of a base, and what is refused: by wholes.py, factors.py, draft.py
tensors.py   the changed tensors, block by block
"""

from m3_exp.merging.adapters.draft import Base
from m3_exp.merging.adapters.tensors import Adapted, adapt

__all__ = ["Adapted", "Base", "adapt"]

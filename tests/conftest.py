"""What all tests share: no run of theirs is recorded in W&B but where a test says so."""

import os

os.environ.setdefault("WANDB_MODE", "disabled")

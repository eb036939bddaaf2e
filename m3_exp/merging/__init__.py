"""Recipe -> a stream of tensors: see docs/merging.md."""

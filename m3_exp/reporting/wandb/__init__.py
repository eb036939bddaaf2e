"""Weights & Biases: what a store holds as W&B runs, workspace and report.

logged     cells, tables and responses as runs: plain values, without wandb
tracker    hands runs to a child process beside a sweep
track      that child process: writes runs offline, sends them where there is a key; the one home of the package wandb
workspace  saved views and a report on the server
"""

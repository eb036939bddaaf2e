"""Benchmarks: a file each, or a package where one needs more than a file. CONTRIBUTING.md shows a complete one.

gsm8k, hendrycks_math              maths problems
humaneval, mbpp/                   Python functions
alpaca/                            AlpacaEval: open instructions and their judges
livebench_coding/, livebench_instruction_following/, livebench_typos
prompt_bench/                      SST-2 and CoLA, and attacks on their instruction
"""

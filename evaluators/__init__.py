"""The benchmarks: one class each, named in conf/evaluator/NAME.yaml. CONTRIBUTING.md shows how to write one.

    gsm8k                            grade-school word problems
    hendrycks_math                   MATH: competition problems
    humaneval                        Python functions from docstrings
    mbpp/                            Python functions from a sentence and three asserts; MBPP+
    alpaca/                          AlpacaEval: open instructions, with a judge of one's choice
    prompt_bench/                    SST-2 and CoLA, with attacks on the instruction
    livebench_coding/                contest problems
    livebench_instruction_following/ articles rewritten under instructions that a program verifies
    livebench_typos                  misspellings put right

What they share (base classes of maths, programs and LiveBench; the sandbox) is in m3_exp/scoring. A benchmark imports
m3_exp.types, reading, stats and scoring only; docs/benchmarks.md has its card.
"""

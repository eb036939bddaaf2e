"""Attacks on the instruction of a prompt: DeepWordBug, BERT-Attack, StressTest and CheckList, as PromptBench runs them.

The rules are those of promptbench 0.0.4 with textattack 0.3.10, written anew, so that a round of a search is one call
of the engine; `original.py` runs the packages themselves. `tests/test_prompt_bench_parity.py` holds the two together.

    words.py      what textattack takes for a word, and how one is replaced
    search.py     the greedy search and the one that tries all; searches run in step, one engine call a round
    edits.py      DeepWordBug's edits of characters
    additions.py  StressTest's and CheckList's additions
    masked.py     BERT-Attack's words from a masked language model, and the sentence encoder that limits them
    attack.py     an attack by its name and settings -> searches
    measures.py   Matthews correlation, and the drop in performance with its interval
    frozen.py     attacked prompts in files
    summary.py    scores without and under attack -> a result
    original.py   promptbench itself, in a process of its own
"""

"""The lab ships with the project: three small experts of one base, items for them, and the code that makes both.

    make_items       writes the items; load_benchmark gives a benchmark's evaluator over them
    split            the rule that keeps training and test items apart
    word_problems, exact_answers             gsm8k, hendrycks_math
    functions, coding                        humaneval; mbpp and livebench_coding
    instructions, formats                    alpaca_eval; livebench_instruction_following
    misspellings, sentences                  livebench_typos; prompt_bench_sst2 and prompt_bench_cola
    calibration                              the text that fisher and regmean measure experts on
    train, masked_lm                         the experts; the masked language model that BERTAttack asks

docs/lab.md describes it. Nothing imports this folder; conf/family/lab.yaml points to its files.
"""

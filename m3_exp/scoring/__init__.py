"""Answers -> scores -> a result. A benchmark is a class in evaluators/; here is what all or several of them share.

All of them, in the order of the data:
    items             where a benchmark's items come from, and the proof that they are the ones that are meant
    evaluator         the base class: `Evaluator`, and `ChatSettings` with chat templates and thoughts. Read it first
    evaluate          a benchmark by its yaml, its scores behind a wall (what fails is unscored, never 0), `m3 score`
    saved             answers as files hold them: anybody's, our own, lm-eval's
    thoughts          what a model writes before its answer, taken away before anything is judged
    text              the cut at a stop string, names of what an item asks
    summary           scores -> the figure of a result with its interval
    trust             a grader examined with gold answers and planted wrong ones
    audit             what `m3 score --audit` adds: other extractors on the same answers
    cache, models     a folder that outlives a run, for paid judgments; models that judge, such as a masked one

Maths: gsm8k, hendrycks_math
    maths             their base class: the paper's prompt and stops
    boxes, numbers    the last \\boxed{...} of an answer; the number in a text, as a fraction
    math_rules        is this answer equal to that one? By name: the paper's rule, Hendrycks', math-verify's, ...
    math_equivalence  Hendrycks' rule: a normalised string
    math_process      math-verify in a child process (`math_worker`), its verdicts put right (`math_kinds`)

Programs: humaneval, mbpp, livebench_coding
    coding            the base class: samples, pass@k, the way into the sandbox
    programs          an answer -> the programs that it may mean
    fences, scripts   fenced code blocks; items with a test script of their own, such as MultiPL-E's
    sandbox/          programs run where they can do no harm, and judged where they never ran

LiveBench: livebench_coding, livebench_instruction_following, livebench_typos
    livebench         the base class: releases, a file a task, the mean of the tasks' means
"""

"""Answers -> scores -> a result. What several benchmarks share; what belongs to one lies in evaluators/.

The way of an answer:

    evaluator    the base class of benchmarks, and what each may override
    evaluate     loads a benchmark by name, scores answers with it, makes a result of them; `m3 score`
    items        where a benchmark's items come from, and the check that they are the right ones
    thoughts     <think>...</think> of reasoning models, dropped before anything reads an answer
    summary      scores -> a result's figure with its interval
    trust        gold and planted wrong answers: is a grader to be believed?
    audit        `m3 score --audit`: what other extractors make of the same answers
    cache        where paid judgments are kept
    models       models that a score needs, such as a masked language model

Base classes, and what they are made of:

    maths        a maths problem with one result; `boxes`, `numbers`: the box, the number in an answer
    math_rules   are two answers equal? `math_equivalence`: by strings; `math_process`, `math_worker`: by math-verify in
                 a child process; `math_kinds`: numbers that math-verify mistakes
    coding       programs and pass@k; `programs`, `fences`: the program in an answer; `scripts`: items with a test
                 script of their own; sandbox/: where programs run
    livebench    LiveBench: questions by task, releases, the mean over tasks
    text         stop strings, and the name of the problem that a text states
"""

"""LiveCodeBench's questions as LiveBench scores them: programs that read stdin, or methods, and tests of both kinds.

questions.py   a question's tests and an answer's program -> a task for the sandbox; programs that know the answers
harness.py     runs in the candidate's box: the model's program, once for each test, under a time limit
grading.py     runs in the grader's box: what a test passes to the program, and whether its answer is right

The texts of the last two are what is sent into the boxes, so they import the standard library only.
"""

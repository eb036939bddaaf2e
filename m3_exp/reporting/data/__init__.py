"""What is looked at, before anything is computed of it.

dataframe.py   cells of the store -> a tidy DataFrame, a line for each label and benchmark
saved.py       plans that other runs left in the store, for real draws of lambda
params.py      hyper-parameters as text; a method's defaults, and what the paper's search found
published.py   the paper's numbers and where they contradict themselves
"""

"""The data that everything here is computed from.

dataframe.py   cells of the store -> a tidy DataFrame, a line for each label and benchmark
saved.py       plans that other runs left in the store, for their draws of lambda
params.py      hyper-parameters as text; a method's defaults, and what the paper's search found
published.py   the paper's numbers and where they contradict themselves
"""

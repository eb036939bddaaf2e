"""What is looked at, before anything is computed of it.

dataframe.py   cells of the store -> a tidy DataFrame, a line for each label and benchmark
saved.py       plans that other runs left in the store, for real draws of lambda
published.py   the paper's numbers, their noise, and where they contradict themselves
"""

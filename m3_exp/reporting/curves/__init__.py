"""Scores along lambda, and what follows from them for every alpha.

places.py         where a merge lies: lambda of two experts, the shares of more
evaluated.py      frame -> `Response`: one pair, method and benchmark along lambda, item by item
expectations.py   `Response` -> E[score | alpha] and its difference from the method without M3
prediction.py     what a curve predicts beside what observed draws of lambda scored
"""

"""Recipes of mergekit 0.1.5, in and out: docs/recipes.md.

document   the YAML file, every key checked
settings   what a parameter is for one tensor: filters, gradients, which setting comes before which
depth      how many layers there are, and which slice each comes from
methods    what each method of mergekit is in m3
importing  a file -> the words of `m3 merge`
exporting  the words of `m3 merge` -> a file
"""

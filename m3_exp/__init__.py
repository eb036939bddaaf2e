"""Merge language models, evaluate what came out, and say which differences are significant. docs/design.md is the map.

cli.py is the command line; what its commands do and show are functions in `actions` and `views`.
"""

"""Names of methods of texts, numbers and collections that take a value to compare, or that give a verdict of their own.

An object of the program under test could answer such a method as the test would like (`x.startswith(...)`, always
True).
"""

QUESTIONS = frozenset({
    "startswith", "endswith", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower",
    "isnumeric", "isprintable", "isspace", "istitle", "isupper", "count", "index", "find", "rfind", "rindex", "replace",
    "partition", "rpartition", "strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "translate",
    "issubset", "issuperset", "isdisjoint", "union", "intersection", "difference", "symmetric_difference",
    "is_integer", "is_canonical", "is_finite", "is_infinite", "is_nan", "is_normal", "is_qnan", "is_signed", "is_snan",
    "is_subnormal", "is_zero", "compare", "compare_signal", "compare_total", "compare_total_mag", "same_quantum",
})  # fmt: skip

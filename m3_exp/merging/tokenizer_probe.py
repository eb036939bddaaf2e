"""The process that loads a tokenizer.json first: its library panics, and a stranger's rules may never end.

python -m m3_exp.merging.tokenizer_probe FILE      exit code 0, or 1 and the reason in one line
"""

import contextlib
import resource
import sys

MEMORY = 4 << 30  # bytes of address space; the largest tokenizers take a quarter of it
SECONDS = 60  # of processor time; they take two
_TEXT = "The quick brown fox: f(x) = 3.14 * x_2!\n\tÜber Öl, 東京 и Москва, ﷽ 👩‍🚀  " * 16


def main(path: str) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(path)
        with contextlib.suppress(Exception):  # a text that it has no tokens for; a panic is no Exception
            tokenizer.encode(_TEXT)
    except BaseException as error:
        print(" ".join(f"{type(error).__name__}: {error}".split()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

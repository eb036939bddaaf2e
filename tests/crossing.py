"""Single values through the sandbox's codec, as tests cross with them."""

from collections.abc import Callable
from typing import Any

from m3_exp.scoring.sandbox.codec import Wire
from m3_exp.scoring.sandbox.kinds import About, Keep, Key


class Opaque:
    """What stands for an object of the other side where nobody asks it anything."""

    def __init__(self, key: Key, about: About) -> None:
        self.key, self.about = key, about

    def __repr__(self) -> str:
        return f"<{self.about.name}>"


def dumps(value: object, keep: Keep | None = None) -> bytes:
    return Wire(0, keep=keep).dumps(value)


def loads(data: bytes, find: Callable[[Key], object] | None = None) -> Any:
    return Wire(1, find=find, make=Opaque).loads(data)

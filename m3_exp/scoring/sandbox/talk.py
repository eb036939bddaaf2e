"""Requests and replies between a candidate and a grader, in both directions.

Each side asks for what it may do with an object of the other's (call it, take the next of it, read an attribute) and
gets a value or an exception. While it waits for a reply it may be asked in turn: a test that passes a function to the
program is called back.
"""

import builtins
import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Any

from . import codec
from .kinds import CodecError, Value

_LONGEST = 100_000  # characters of an exception's text
_SILENT = (StopIteration, StopAsyncIteration, GeneratorExit)  # these would end a test's loop without failing it


class Gone(BaseException):
    """The other side ended or sent something that is no value: nothing can go on, even if this is caught."""


class Talk:
    """One side of the conversation. `serves`: what the other may ask for. `passes`: exceptions that end it at once."""

    def __init__(
        self,
        channel: int,
        wire: codec.Wire,
        serves: Mapping[str, Callable[..., Value]],
        passes: tuple[type[BaseException], ...] = (),
    ) -> None:
        self.wire = wire
        self._channel, self._serves = channel, serves
        self._passes: tuple[type[BaseException], ...] = (Gone, *passes)
        self._lock = threading.RLock()

    def ask(self, operation: str, target: object, *arguments: Value) -> Any:
        """Return what the other side makes of a request, or raise what it raises.

        Raises:
            CodecError: the request cannot cross.
            Gone: the other side has ended, or its reply is not one.
        """
        with self._lock:
            self._send(self.wire.dumps(("ask", operation, target, arguments)))
            while True:
                answer = self.served()
                if answer[0] == "value" and len(answer) == 2:
                    return answer[1]
                if answer[0] == "raised" and len(answer) == 3:
                    raise _raised(answer[1], answer[2])
                if answer[0] != "served":
                    raise Gone("the program's answer is not a reply")

    def _send(self, data: bytes) -> None:
        try:
            codec.send(self._channel, data)
        except OSError:
            raise Gone("the program ended before it answered") from None

    def served(self) -> tuple[Value, ...]:
        """Receive a message; reply to it where it is a request, return it where it is a reply."""
        try:
            message = self.wire.loads(codec.receive(self._channel))
        except (OSError, EOFError):
            raise Gone("the program ended before it answered") from None
        except CodecError as error:
            raise Gone(f"the program's answer is not a value: {error}") from None
        if type(message) is not tuple or not message:
            raise Gone("the program's answer is not a reply")
        if message[0] != "ask":
            return message
        self._send(self._reply(message))
        return ("served",)

    def _reply(self, message: tuple[Any, ...]) -> bytes:
        try:
            _, operation, target, arguments = message
            value = self._serves[operation](target, *arguments)
        except self._passes:
            raise
        except BaseException as error:  # whatever it is, it is the answer
            return self._pack_error(error)
        try:
            return self.wire.dumps(("value", value))
        except CodecError as error:
            return self.wire.dumps(("raised", "RuntimeError", (f"the value cannot cross: {error}",)))

    def _pack_error(self, error: BaseException) -> bytes:
        """Return an exception as its class, or a built-in one's name, and its arguments; else its text."""
        kind = type(error)
        name = kind.__name__ if kind.__module__ == "builtins" else "RuntimeError"
        sent: Value = kind if kind.__module__ != "builtins" and issubclass(kind, Exception) else name
        try:
            own_text = kind.__module__ != "builtins" and "__str__" in _own_names(kind)
            args = (_text(error),) if own_text else error.args
            codec.Wire(0).dumps(args)
            return self.wire.dumps(("raised", sent, args))
        except Exception:
            return self.wire.dumps(("raised", sent, (_text(error),)))


def _own_names(kind: type) -> set[str]:
    """Return what the classes before the first built-in one define."""
    own = itertools.takewhile(lambda base: base.__module__ != "builtins", kind.__mro__)
    return {name for base in own for name in vars(base)}


def _text(error: BaseException) -> str:
    try:
        return str.__str__(str(error))[:_LONGEST]
    except Exception:
        return ""


def _raised(kind: Value, args: Any) -> BaseException:
    """Return an exception from the name of a built-in one, or from the class that stands for the other side's."""
    raised = getattr(builtins, kind, None) if type(kind) is str else kind
    if not (isinstance(raised, type) and issubclass(raised, BaseException)) or issubclass(raised, _SILENT):
        raised = RuntimeError
    try:
        error = raised(*args)
        return error if isinstance(error, BaseException) else RuntimeError(*args)
    except Exception:  # UnicodeDecodeError and its like want other arguments
        return RuntimeError(*args) if type(args) is tuple else RuntimeError()

"""How a judge is asked: replies that are kept, money that is capped, and a chat-completions address that fails.

A reply is kept as one small file named by the sha256 of everything that was asked: address, model, messages and
parameters. The messages hold the template, the instruction and both outputs in the order shown. A reply that is kept
is never asked for again. The key stands in no file and no message.
"""

import email.utils
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from m3_exp.reading.files import parse_json
from m3_exp.reading.records import read_record, sealed
from m3_exp.reading.typed import Strict, checked
from m3_exp.scoring.cache import keep
from m3_exp.types import Json, M3Error

LONGEST_WAIT = 300.0  # seconds: who asks to be left alone for longer is taken at his word, and nothing waits for it
GIVEN_UP = 3  # items in a row that no attempt could get judged: the judge is away, do not try them all


class Refused(Exception):
    """A judgment that was not to be had; `stop`: nor will any other be in this run."""

    def __init__(self, reason: str, *, stop: bool = False) -> None:
        super().__init__(reason)
        self.stop = stop


class Passing(Exception):
    """A failure that may be over soon; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


# ---------------------------------------------------------------------------------------------------------- replies


class _Function(Strict):
    arguments: str


class _Call(Strict):
    function: _Function


class _Message(Strict):
    content: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None


class _Token(Strict):
    token: str
    logprob: Annotated[float, Field(le=0.01)]  # a rounding above 0; not NaN


class _Place(Strict):
    top_logprobs: tuple[_Token, ...] = Field((), strict=False)


class _Logprobs(Strict):
    content: list[_Place] | None = None


class _Choice(Strict):
    """One choice of a chat completion: what anybody here or in the alpaca-eval package reads of it."""

    message: _Message
    logprobs: _Logprobs | None = None


class _Usage(Strict):
    prompt_tokens: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(ge=0)] = 0


# ------------------------------------------------------------------------------------------------------------- kept


@dataclass(frozen=True)
class Replies:
    """The replies that are kept in a folder, each in a file of its own that is renamed into place once."""

    folder: Path

    def get(self, key: str) -> Json | None:
        """Return a kept reply; a damaged one is named, set aside, and asked for again."""
        record = read_record(self._path(key), key, self.folder.parent / "quarantine", bare=True)
        whole = record is not None and record.get("key") == key and _is(_Choice, record.get("choice"))
        return record if whole else None

    def put(self, record: Mapping[str, Any]) -> None:
        path = self._path(record["key"])
        keep(path, sealed(json.dumps(record), path.stem))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


# ------------------------------------------------------------------------------------------------------------- cost


class Budget:
    """The dollars that may be spent: what a call may cost at most is set aside before it and settled after it."""

    def __init__(self, price: Sequence[float] | None, limit: float | None) -> None:
        self.price, self.limit = price, limit
        self.spent = self._held = 0.0
        self._calls = 0  # under way
        self._changed = threading.Condition()

    def hold(self, n_bytes: int, max_tokens: int) -> float:
        """Set aside what a call can cost at most. Raises Refused where that could pass the limit."""
        if self.price is None:
            return 0.0
        most = self._dollars(n_bytes + 100, max_tokens)  # no token is shorter than a byte; 100 for the roles' marks
        with self._changed:
            while self.limit is not None and self.spent + self._held + most > self.limit:
                if self._calls == 0:
                    raise Refused(
                        f"max_cost={self.limit:g} dollars would be passed ({self.spent:.4f} spent): raise it and run"
                        " the same command again, what is judged is kept",
                        stop=True,
                    )
                self._changed.wait()
            self._held += most
            self._calls += 1
        return most

    def settle(self, held: float, usage: Mapping[str, Any] | None, *, billed: bool) -> None:
        """Book a call: by its usage, by what was set aside where that is not known, not at all where not billed."""
        if self.price is None:
            return
        cost = held if billed else 0.0
        if billed and usage:
            cost = self._dollars(usage["prompt_tokens"], usage.get("completion_tokens", 0))
        with self._changed:
            self._calls -= 1
            self._held = self._held - held if self._calls else 0.0
            self.spent += cost
            self._changed.notify_all()

    def _dollars(self, tokens_in: float, tokens_out: float) -> float:
        assert self.price is not None
        return (tokens_in * self.price[0] + tokens_out * self.price[1]) / 1e6


# -------------------------------------------------------------------------------------------------------- transport


@dataclass
class Endpoint:
    """A chat-completions address that is asked with patience: retries, back-off, a cap on money, and a point to stop.

    Only errors that can pass are tried again: 408, 409, 429, 5xx, time-outs, cut connections, and answers that are
    none. A wait is the longer of Retry-After and an exponential back-off with jitter.
    """

    url: str
    key: str
    timeout: float
    retries: int
    backoff: float
    budget: Budget
    replies: Replies
    told: Callable[[str], None]
    offline: str | None = None  # why nothing may be asked: then only what is kept is had
    _stopped: str | None = None
    _lost: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        import openai

        # Without a key the client refuses to start; a server of one's own takes any.
        self._client = openai.OpenAI(
            base_url=self.url or None, api_key=self.key or "none", max_retries=0, timeout=self.timeout
        )
        self._jitter = random.Random()

    def reply(self, request: Json) -> Json:
        """Return a kept or a new reply to a request. Raises Refused."""
        key = hashlib.sha256(json.dumps([self.url, request], sort_keys=True).encode()).hexdigest()
        record = self.replies.get(key)
        if record is None:
            if self.offline is not None:
                raise Refused(self.offline)
            record = {"key": key, **self._patiently(request)}
            self.replies.put(record)
        return record

    def _patiently(self, request: Json) -> Json:
        attempt = 0
        while True:
            if self._stopped is not None:
                raise Refused(f"not asked, since {self._stopped}")
            attempt += 1
            try:
                record = self._once(request)
            except Passing as failure:
                wait = max(failure.wait or 0.0, self.backoff * 2.0 ** (attempt - 1) * self._jitter.uniform(0.75, 1.25))
                if attempt > self.retries or wait > LONGEST_WAIT:
                    raise Refused(self._gave_up(str(failure), attempt)) from None
                self.told(str(failure))
                self._rest(wait)
            except Refused as refused:
                if refused.stop:
                    self._stop(str(refused))
                raise
            else:
                self._lost = 0
                return record

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._stopped is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))

    def _gave_up(self, problem: str, attempts: int) -> str:
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        reason = f"{self.url} gave no judgment in {times} ({problem}); run the same command again later"
        with self._lock:
            self._lost += 1
            if self._lost >= GIVEN_UP:
                self._stopped = self._stopped or reason
        return reason

    def _stop(self, reason: str) -> None:
        with self._lock:
            self._stopped = self._stopped or reason

    def _once(self, request: dict[str, Any]) -> Json:
        """Ask once. Raises Passing or Refused."""
        import openai

        size = sum(len(str(message["content"]).encode("utf-8", "replace")) for message in request["messages"])
        held = self.budget.hold(size + len(json.dumps(request.get("tools", ""))), int(request["max_tokens"]))
        usage, billed = None, False
        try:
            self.told("asking")
            raw = self._client.chat.completions.with_raw_response.create(**request)
            billed = True
            record = _record(raw.http_response.text)
            usage = record["usage"]
            return record
        except openai.APIStatusError as error:
            raise self._status(error) from None
        except openai.APITimeoutError:
            billed = True  # the server may well have done the work
            raise Passing(f"no answer within {self.timeout:g} s") from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__ or error).__name__
            billed = cause not in ("ConnectError", "ConnectTimeout")
            raise Passing("no connection" if not billed else f"the connection broke: {cause}") from None
        except (openai.OpenAIError, UnicodeError, TypeError) as error:
            raise Refused(self._clean(f"the request cannot be sent: {type(error).__name__}: {error}")) from None
        finally:
            self.budget.settle(held, usage, billed=billed)

    def _status(self, error: Any) -> Exception:
        status = error.status_code
        body = error.body if isinstance(error.body, dict) else {}
        message = self._clean(str(body.get("message") or ""))
        said = f"HTTP {status}" + (f": {message}" if message else "")
        if status in (401, 403):
            return Refused(f"{self.url} answers HTTP {status}: the API key is missing, wrong or not allowed", stop=True)
        if status == 404:
            return Refused(f"{self.url} answers {said}: give a judge_model and an endpoint that exist", stop=True)
        if status == 429 and "insufficient_quota" in (body.get("code"), body.get("type")):
            return Refused(f"{self.url} answers {said}: the account has no credit left", stop=True)
        if status in (408, 409, 429) or status >= 500:
            return Passing(said, _retry_after(error.response.headers))
        hint = "; structured=false asks without it" if "structured_outputs" in said else ""
        return Refused(f"{self.url} refused this request with {said}{hint}")

    def _clean(self, text: str) -> str:
        """Return a foreign text as a short line in which the key does not stand."""
        shown = text.replace(self.key, "***") if self.key else text
        return " ".join(shown.split())[:200]


def _record(body: str) -> dict[str, Any]:
    """Read a reply. Raises Passing where it is not one: proxies and dying servers say the strangest things."""
    try:
        reply = parse_json(body, "the reply")
        choices = reply.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        checked(_Choice, choice, "choices.0")
    except M3Error as error:
        raise Passing(f"the answer is not a chat completion: {error}"[:200]) from None
    model, usage = reply.get("model"), reply.get("usage")
    return {
        "choice": choice,
        "model": model if isinstance(model, str) else None,
        "usage": usage if _is(_Usage, usage) else None,  # where the server says nothing that can be booked
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _is(kind: type[Strict], value: object) -> bool:
    """Tell whether something is of this kind, with all its parts that anybody reads."""
    try:
        checked(kind, value, "")
    except M3Error:
        return False
    return True


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait: a number, or a date."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None

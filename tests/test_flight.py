"""A flight: what is in flight together, who is told of an answer, and how busy that keeps an engine."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from m3_exp.busy import Meter, added, share, words
from m3_exp.engines import pace
from m3_exp.engines.protocol import Batch, Ended, Engine, EngineDied, Loaded
from m3_exp.flight import Flight
from m3_exp.types import Answer, Likelihood, M3Error, Pace, Prompt, Recipe, Sampling, Source


def batch(name: str, prompts: int) -> Batch:
    return Batch([Prompt(f"{name}/{n}", (1,)) for n in range(prompts)], Sampling(9), Source("t"))


@dataclass
class Scripted(Engine):
    """Answers in turn, one of each batch; writes down what was in flight. `before` is called before each answer."""

    before: Callable[[str], None] = lambda prompt: None
    departed: list[list[str]] = field(default_factory=list)
    alone: list[list[str]] = field(default_factory=list)
    flying: list[list[object]] = field(default_factory=list)
    refuses: str = "nothing"
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, object] = field(default_factory=lambda: {"max_num_seqs": 4})
    on_progress: Callable[[int, int, float], None] | None = None

    def submit(self, batches: Mapping[int, Batch]) -> None:
        self.departed.append([prompt.id for one in batches.values() for prompt in one.prompts])
        for number, one in batches.items():
            refused = one.prompts[0].id.startswith(self.refuses)
            self.flying.append([number, [] if refused else list(one.prompts), "unfit" if refused else ""])

    def collect(self) -> Iterator[tuple[int, Answer | Ended]]:
        while self.flying:
            for one in list(self.flying):
                number, prompts, refused = one
                assert isinstance(number, int)
                assert isinstance(prompts, list)
                if not prompts:
                    self.flying.remove(one)
                    yield number, Ended(str(refused))
                    continue
                prompt = prompts.pop(0)
                try:
                    self.before(prompt.id)
                except EngineDied:
                    self.flying.clear()
                    raise
                yield number, Answer(prompt.id, "text")

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, tokenizer: Source, *, repeat: int = 0
    ) -> Iterator[Answer]:
        assert not self.flying, "nothing else is in flight"
        self.alone.append([prompt.id for prompt in prompts])
        for prompt in prompts:
            self.before(prompt.id)
            yield Answer(prompt.id, "text")

    def load(self, recipe: Recipe) -> Loaded:
        raise NotImplementedError

    def loglikelihood(self, pairs: object) -> Iterator[Likelihood]:
        raise NotImplementedError

    def close(self) -> None: ...


class Members:
    """Evaluations in threads, each of which asks and writes down what it hears."""

    def __init__(self, engine: Engine, *asking: Callable[[Flight, int, list[object]], None]) -> None:
        self.heard: list[list[object]] = [[] for _ in asking]
        self.deaths: list[EngineDied] = []
        self.meter = Meter()
        flight = Flight(len(asking), self.meter)

        def member(number: int) -> None:
            try:
                asking[number](flight, number, self.heard[number])
            except Exception as error:
                self.heard[number].append(error)
            finally:
                flight.leave(number)

        threads = [threading.Thread(target=member, args=(number,), daemon=True) for number in range(len(asking))]
        for thread in threads:
            thread.start()
        flight.fly(lambda: engine, self.deaths.append)
        for thread in threads:
            thread.join(10)


def asks(name: str, prompts: int, late: float = 0.0) -> Callable[[Flight, int, list[object]], None]:
    def ask(flight: Flight, number: int, heard: list[object]) -> None:
        time.sleep(late)
        heard += [answer.id for answer in flight.ask(number, batch(name, prompts))]

    return ask


def test_all_depart_together_in_their_order_however_late_one_is() -> None:
    engine = Scripted()
    members = Members(engine, asks("a", 2, late=0.2), asks("b", 1), asks("c", 3, late=0.1))
    assert engine.departed == [["a/0", "a/1", "b/0", "c/0", "c/1", "c/2"]]
    assert members.heard == [["a/0", "a/1"], ["b/0"], ["c/0", "c/1", "c/2"]]


def test_nobody_waits_for_a_member_that_leaves_without_asking() -> None:
    def leaves(flight: Flight, number: int, heard: list[object]) -> None:
        time.sleep(0.1)

    engine = Scripted()
    members = Members(engine, leaves, asks("b", 1))
    assert (engine.departed, members.heard) == ([["b/0"]], [[], ["b/0"]])


def test_what_a_search_asks_next_joins_what_is_in_flight() -> None:
    asked_again = threading.Event()

    def searches(flight: Flight, number: int, heard: list[object]) -> None:
        heard += [answer.id for answer in flight.ask(number, batch("a", 1))]
        answers = flight.ask(number, batch("again", 2))
        threading.Timer(0.1, asked_again.set).start()
        heard += [answer.id for answer in answers]

    engine = Scripted(before=lambda prompt: None if prompt != "b/5" else asked_again.wait(10) and None)
    members = Members(engine, searches, asks("b", 9))
    assert engine.departed == [["a/0", *(f"b/{n}" for n in range(9))], ["again/0", "again/1"]]
    assert members.heard[0] == ["a/0", "again/0", "again/1"]
    assert members.heard[1] == [f"b/{n}" for n in range(9)]


def test_only_the_member_whose_batch_is_refused_hears_of_it() -> None:
    members = Members(Scripted(refuses="a"), asks("a", 2), asks("b", 2))
    (refused,) = members.heard[0]
    assert isinstance(refused, M3Error)
    assert (str(refused), members.heard[1]) == ("unfit", ["b/0", "b/1"])


def test_all_in_flight_hear_of_a_death_and_what_is_asked_alone_flies_alone() -> None:
    deaths = iter([EngineDied("killed")])

    def dies(prompt: str) -> None:
        if prompt == "b/1" and (death := next(deaths, None)):
            raise death

    def stubborn(name: str) -> Callable[[Flight, int, list[object]], None]:
        def ask(flight: Flight, number: int, heard: list[object]) -> None:
            try:
                heard += [answer.id for answer in flight.ask(number, batch(name, 2))]
            except EngineDied as death:
                heard.append(str(death))
                heard += [answer.id for answer in flight.ask(number, batch(name, 2), alone=True)]

        return ask

    engine = Scripted(before=dies)
    members = Members(engine, stubborn("a"), stubborn("b"))
    assert list(map(str, members.deaths)) == ["killed"]
    assert sorted(engine.alone) == [["a/0", "a/1"], ["b/0", "b/1"]]
    assert members.heard[1] == ["killed", "b/0", "b/1"]
    assert members.heard[0][-3:] == ["killed", "a/0", "a/1"]


def test_weights_that_are_refused_are_refused_to_all_that_wait() -> None:
    flight, heard = Flight(2, Meter()), dict[int, str]()

    def member(number: int) -> None:
        try:
            list(flight.ask(number, None))
        except M3Error as error:
            heard[number] = str(error)
        flight.leave(number)

    for number in range(2):
        threading.Thread(target=member, args=(number,), daemon=True).start()

    def ready() -> Engine:
        raise M3Error("other shapes")

    flight.fly(ready, lambda death: None)
    assert set(heard.values()) == {"other shapes"}


# ------------------------------------------------------------------------------------------------------- how busy


def test_a_meter_is_the_mean_over_time_of_the_share_in_flight() -> None:
    now = [0.0]
    meter = Meter(lambda: now[0])
    for seconds, what in ((3.0, "start"), (1.0, "swap"), (10.0, 512), (4.0, 64), (2.0, 0), (5.0, "scoring")):
        if isinstance(what, str):
            meter.turn(what)
        else:
            meter.flying(what, 256)
        now[0] += seconds
    taken = meter.take()
    assert taken == pytest.approx({"start": 3, "swap": 1, "busy": 11, "tail": 3, "other": 2, "scoring": 5})
    assert share(taken) == pytest.approx(11 / 25)
    now[0] += 1.0
    assert meter.take() == {"scoring": 1.0}, "since the last call"
    assert (
        words(added(taken, {"swap": 25.0}))
        == "engine 22 % busy (swap 52 %, scoring 10 %, tail 6 %, start 6 %, other 4 %)"
    )
    assert (words({}), words(None), words({"busy": 2.0})) == ("", "", "engine 100 % busy")


def test_answers_that_join_a_paced_flight_are_whole_when_a_loop_over_tokens_says_so() -> None:
    step = pace.step(Pace(tokens_per_second=100, sequences=3, latency=0.02))
    flight = pace.Flight[str](3, step)
    flight.add(10, "a", 0.0)
    flight.add(30, "b", 0.0)
    half = 5 * step(2)
    flight.add(4, "c", half)  # joins when both have five tokens
    assert flight.due == pytest.approx(half + 4 * step(3))
    assert flight.pop() == "c"
    assert flight.due == pytest.approx(half + 4 * step(3) + 1 * step(2))
    assert flight.pop() == "a"
    assert flight.due == pytest.approx(half + 4 * step(3) + 1 * step(2) + 20 * step(1))
    assert (flight.pop(), flight.due) == ("b", None)

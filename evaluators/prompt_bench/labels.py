"""The one of several labels that an answer states, however it is dressed: `labels=lenient` of PromptBench's tasks.

Marks around a label (bold, quotes, code, a box, tags, end tokens, signs) are no part of it. A label is stated by a
sentence or a beginning that is nothing else, or by name ("Label: positive"); else by a link ("It is positive."); else
where no other one is named. What is denied, doubted, asked, scored or named beside another is not stated. Where two are
stated, or two named and none stated, there is none: a label is never guessed.
"""

import re
import unicodedata
from collections.abc import Sequence


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# What ends an answer that was saved with its special tokens.
_END = re.compile(
    r"<\|(?:im_end|im_start|eot_id|eom_id|end|endoftext|end_of_text|end_of_turn|return|eot|eos|user|pad)\|>"
    r"|</s>|<eos>|<end_of_turn>|<pad>|\[/?INST\]|<｜end▁of▁sentence｜>"
)
_COMMANDS = re.compile(r"\\(?:boxed|fbox|text|mathrm|operatorname|emph)(?:bf|it)?\b|</?[a-z][^<>]{0,100}>|```\w*")
_MARKUP = re.compile(r"[*_`\"“”‘«»\\{}\[\]$~]+|(?<!\w)'+|'+(?!\w)")
_NOT = re.compile(r"\b(?:rather than|instead of|as opposed to)\b")
_NOT_BUT = re.compile(r"\bnot (?:an? )?\w+ but\b")
_SURE = re.compile(r"\b(?:no|without(?: a| any)?) (?:doubt|question)\b")
_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|->|[.!?;,:=/|&()\n…—–→-]")
_SENTENCE_ENDS = frozenset(".!?;\n…")
_CLAUSE_ENDS = _SENTENCE_ENDS | _set(", ( ) — – but however because since although though while")
_NAMES = _set(
    "label sentiment answer classification class category prediction verdict result output response conclusion judgment"
    " judgement rating tone polarity grammaticality acceptability"
)
_LINKS = _set(
    "is are was be been as it's that's choose say expresses conveys seems appears sound sounds feels looks : = -> →"
)
# What may stand between a link and a label, or beside a label that stands alone.
_FILLING = _set(
    "a an the very quite rather more best described considered classified labeled labelled judged deemed both also even"
    " just overall therefore thus yes no is be as : = - – ( )"
)
_DOUBTS = _set(
    "not no no-one nothing none nobody nowhere lack lacks impossible never neither nor cannot isnt hardly barely"
    " whether if unless unclear unsure uncertain either maybe perhaps might may could unable depends neutral mixed"
    " difficult hard possibly"
)
_JOINS = _set("or and nor but to / | & , -> →")
_BESIDE = _set("also even both partly somewhat")
_REASONS = _set(", ; : ( — – - because since as not")
_VALUES = _set("false true no none yes")


def stated(text: str, labels: Sequence[str]) -> int:
    """Return the number of the label that a text states, -1 where it states none or more than one.

    `labels` are lower-case words.
    """
    ends = (found.start() for found in _END.finditer(text) if text[: found.start()].strip())
    said = unicodedata.normalize("NFKC", _END.sub("", text[: next(ends, len(text))])).lower().replace("’", "'")
    plain = _COMMANDS.sub(lambda found: f" {tag} " if (tag := found[0].strip("<>")) in labels else " ", said)
    bare = _NOT_BUT.sub("", _SURE.sub("", _MARKUP.sub("", plain)))
    answer = _Answer(_TOKEN.findall(_NOT.sub("not", bare)), frozenset(labels))
    for ways in ((answer.alone, answer.begins, answer.named), (answer.linked,)):
        found = {answer.tokens[at] for at in answer.clear if any(way(at) for way in ways)}
        if found:
            return labels.index(found.pop()) if len(found) == 1 else -1
    named = {answer.tokens[at] for at in answer.places}
    every = len(named) == 1 and answer.clear == answer.places
    return labels.index(named.pop()) if every else -1


class _Answer:
    """The words and marks of an answer, and at which places labels stand in it."""

    def __init__(self, tokens: list[str], labels: frozenset[str]) -> None:
        self.tokens = tokens
        self._labels = labels
        self._clauses = _starts(tokens, _CLAUSE_ENDS)
        self._sentences = _starts(tokens, _SENTENCE_ENDS)
        self._ends = {start: at for at, start in enumerate(self._sentences)}  # of each sentence, where its mark stands
        self._names = {start for token, start in zip(tokens, self._clauses, strict=True) if token in _NAMES}
        said: dict[int, set[str]] = {}
        for token, start in zip(tokens, self._sentences, strict=True):
            said.setdefault(start, set()).update([token] if self._is_word(token) else [])
        self._lone = {start for start, words in said.items() if len(words) == 1}
        self._first = next((at for at, token in enumerate(tokens) if self._is_word(token)), None)
        self.places = [at for at, token in enumerate(tokens) if token in labels]
        doubted = self._doubted()
        self.clear = [at for at in self.places if at not in doubted and not self._asked(at) and not self._beside(at)]

    def alone(self, at: int) -> bool:
        """A sentence is nothing but the label."""
        return self._sentences[at] in self._lone

    def begins(self, at: int) -> bool:
        """The label is the first word, before a mark or a reason."""
        return at == self._first and self._at(at + 1) in _REASONS

    def named(self, at: int) -> bool:
        """The label is linked to a name such as "sentiment"."""
        link = self._link(at)
        return link is not None and self._clauses[link] in self._names

    def linked(self, at: int) -> bool:
        """The label follows a link such as "is"."""
        return self._link(at) is not None

    def _link(self, at: int) -> int | None:
        """Return the place of the first link before a label, over filling words."""
        link = None
        for place in range(at - 1, self._clauses[at] - 1, -1):
            token = self.tokens[place]
            if token in _LINKS:
                link = place
            elif token not in _FILLING and not token.endswith("ly"):
                break
        return link

    def _is_word(self, token: str) -> bool:
        """Tell whether a token is a label, or a word that says something beside it."""
        return token[0].isalnum() and token not in _FILLING and not token.isdigit()

    def _doubted(self) -> set[int]:
        """Return the places of labels that their clause denies or doubts before it names them."""
        doubted: set[int] = set()
        doubt = False
        for at, token in enumerate(self.tokens):
            doubt = token not in _CLAUSE_ENDS and token != ":" and (doubt or token in _DOUBTS or token.endswith("n't"))
            if doubt and token in self._labels:
                doubted.add(at)
        return doubted

    def _asked(self, at: int) -> bool:
        """Tell whether a sentence is a question, or gives the label a number or a truth value."""
        value = self._at(at + 2) if self._at(at + 1) in (":", "=") else ""
        return self.tokens[self._ends[self._sentences[at]]] == "?" or value.isdigit() or value in _VALUES

    def _beside(self, at: int) -> bool:
        """Tell whether another label, or none, is joined to this one."""
        others = (self._labels - {self.tokens[at]}) | {"neutral", "mixed"}
        return self._joined(at, 1) in others or self._joined(at, -1) in others

    def _joined(self, at: int, step: int) -> str:
        """Return the word that a conjunction or comma joins to a label, after (1) or before it (-1)."""
        place, joined = at + step, False
        while (token := self._at(place)) in _JOINS or token in _BESIDE:
            joined |= token in _JOINS
            place += step
        return token if joined else ""

    def _at(self, place: int) -> str:
        return self.tokens[place] if 0 <= place < len(self.tokens) else ""


def _starts(tokens: Sequence[str], ends: frozenset[str]) -> list[int]:
    """Return for each token where its part of the text begins; a mark that ends a part belongs to it."""
    starts: list[int] = []
    start = 0
    for at, token in enumerate(tokens):
        starts.append(start)
        start = at + 1 if token in ends else start
    return starts

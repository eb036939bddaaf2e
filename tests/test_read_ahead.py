"""Reading ahead: which files are asked for, how much at most, and that it never gets in the way."""

import os
from pathlib import Path

import pytest

from m3_exp.merging import ahead
from m3_exp.types import Recipe, Source
from tests.models import AVERAGE, Shape, random_weights, write_adapter, write_model


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    base = random_weights(Shape(), seed=0)
    write_model(tmp_path / "base", base)
    write_model(tmp_path / "expert", base, shards=3)
    write_adapter(tmp_path / "lora", Shape(), seed=3)
    source = Source(str(tmp_path / "base"))
    adapted = Source(str(tmp_path / "base"), adapter=str(tmp_path / "lora"))
    return Recipe(source, (Source(str(tmp_path / "expert")), adapted), AVERAGE, weights=(0.5, 0.5), dtype="float32")


def test_the_weights_of_all_models_are_asked_for_and_nothing_else(recipe: Recipe, tmp_path: Path) -> None:
    asked = {path.relative_to(tmp_path) for path in ahead.read_ahead(recipe)}
    there = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.safetensors")}
    assert asked == there
    assert len(asked) == 5


def test_no_more_is_asked_for_than_half_of_the_memory_holds(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (tmp_path / "base" / "model.safetensors").stat().st_size
    monkeypatch.setattr(ahead, "_available", lambda: 2 * size + 2)
    assert [path.parent.name for path in ahead.read_ahead(recipe)] == ["base"]
    monkeypatch.setattr(ahead, "_available", lambda: 0)
    assert ahead.read_ahead(recipe) == []


def test_what_cannot_be_read_ahead_is_left(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("no such wish")

    monkeypatch.setattr(os, "posix_fadvise", refused)
    assert ahead.read_ahead(recipe) == []
    gone = Source(str(tmp_path / "gone"))
    assert ahead.read_ahead(Recipe(gone, (gone,), AVERAGE, dtype="float32")) == []

"""Recipes: what is refused of them, and that they are kept whole."""

from __future__ import annotations

import json

import pytest
from training_runs import CONFIG

from denoise_se.errors import UsageError
from denoise_se.training_config import TrainingConfig


@pytest.mark.parametrize(
    "values",
    [
        {"batch": 0}, {"patch": "16"}, {"steps": 1.5}, {"steps": 0, "minutes": 0}, {"minutes": -1}, {"loss": "l2"},
        {"precision": "fp8"}, {"learning_rate": "1e-3"}, {"learning_rate": 0.0}, {"ema": 1.0}, {"seed": -1},
        {"seed": True}, {"compile": 1}, {"warmup_steps": -1}, {"unknown": 1}, {"network": {"widths": "wide"}},
    ],
    ids=str,
)  # fmt: skip
def test_recipes_that_make_no_sense_are_usage_errors(values: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(values)) if "network" not in values else "widths"):
        TrainingConfig.from_dict({"steps": 8, **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 3}, "'stepz' is no field of a recipe; those are network, noise, steps, minutes"),
        ({1: 2}, "1 is no field of a recipe"),
        ({"steps": 3.5}, "steps is 3.5, not a whole number$"),
        ({"minutes": "ten"}, "minutes is 'ten', not a number$"),
        ({"learning_rate": "1e-3"}, "not a number; YAML takes 1e-3 for text, write 0.001"),
        ({"noise": {"gaussian": 25}}, "noise is {'gaussian': 25}, not a text such as gaussian:5-50"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said_in_its_own_words(values: dict[object, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainingConfig.from_dict(values)


def test_a_recipe_survives_its_own_dictionary() -> None:
    assert TrainingConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG

"""Settings as JSON and back: what only Python can hold stays with the recipe, and the rest is checked against it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from experiments.experiment.config_json import merged, to_json
from metarl.errors import UserError


@dataclass(frozen=True)
class Range:
    low: float
    high: float


def test_a_whole_number_of_a_recipe_may_become_a_fraction():
    assert merged(Range(0, 1), {"high": 0.5}, "config") == Range(0, 0.5)


@dataclass(frozen=True)
class Settings:
    file: Path
    reward: Callable[[], float]
    ranges: Mapping[str, Range]
    sizes: tuple[int, ...] = (1, 2)
    horizon: int = 5
    flag: bool = False
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"horizon is {self.horizon}: must be at least 1")


def reward() -> float:
    return 1.0


SETTINGS = Settings(Path("/a/robot.xml"), reward, {"opt.gravity": Range(0.0, 1.0)})


def test_settings_go_to_json_without_what_only_python_holds():
    values = json.loads(json.dumps(to_json(SETTINGS)))
    assert values.pop("of_recipe") == ["reward"]
    assert values == {
        "file": "/a/robot.xml",
        "ranges": {"opt.gravity": {"low": 0.0, "high": 1.0}},
        "sizes": [1, 2],
        "horizon": 5,
        "flag": False,
        "limit": None,
    }
    assert "of_recipe" not in to_json(Range(0.0, 1.0))


def test_they_come_back_over_the_recipes_own():
    changed = Settings(Path("/b.xml"), reward, {"opt.gravity": Range(0.5, 1.0)}, (3,), 7, True, 2.0)
    values = json.loads(json.dumps(to_json(changed)))
    del values["of_recipe"]
    assert merged(SETTINGS, values, "config") == changed
    assert merged(changed, {"limit": None}, "config").limit is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"horizont": 3}, "config.horizont is not in the recipe: did you mean horizon?"),
        ({"horizon": "3"}, "config.horizon is '3': the recipe has 5 there"),
        ({"horizon": True}, "config.horizon is True: the recipe has 5 there"),
        ({"ranges": {"opt.gravity": {"low": [0]}}}, "config.ranges.opt.gravity.low is [0]: the recipe has 0.0 there"),
        ({"ranges": {"mass": {}}}, "config.ranges.mass is not in the recipe: must be one of opt.gravity"),
        ({"ranges": 3}, "config.ranges is 3: must be an object"),
        ({"horizon": None}, "config.horizon is None: it must be of the kind that the recipe has there"),
        ({"ranges": {"opt.gravity": {"low": None}}}, "config.ranges.opt.gravity.low is None: it must be of the kind"),
        ({"horizon": 0}, "config: horizon is 0: must be at least 1"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], message: str):
    with pytest.raises(UserError) as error:
        merged(SETTINGS, values, "config")
    assert str(error.value).startswith(message)

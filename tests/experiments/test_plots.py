"""The figure of a run: one colour for one point, hollow points beyond training, and intervals of bounds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.cli import plots
from experiments.experiment.definition import Expected
from metarl.evaluation import ADAPTED_RETURN, RETURN, Evaluation, Measure
from metarl.run.directory import Run

PARTS = {"p10": 0.5, "p50": 1.0, "p90": 2.0}  # of what was drawn, by quantile


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


def run_with(tmp_path: Path, *rows: dict[str, float]) -> Run:
    run = Run.create_at(tmp_path / "run", {"family": {}}, ["test"], ("json",))
    for step, row in enumerate(rows, start=1):
        run.log(row, step)
    run.close()
    return run


def colours(axes: Axes) -> dict[str, str]:
    return {str(line.get_label()): str(line.get_color()) for line in axes.lines}


def test_a_point_has_one_colour_on_training_and_on_test_tasks(axes, tmp_path):
    """Trained on steps 0 and 1, tested up to step 3: step 3 is not step 1's colour, and step 1 is shown for both."""
    row = {f"meta_train/return/step_{k}": float(k) for k in (0, 1)}
    row |= {f"meta_test/return/step_{k}": float(k) for k in (0, 1, 2, 3)}
    plots._draw_learning(axes, run_with(tmp_path, row, row), ADAPTED_RETURN)
    found = colours(axes)
    assert set(found) == {
        "step 0, training tasks",
        "step 1, training tasks",
        "step 0, test tasks",
        "step 1, test tasks",
        "step 3, test tasks",
    }
    for step in (0, 1):
        assert found[f"step {step}, training tasks"] == found[f"step {step}, test tasks"]
    assert len(set(found.values())) == 3


@pytest.mark.parametrize(("trained", "tested"), [((1, 2), (1, 2)), ((1, 4), (1, 2, 4)), ((), (1, 3)), ((1,), (1,))])
def test_different_points_never_share_a_colour(axes, tmp_path, trained, tested):
    row = {f"meta_train/return/ep_{k}": 1.0 for k in trained} | {f"meta_test/return/ep_{k}": 2.0 for k in tested}
    plots._draw_learning(axes, run_with(tmp_path, row), RETURN)
    by_point: dict[str, set[str]] = {}
    for label, colour in colours(axes).items():
        by_point.setdefault(label.split(",")[0], set()).add(colour)
    assert all(len(found) == 1 for found in by_point.values())
    assert len(set.union(*by_point.values())) == len(by_point)


def curve(trained: int | None, num_points: int = 4, measure: Measure = RETURN) -> Evaluation:
    scores = torch.arange(num_points * 6.0).reshape(num_points, 6)
    bounds = {"exact": scores + 1, "mean": [3.0] * num_points}
    known: dict[str, Any] = {"family": "a", "agent": "ours", "split": "test", "bounds": bounds}
    return Evaluation.of(scores, measure=measure, trained_points=trained, **known)


@pytest.mark.parametrize(("trained", "solid"), [(2, 2), (4, 4), (9, 4), (None, 4), (1, 1)])
def test_points_beyond_training_are_hollow(axes, trained, solid):
    plots._draw_adaptation(axes, curve(trained), {})
    lines = {str(line.get_label()): line for line in axes.lines}
    assert len(lines["ours"].get_xdata()) == solid
    assert ("beyond training" in lines) == (solid < 4)
    if solid < 4:
        assert list(lines["beyond training"].get_xdata()) == list(range(solid, 5))
        assert lines["beyond training"].get_markerfacecolor() == "white"


def test_a_bound_that_is_known_in_each_task_is_drawn_with_its_interval(axes):
    plots._draw_adaptation(axes, curve(None), curve(None).bounds)
    assert len(axes.collections) == 2  # that of "exact", and our bars; "mean" has none
    assert {"exact", "mean", "ours"} <= set(colours(axes))


def test_one_is_singular(axes, tmp_path):
    row = {"train/query_mse": 1.0} | {f"meta_test/mse/shot_{k}": 1.0 for k in (0, 1, 5)}
    plots._draw_scores(axes, run_with(tmp_path, row), Measure("mse", "shot", 0, higher_is_better=False))
    assert {"test tasks, 0 shots", "test tasks, 1 shot", "test tasks, 5 shots"} <= set(colours(axes))


def test_a_bound_has_its_own_colour_whichever_others_there_are():
    alone, among = plots._colours_of(["oracle"]), plots._colours_of(["ppo_hidden", "gittins", "oracle", "random"])
    assert alone["oracle"] == among["oracle"]
    assert len({*among.values(), *plots._POINT_COLOURS}) == len(among) + len(plots._POINT_COLOURS)


@pytest.mark.parametrize(
    ("expected", "place"),
    [
        (Expected("us", at_least=3.0, point=2), 2.0),
        (Expected("us", at_least=3.0), None),  # of the whole trial: it has no place on the axis of episodes
        (Expected("us", at_least=3.0, point=9), None),
    ],
)
def test_what_is_expected_at_a_point_is_a_line_over_it(axes, expected, place):
    plots._draw_adaptation(axes, curve(None), {}, expected)
    lines = [line for line in axes.lines if str(line.get_label()).startswith("expected")]
    assert [float(sum(line.get_xdata()) / 2) for line in lines] == ([] if place is None else [place])


def test_the_title_has_the_seed_the_commit_and_the_settings_that_the_command_gave(tmp_path):
    command = ["metarl", "train", "x/y", "--seed", "4", "--agent.head-sizes", "8", "9", "--run-dir", "r"]
    run = Run.create_at(tmp_path / "run", {"seed": 4, "train": {"num_iterations": 1200}}, command, ("json",))
    first, second = plots._title(run, curve(None)).splitlines()
    assert first.startswith("a · ours · seed 4 · 1,200 iterations")
    assert second == "--agent.head-sizes 8 9"


def test_the_gain_is_in_the_title_of_the_curve(axes):
    plots._draw_adaptation(axes, curve(None), {})
    assert "gain of episode 4 over 1, paired by task: 18 (18 to 18)" in axes.get_title()


def test_agents_that_collect_from_the_prior_and_the_posterior_show_both(axes, tmp_path):
    row = {"meta_train/return/prior": 1.0, "meta_train/return/posterior": 2.0, "meta_test/return/ep_1": 1.0}
    plots._draw_learning(axes, run_with(tmp_path, row | {"meta_test/return/ep_2": 2.0}), RETURN)
    found = colours(axes)
    assert found["prior, training tasks"] == found["episode 1, test tasks"]
    assert found["posterior, training tasks"] == found["episode 2, test tasks"]


def test_what_a_sampler_drew_is_drawn_for_each_number_of_a_task(tmp_path):
    rows = [
        {f"sampler/{name}/{part}": value * step for name in ("goal.0", "wind") for part, value in PARTS.items()}
        for step in (1, 2, 3)
    ]
    run = run_with(tmp_path, {"train/loss": 1.0}, *rows)
    assert plots.sampled_parameters(run.progress()) == ["goal.0", "wind"]
    assert plots.plot_sampled_tasks(run) == run.path / "sampled_tasks.png"
    assert (run.path / "sampled_tasks.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_a_sampler_has_no_picture_of_it(tmp_path):
    run = run_with(tmp_path, {"meta_train/return/ep_1": 1.0})
    assert plots.plot_sampled_tasks(run) is None
    assert not (run.path / "sampled_tasks.png").exists()

"""Runs compared: grouped by what differs, refused where their scores are other quantities, and drawn."""

import csv
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.workbench.comparing.comparison import compare
from experiments.workbench.comparing.runs import read_runs
from metarl.errors import UserError
from tests.experiments.command import run as metarl

NUM_TASKS = 12


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_run(
    name: str,
    agent: str = "promp",
    seed: int = 0,
    *,
    better: float = 0.0,
    changes: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """A finished run, as far as a comparison reads it."""
    path = Path(name)
    path.mkdir(parents=True)
    config = {
        "experiment": f"point_navigation/{agent}",
        "family": {"class": "envs:PointNavigation", "horizon": 20},
        "agent": {"class": f"agents:{agent}", "inner_lr": 0.1},
        "train": {"num_iterations": 10, "num_tasks": 4},
        "seed": seed,
        "device": "cpu",
        "expected": None,
    }
    for field, value in (settings or {}).items():
        part, inner = field.split(".")
        config[part] = {**config[part], inner: value}
    (path / "config.json").write_text(json.dumps(config))
    tasks = np.random.default_rng(7).normal(-20, 5, NUM_TASKS)
    noise = np.random.default_rng([seed, len(agent)]).normal(0, 1, (3, NUM_TASKS))
    content = {
        "family": "point_navigation",
        "agent": agent,
        "split": "test",
        "num_tasks": NUM_TASKS,
        "measure": {"name": "return", "point": "step", "first": 0, "higher_is_better": True},
        "facts": {},
        "per_task": {"scores": (tasks + noise + np.array([[0.0], [3.0], [4.0]]) + better).tolist()},
        "tasks_hash": "abc",
        "checkpoint": "latest",
        "iteration": 10,
        **(evaluation or {}),
    }
    (path / "evaluation_test.json").write_text(json.dumps(content))
    rows = [
        {"time/total_timesteps": 100 * k, "time/time_elapsed": 2.0 * k + seed, "meta_test/iqm": -20.0 + k + better}
        for k in range(1, 5)
    ]
    (path / "progress.json").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for name, value in (changes or {}).items():
        (path / name).write_text(value)
    return path


def make_six() -> list[str]:
    """Two agents of three seeds; the second is better."""
    return [
        str(make_run(f"runs/{agent}_{seed}", agent, seed, better=better))
        for agent, better in (("promp", 0.0), ("maml_trpo", 2.0))
        for seed in range(3)
    ]


# Groups


def test_runs_that_differ_only_in_the_seed_are_one_group():
    runs = read_runs(make_six(), "test")
    assert [(group.label, [run.seed for run in group.runs]) for group in runs.groups] == [
        ("maml_trpo", [0, 1, 2]),
        ("promp", [0, 1, 2]),
    ]
    assert runs.groups[0].scores.shape == (3, NUM_TASKS, 3)


def test_groups_of_one_agent_are_named_by_what_differs():
    for seed, rate in ((0, 0.1), (1, 0.1), (0, 0.2)):
        make_run(f"runs/{seed}_{rate}", seed=seed, settings={"agent.inner_lr": rate})
    runs = read_runs(["runs"], "test")
    assert [(group.label, group.missing) for group in runs.groups] == [
        ("promp inner_lr=0.1", []),
        ("promp inner_lr=0.2", [1]),
    ]


def test_groups_of_one_agent_that_have_a_recipe_each_are_named_by_it():
    for seed, rate, recipe in ((0, 0.1, "promp"), (1, 0.1, "promp"), (0, 0.2, "promp_paper")):
        path = make_run(f"runs/{seed}_{rate}", seed=seed, settings={"agent.inner_lr": rate})
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, "experiment": f"point_navigation/{recipe}"}))
    assert [group.label for group in read_runs(["runs"], "test").groups] == ["promp", "promp_paper"]
    make_run("runs/another_rate", settings={"agent.inner_lr": 0.3})  # of the first recipe
    labels = [group.label for group in read_runs(["runs"], "test").groups]
    assert labels == ["promp inner_lr=0.1", "promp inner_lr=0.2", "promp inner_lr=0.3"]


def test_runs_are_grouped_by_a_field_or_an_agent_where_that_is_asked():
    for seed, rate, tasks in ((0, 0.1, 4), (1, 0.1, 8), (0, 0.2, 8)):
        make_run(f"runs/{seed}_{rate}", seed=seed, settings={"agent.inner_lr": rate, "train.num_tasks": tasks})
    assert [group.label for group in read_runs(["runs"], "test", "agent").groups] == ["promp"]
    by_field = read_runs(["runs"], "test", "agent.inner-lr").groups
    assert [(group.label, len(group.runs)) for group in by_field] == [
        ("agent.inner_lr=0.1", 2),
        ("agent.inner_lr=0.2", 1),
    ]
    with pytest.raises(UserError, match=r"--by is 'agent.outer'; no run has that field"):
        read_runs(["runs"], "test", "agent.outer")


def test_a_seed_that_was_run_twice_counts_once_and_that_is_said():
    make_run("runs/a", seed=1)
    make_run("runs/b", seed=1, better=5.0)
    runs = read_runs(["runs"], "test")
    assert [str(run.path) for run in runs.groups[0].runs] == ["runs/b"]
    assert runs.notes == ["promp has a seed more than once; the run of the last name counts"]


def test_runs_without_an_evaluation_are_named_and_not_compared():
    make_six()
    Path("runs/promp_1/evaluation_test.json").unlink()
    comparison = compare(read_runs(["runs"], "test"))
    assert [row.missing for row in comparison.rows] == [[], [1]]
    assert "not evaluated on test: runs/promp_1" in comparison.notes


def test_the_order_of_the_arguments_does_not_matter(capsys):
    paths = make_six()
    outputs = [metarl(capsys, "compare", *given)[1] for given in (paths, paths[::-1], ["runs"], ["runs/*", paths[0]])]
    assert len(set(outputs)) == 1
    assert "maml_trpo" in outputs[0]


def test_the_largest_evaluation_that_all_runs_have_is_compared():
    first, second = make_run("runs/a"), make_run("runs/b", seed=1)
    small = json.loads((first / "evaluation_test.json").read_text())
    large = {**small, "per_task": {"scores": [[1.0] * 50] * 3}, "num_tasks": 50, "tasks_hash": "large"}
    (first / "evaluation_test_50x2_i10_s0.json").write_text(json.dumps(large))
    assert [len(run.scores) for run in read_runs(["runs"], "test").groups[0].runs] == [NUM_TASKS] * 2
    (second / "evaluation_test_50x2_i10_s0.json").write_text(json.dumps(large))
    assert [len(run.scores) for run in read_runs(["runs"], "test").groups[0].runs] == [50, 50]
    (second / "evaluation_test_50x2_i10_s0.json").rename(second / "evaluation_test_50x2_agent.x=3_i10_s0.json")
    assert [len(run.scores) for run in read_runs(["runs"], "test").groups[0].runs] == [NUM_TASKS] * 2


# What cannot be compared


@pytest.mark.parametrize(
    ("different", "message"),
    [
        ({"evaluation": {"tasks_hash": "xyz"}}, 'test tasks is "abc" in runs/a and "xyz" in runs/b'),
        ({"settings": {"family.horizon": 50}}, "family.horizon is 20 in runs/a and 50 in runs/b"),
        (
            {"evaluation": {"facts": {"normalisation": "batch"}}},
            'normalisation is null in runs/a and "batch" in runs/b',
        ),
        ({"evaluation": {"per_task": {"scores": [[0.0] * NUM_TASKS] * 2}}}, "number of points is 3 in runs/a and 2 in"),
        ({"evaluation": {"per_task": {"scores": [[0.0] * 5] * 3}}}, "number of test tasks is 12 in runs/a and 5 in"),
        ({"evaluation": {"family": "semicircle"}}, 'family is "point_navigation" in runs/a and "semicircle" in runs/b'),
        (
            {"evaluation": {"measure": {"name": "return", "point": "episode", "first": 1, "higher_is_better": True}}},
            'what a point of the curve counts is "step" in runs/a and "episode" in runs/b',
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_naming_what_differs(capsys, different, message):
    make_run("runs/a")
    make_run("runs/b", seed=1, **different)
    status, output, errors = metarl(capsys, "compare", "runs/b", "runs/a")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert "these runs cannot be compared: " in errors
    assert message in errors


def of_points(point: str, first: int, experience: list[int], spread: float = 1.0) -> dict[str, Any]:
    """An evaluation whose points come after so many episodes of experience."""
    tasks = np.random.default_rng(7).normal(-20, 5, NUM_TASKS)
    return {
        "measure": {"name": "return", "point": point, "first": first, "higher_is_better": True},
        "experience": experience,
        "per_task": {"scores": [list(tasks + spread * index) for index in range(len(experience))]},
    }


def test_agents_whose_points_differ_share_the_axis_of_episodes_of_experience(capsys):
    make_run("a", "promp", evaluation=of_points("step", 0, [0, 20, 40]))
    make_run("b", "rl2", evaluation=of_points("episode", 1, [0, 1, 2, 3]))
    comparison = compare(read_runs(["a", "b"], "test"))
    assert comparison.by_experience
    assert [row.adaptation.places for row in comparison.rows] == [[0, 20, 40], [0, 1, 2, 3]]
    assert "episodes of experience in the task before the last point: 40 in promp, 3 in rl2" in comparison.notes
    assert metarl(capsys, "compare", "a", "b", "--out", "c.png")[0] == 0


def test_points_of_equal_experience_keep_their_own_axis():
    make_run("a", "promp", evaluation=of_points("step", 0, [0, 20, 40]))
    make_run("b", "maml", evaluation=of_points("step", 0, [0, 20, 40]))
    comparison = compare(read_runs(["a", "b"], "test"))
    assert not comparison.by_experience
    assert comparison.rows[0].adaptation.places == [0, 1, 2]


def test_points_of_one_group_must_be_the_same():
    make_run("a", "promp", evaluation=of_points("step", 0, [0, 20, 40]))
    make_run("b", "promp", seed=1, evaluation=of_points("step", 0, [0, 20]))
    with pytest.raises(UserError, match=r"cannot be one group, promp: the points of a and b differ"):
        read_runs(["a", "b"], "test")


def test_the_difference_of_two_groups_is_paired_by_task():
    make_run("a", "promp", evaluation=of_points("step", 0, [0, 20], spread=3.0))
    make_run("b", "rl2", evaluation=of_points("step", 0, [0, 20], spread=1.0))
    (pair,) = compare(read_runs(["a", "b"], "test")).improvements
    assert (pair.group, pair.over) == ("promp", "rl2")
    assert pair.difference == pytest.approx((2.0, 2.0, 2.0))  # in every task, though tasks differ by far more


def test_families_that_are_compared_themselves_are_marked_in_place_of_refused():
    make_run("runs/a")
    make_run("runs/b", settings={"family.horizon": 50}, evaluation={"tasks_hash": "xyz"})
    comparison = compare(read_runs(["runs"], "test", "family.horizon"))
    assert [row.label for row in comparison.rows] == ["family.horizon=20", "family.horizon=50"]
    assert comparison.improvements == []
    assert "not the same tasks: family.horizon is 20 in runs/a and 50 in runs/b" in comparison.notes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config.json": "{"}, "cannot read runs/a/config.json"),
        ({"config.json": "{}"}, "runs/a/config.json lacks 'train'"),
        ({"evaluation_test.json": "{"}, "cannot read runs/a/evaluation_test.json"),
        ({"evaluation_test.json": "[]"}, "cannot read runs/a/evaluation_test.json"),
        (
            {"evaluation_test.json": '{"iteration": 10, "num_tasks": 3}'},
            "make another with: metarl evaluate runs/a --split test",
        ),
        (
            {"evaluation_test.json": '{"iteration": 9, "num_tasks": 3}'},
            "none of 1 runs has an evaluation on the split test",
        ),
    ],
)
def test_a_run_that_cannot_be_read_is_one_line(capsys, changes, message):
    make_run("runs/a", changes=changes)
    status, _, errors = metarl(capsys, "compare", "runs/a")
    assert (status, errors.count("\n")) == (2, 1)
    assert message in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "which runs?"),
        (("nowhere",), "there is no run at nowhere: no such directory"),
        (("runs/*_9",), "there is no run at runs/*_9"),
        (("runs", "--csv", "--json"), "--json and --csv are both given"),
        (("runs", "--out", "a.gif"), "--out is 'a.gif'; must end in .png, .svg, .pdf"),
        (("runs", "--out", "nowhere/a.png"), "cannot write nowhere/a.png: No such file or directory"),
        (("runs", "--split", "ood"), "none of 6 runs has an evaluation on the split ood"),
    ],
)
def test_a_wrong_command_is_one_line(capsys, words, message):
    make_six()
    status, output, errors = metarl(capsys, "compare", *words)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert message in errors


def test_a_run_deleted_while_it_is_compared_is_one_line(capsys, monkeypatch):
    paths = make_six()
    monkeypatch.setattr("experiments.workbench.comparing.runs.flat", lambda values: shutil.rmtree(paths[0]) or {})
    status, _, errors = metarl(capsys, "compare", paths[0])
    assert (status, errors.count("\n")) == (2, 1)


# Numbers, tables and the figure


def test_the_numbers_are_those_of_all_seeds_and_tasks():
    make_six()
    comparison = compare(read_runs(["runs"], "test"))
    better, worse = comparison.rows
    scores = np.stack([run.scores for run in read_runs(["runs"], "test").groups[0].runs])[..., -1]
    middle = np.sort(scores.ravel())[9:-9]
    assert better.last.value == pytest.approx(middle.mean())
    assert better.last.low is not None
    assert better.last.low < better.last.value < (better.last.high or 0)
    assert better.gain is not None
    assert better.gain.value == pytest.approx(4, abs=1)
    assert worse.over_seeds.low is not None
    assert worse.over_seeds.low < worse.last.value < (worse.over_seeds.high or 0)
    (improvement,) = comparison.improvements
    assert (improvement.group, improvement.over) == ("maml_trpo", "promp")
    assert improvement.probability.value > 0.8
    assert better.learning["samples"].places[0] == 100
    assert better.learning["seconds"].places == pytest.approx(np.linspace(4, 8, 60).tolist())
    assert better.learning["samples"].estimates[-1].value == pytest.approx(-14)


def test_an_error_is_better_where_it_is_lower():
    measure = {"name": "mse", "point": "step", "first": 0, "higher_is_better": False}
    for agent, better in (("promp", 0.0), ("maml_trpo", 2.0)):
        for seed in range(2):
            make_run(f"runs/{agent}_{seed}", agent, seed, better=better, evaluation={"measure": measure})
    comparison = compare(read_runs(["runs"], "test"))
    assert comparison.improvements[0].probability.value < 0.2
    assert comparison.rows[0].gain is not None
    assert comparison.rows[0].gain.value < 0


def test_one_seed_is_compared_over_tasks_and_that_is_said():
    make_run("runs/a")
    comparison = compare(read_runs(["runs/a"], "test"))
    assert comparison.rows[0].last.low is not None
    assert comparison.rows[0].last.low < comparison.rows[0].last.value
    assert any("over tasks only" in note for note in comparison.notes)


def test_tables_hold_the_same_rows_in_every_format(capsys):
    make_six()
    shutil.rmtree("runs/promp_2")
    printed = metarl(capsys, "compare", "runs")[1]
    numbers = json.loads(metarl(capsys, "compare", "runs", "--json")[1])
    rows = list(csv.DictReader(io.StringIO(metarl(capsys, "compare", "runs", "--csv")[1])))
    markdown = metarl(capsys, "compare", "runs", "--markdown")[1]
    latex = metarl(capsys, "compare", "runs", "--latex")[1]
    assert [row["label"] for row in numbers["rows"]] == [row["agent"] for row in rows] == ["maml_trpo", "promp"]
    assert [float(row["step_2"]) for row in rows] == [row["last"][0] for row in numbers["rows"]]
    assert [(row["seeds"], row["missing"]) for row in rows] == [("3", ""), ("2", "2")]
    value = f"{float(rows[0]['step_2']):.2f}"
    assert all(value in text for text in (printed, markdown, latex))
    assert len({line.count("|") for line in markdown.splitlines()}) == 1
    assert r"\textbf{maml\_trpo} & 3 &" in latex
    assert latex.count(r"\\") == 3


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_figure_is_drawn_in_every_format(capsys, suffix):
    make_six()
    status, output, _ = metarl(capsys, "compare", "runs", "--out", f"compare.{suffix}")
    assert (status, output.splitlines()[-1]) == (0, f"Figure: compare.{suffix}")
    assert Path(f"compare.{suffix}").stat().st_size > 10_000

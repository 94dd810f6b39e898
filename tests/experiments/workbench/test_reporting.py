"""A report is one file that needs no network, holds all there is to know of its runs, and runs nothing of theirs."""

import errno
import json
import math
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from experiments.cli import plots
from experiments.workbench.reporting import figures, palette
from experiments.workbench.reporting.analysis import gaps, plane_maps, tails, task_maps, time_split, worst_tasks
from experiments.workbench.reporting.runs import MOST_MEDIA, read_run
from experiments.workbench.reporting.settings import Setting, changed_settings
from metarl.evaluation import Evaluation, Measure
from metarl.run.directory import Run
from tests.experiments.command import run as metarl
from tests.experiments.workbench.reported_runs import MP4, NUM_TASKS, PNG, evaluation, make_run, row

EVIL = "<script>alert(1)</script>"
SECTIONS = (
    "In short",
    "What was run",
    "Failures and warnings",
    "Adaptation",
    "Train, test and ood",
    "Score by task",
    "What the state tells of the task",
    "Diagnosis",
    "Learning",
    "Where the time went",
    "Videos of adaptation",
    "Exploration",
)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


class Page(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and its text outside of scripts."""

    def __init__(self, path: str = "report.html") -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._raw = ""
        self.feed(Path(path).read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._raw = "" if tag == self._raw else self._raw

    def handle_data(self, data: str) -> None:
        if self._raw == "script":
            self.scripts.append(data)
        elif not self._raw:
            self.texts.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.texts))

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]

    @property
    def charts(self) -> list[dict[str, Any]]:
        """The JSON of each chart."""
        return [json.loads(script) for script in self.scripts if script.startswith('{"data"')]


def report(capsys, *words: str) -> Page:
    status, output, errors = metarl(capsys, "report", *words)
    assert (status, errors) == (0, "")
    assert re.fullmatch(r"Report: report.html \(\d+ runs?, \d+\.\d MB\)\n", output)
    return Page()


# One file


def test_a_report_has_all_sections_and_needs_no_network(capsys):
    make_run("runs/a", files={"videos/test_s0.mp4": MP4, "exploration.png": PNG})
    page = report(capsys, "runs/a")
    assert all(section in page.texts for section in SECTIONS)
    addresses = [value for _, found in page.elements for name, value in found.items() if name in ("src", "href")]
    assert len(addresses) == 2
    assert all(value is not None and value.startswith("data:") for value in addresses)
    assert not page.all("link") + page.all("iframe") + page.all("object")
    assert "@import" not in Path("report.html").read_text()[:20_000]
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert str(policy["content"]).startswith("default-src 'none'; script-src 'sha256-")
    assert "'unsafe-eval'" not in str(policy["content"])


def test_its_numbers_are_those_of_the_evaluations(capsys):
    make_run("runs/a")
    page, test = report(capsys, "runs/a"), evaluation()
    assert "metarl train point_navigation/rl2 --seed 0" in page.text
    assert f"{test.points[0].mean:.2f} ({test.points[0].ci95[0]:.2f} to {test.points[0].ci95[1]:.2f})" in page.text
    assert test.gain is not None
    assert f"{test.gain.mean:.2f} ({test.gain.ci95[0]:.2f} to {test.gain.ci95[1]:.2f})" in page.text
    assert "hash of ood" in page.text
    assert "90 % of the way from random to oracle" in page.texts
    adaptation = next(chart for chart in page.charts if "episode of the trial" in json.dumps(chart["layout"]))
    names = [trace.get("name") for trace in adaptation["data"]]
    bounds, expected = ["oracle (bound)", "random (bound)"], "expected: at least 100"
    assert names == [None, *bounds, "rl2", None, "rl2, beyond training", expected]
    assert adaptation["data"][3]["y"] == pytest.approx([point.mean for point in test.points[:3]], rel=1e-4)


PROBE = {
    "split": "test",
    "iteration": 20,
    "point": "episode",
    "num_fitted": 50,
    "num_held_out": 51,
    "state_size": 32,
    "probes": [
        {
            "parameter": "goal",
            "measure": "R2",
            "size": 2,
            "chance": 0.0,
            "points": [
                {
                    "point": number,
                    "score": {"mean": 0.875 * number, "ci95": [0.8 * number, 0.9 * number]},
                    "control": {"mean": -0.25, "ci95": [-0.5, 0.0]},
                    "known": None,
                }
                for number in (0, 1)
            ],
        }
    ],
}
FINDING = {"detector": "memorisation", "level": "warning", "verdict": f"memorised {EVIL}"}


def test_the_newest_probe_and_diagnosis_are_shown_with_their_images(capsys):
    files = {"probe_test_101x1_i20_s0": PROBE, "diagnosis_latest_s0": {"findings": [FINDING]}}
    written = {f"{name}.json": json.dumps(content).encode() for name, content in files.items()}
    images = {f"{name}_{image}.png": PNG for name, image in zip(files, ("states", "transfer"), strict=True)}
    make_run("runs/a", files={**written, **images})
    page = report(capsys, "runs/a")
    assert "32 numbers of state learned each parameter on 50 test tasks and were tested on 51 others" in page.text
    assert "goal (2 numbers) 1 R2 0.875 0.800 to 0.900 -0.250" in page.text
    assert f"memorisation warning memorised {EVIL}" in page.text
    described = " ".join(str(found["alt"]) for found in page.all("img"))
    assert "States of tasks in the plane" in described
    assert "Score in each task after adapting to each other task" in described


def test_a_run_that_was_not_probed_says_how_and_damaged_results_are_problems(capsys):
    path = make_run("runs/a")
    page = report(capsys, "runs/a")
    assert re.search("it was not probed *. Make it with metarl probe runs/a", page.text)
    (path / "probe_test_101x1_i20_s0.json").write_text(json.dumps({**PROBE, "probes": [3]}))
    (path / "diagnosis_latest_s0.json").write_text("[]")
    page = report(capsys, "runs/a")
    assert "cannot read probe_test_101x1_i20_s0.json: probes.0" in page.text
    assert "cannot read diagnosis_latest_s0.json" in page.text


def test_every_chart_has_a_name_and_a_caption_and_every_table_headings_that_sort(capsys):
    make_run("runs/a")
    page = report(capsys, "runs/a")
    charts = page.all("div", role="group")
    assert len(charts) == len(page.charts) == 7  # three of the goal among them
    ids = {found["id"] for _, found in page.elements if "id" in found}
    for chart in charts:
        assert {*str(chart["aria-labelledby"]).split(), chart["data-source"]} <= ids
    assert len(page.all("figcaption")) == len(charts)
    headings = page.all("th", scope="col")
    assert len(headings) == len(page.all("th", **{"aria-sort": "none"})) == len(page.all("button", type="button"))
    assert len(page.all("th")) == len(headings) + len(page.all("th", scope="row"))
    assert all("data-key" in cell for cell in page.all("td"))
    assert len(page.all("caption")) == len(page.all("table"))


def test_many_runs_stay_small_and_share_the_room_for_videos(capsys):
    large = MP4 + bytes(MOST_MEDIA // 2 - 1000)
    for seed in range(4):
        make_run(f"runs/{seed}", seed=seed, files={"videos/test_s0.mp4": large, "videos/test_s1.mp4": MP4})
    page = report(capsys, "runs")
    assert "videos/test_s0.mp4: left out, as it has 2.5 MB" in page.text
    assert len(page.all("video")) == 4
    plotly, of_each_run = len(get_plotlyjs()), 150_000
    assert Path("report.html").stat().st_size < plotly + 4 * of_each_run
    assert plotly + 20 * of_each_run + MOST_MEDIA * 4 / 3 < 15_000_000


def test_several_runs_are_compared_and_listed(capsys):
    for agent, better in (("rl2", 0.0), ("rl2_long", 1.0)):
        for seed in range(2):
            settings = {"class": "agents.rl2:RL2Config", "hidden_size": 32 + int(better)}
            config = {"experiment": f"point_navigation/{agent}", "agent": settings}
            path = make_run(f"runs/{agent}_{seed}", seed=seed, better=better, config=config)
            (path / "evaluation_test.json").write_text(same_tasks(path))
    page = report(capsys, "runs")
    assert {"4 runs", "The runs", "Comparison on point_navigation"} <= set(page.texts)
    assert [link["href"] for link in page.all("a")] == ["#run-1", "#run-2", "#run-3", "#run-4"]
    assert len(page.all("details", **{"class": "run"})) == 4
    assert "rl2_long (2 seeds)" in json.dumps(page.charts)
    assert "Probability of improvement" in page.texts
    assert "95 %, paired by task" in page.texts


def same_tasks(path: Path) -> str:
    return json.dumps({**json.loads((path / "evaluation_test.json").read_text()), "tasks_hash": "abc"})


def test_runs_that_cannot_be_compared_are_reported_without_a_comparison(capsys):
    make_run("runs/a")
    make_run("runs/b", config={"family": {"class": "envs.torch_families.navigation:PointNavigation", "horizon": 9}})
    page = report(capsys, "runs")
    assert "there is none: these runs cannot be compared: family.horizon is 20 in runs/a and 9 in runs/b" in page.text


# What comes from a run is shown, and not run


def test_markup_in_names_paths_and_warnings_is_text(capsys):
    name = "</script><b onload=alert(1)>{{ 7 * 7 }}"
    files = {
        "output.txt": f"metarl: warning {EVIL}\n".encode(),
        "traceback.txt": f"ValueError: {EVIL}".encode(),
        f"evaluation_{EVIL.replace('/', '')}.json": b"{",
    }
    path = make_run(f"runs/{EVIL.replace('/', '')}", agent=name, files=files, config={"experiment": EVIL})
    page = report(capsys, str(path))
    assert page.text.count(EVIL) == 4  # the recipe, the warning, and the error in short and in full
    assert f"runs/{EVIL.replace('/', '')}" in page.text
    assert name in page.text
    assert len(page.all("script")) == 3 + len(page.charts)  # the look, Plotly and the page's own
    assert not page.all("b")
    assert not [script for script in page.scripts if "alert(1)" in script and "</" in script]
    drawn = {trace.get("name") for chart in page.charts for trace in chart["data"]}
    assert "&lt;/script&gt;&lt;b onload=alert(1)&gt;{{ 7 * 7 }}" in drawn  # as Plotly reads text


def test_code_that_a_run_names_is_not_run(capsys, tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text("open('was_run', 'w')\n")
    own = {"class": "recipe:Config", "size": 3, "of_recipe": ["reward"]}
    make_run("runs/a", config={"experiment": str(recipe), "family": own})
    page = report(capsys, "runs/a")
    assert not Path("was_run").exists()
    assert "family.size" in page.texts
    assert "unknown" in page.texts  # its default


def test_files_outside_the_run_do_not_get_into_the_page(capsys, tmp_path):
    (tmp_path / "secret").write_bytes(b"a private key")
    (tmp_path / "secret.png").write_bytes(PNG)
    path = make_run("runs/a", files={"exploration.jpg": b"", "videos/note.mp4": b"no video"})
    for name in ("traceback.txt", "output.txt"):
        (path / name).symlink_to(tmp_path / "secret")
    (path / "exploration.png").symlink_to(tmp_path / "secret.png")
    page = report(capsys, "runs/a")
    assert "private key" not in page.text
    assert not page.all("img") + page.all("video")
    assert "exploration.png: cannot be read: it is a symbolic link" in page.text
    assert "note.mp4: left out, as it is not a file of the type video/mp4" in page.text


# What is missing or damaged


def test_what_a_run_lacks_is_said_with_the_command_that_makes_it(capsys):
    make_run("runs/a", splits=("test",))
    page = report(capsys, "runs/a")
    assert "metarl evaluate runs/a --split train" in page.texts
    assert "metarl evaluate runs/a --split ood" in page.texts
    assert "metarl play runs/a" in page.texts
    assert "3 environments diverged or crashed in training" in page.text
    assert "Expected in episode 4: at least 100 (our own aim); NOT reached" in page.text


def test_a_run_without_evaluation_or_log_is_reported(capsys):
    path = make_run("runs/a", splits=())
    (path / "progress.json").unlink()
    (path / "meta.json").write_text("[")
    page = report(capsys, "runs/a")
    assert "point_navigation · rl2 · runs/a" in page.texts
    assert "the training is not finished: 0 of 20 iterations" in page.text
    assert "the run has no evaluation" in page.text
    assert "meta.json is missing or damaged" in page.text
    assert page.charts == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "it: Input should be a dictionary or an instance of Evaluation"),
        ('{"family": "x"}', "agent: Field required"),
        ({"points": []}, "it has no points"),
        ({"bounds": {"oracle": [1.0]}}, "the bounds or metrics do not fit the points"),
        ({"per_task": {"scores": [[1.0, 2.0]]}}, "the scores by task do not fit the points"),
        ({"per_task": {"scores": [[1.0]] * 4, "parameters": {"goal": [1, 2]}}}, "the parameters of the tasks do not"),
    ],
)
def test_a_damaged_evaluation_is_named_and_the_rest_is_reported(content, reason):
    path = make_run("runs/a")
    file = path / "evaluation_test.json"
    text = content if isinstance(content, str) else json.dumps({**json.loads(file.read_text()), **content})
    file.write_text(text)
    run = read_run(path)
    assert list(run.evaluations) == ["train", "ood"]
    assert any(problem.text.startswith(f"cannot read evaluation_test.json: {reason}") for problem in run.problems)


def test_scores_that_are_not_finite_are_counted_and_left_out(capsys):
    path = make_run("runs/a")
    file = path / "evaluation_test.json"
    content = json.loads(file.read_text())
    content["per_task"]["scores"][-1][:6] = [None] * 6
    content["points"][-1]["mean"] = None
    file.write_text(json.dumps(content))
    page = report(capsys, "runs/a")
    assert f"scores are not finite on 6 of {NUM_TASKS} test tasks: it diverged there" in page.text
    assert "not finite" in page.texts
    assert "NaN" not in "".join(json.dumps(chart) for chart in page.charts)


def test_numbers_of_the_log_that_are_not_finite_are_left_out():
    path = make_run("runs/a", splits=())
    with (path / "progress.json").open("a") as file:
        file.write('{"time/total_timesteps": Infinity}\n')
        file.write('{"time/total_timesteps": 2100, "time/fps": NaN, "time/iterations": 21, "note": "x"}\n')
    run = read_run(path)
    assert run.rows[-2:] == [row(20, 0.0), {"time/total_timesteps": 2100.0, "time/iterations": 21.0}]


def test_an_evaluation_of_an_earlier_iteration_or_version_is_marked():
    path = make_run("runs/a")
    for split, change in (("test", {"iteration": 10}), ("train", {"per_task": None})):
        (file,) = path.glob(f"evaluation_{split}*.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    texts = [problem.text for problem in read_run(path).problems]
    assert "the evaluation on test tasks is of iteration 10, before the last one" in texts
    assert "the evaluation on train tasks lacks the scores by task, as it is of an earlier version" in texts


def test_an_evaluation_under_other_settings_is_listed_apart(capsys):
    path = make_run("runs/a")
    shutil.copy(path / "evaluation_test.json", path / "evaluation_test_60x4_agent.x=3_i20_s0.json")
    assert [saved.file for saved in read_run(path).others] == ["evaluation_test_60x4_agent.x=3_i20_s0.json"]
    assert "Other evaluations" in report(capsys, "runs/a").texts


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "which runs? metarl report RUN|GLOB..."),
        (("nowhere",), "there is no run at nowhere: no such directory"),
        (("runs/a", "nowhere"), "there is no run at nowhere: no such directory"),
        (("runs/a/*.json",), "there is no run at runs/a/*.json"),
        (("runs/a", "--out", "report.pdf"), "--out is 'report.pdf'; must end in .html"),
        (("runs/a", "--out", "nowhere/a.html"), "cannot write nowhere/a.html: there is no directory nowhere"),
        (("runs/b",), "cannot read runs/b/config.json"),
    ],
)
def test_a_wrong_command_is_one_line(capsys, words, message):
    make_run("runs/a")
    Path("runs/b").mkdir()
    Path("runs/b/config.json").write_text("{")
    status, output, errors = metarl(capsys, "report", *words)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert message in errors


def test_a_full_disk_is_one_line_and_keeps_the_report_before(capsys, monkeypatch):
    make_run("runs/a")
    Path("report.html").write_text("before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    status, output, errors = metarl(capsys, "report", "runs/a")
    assert (status, output, errors) == (2, "", "metarl: cannot write report.html: No space left on device\n")
    assert Path("report.html").read_text() == "before"


def test_a_run_deleted_while_it_is_reported_is_one_line(capsys, monkeypatch):
    make_run("runs/a")

    def open_and_delete(path: Path) -> Run:
        shutil.rmtree(path)
        return Run(path)

    monkeypatch.setattr("metarl.run.directory.Run.open", open_and_delete)
    status, output, errors = metarl(capsys, "report", "runs/a")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert "cannot read runs/a/config.json: No such file or directory" in errors


@pytest.mark.parametrize("package", ["plotly", "jinja2"])
def test_a_package_that_is_not_installed_is_one_line(capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    status, output, errors = metarl(capsys, "report", "runs/a")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert f"a report needs {package}, which is not installed: pip install 'metarl[workbench]'" in errors


# Numbers


def test_settings_that_differ_from_the_defaults_are_listed_with_them():
    config = {
        "family": {"class": "envs.torch_families.navigation:PointNavigation", "horizon": 20},
        "agent": {"class": "agents.rl2:RL2Config", "clip": 0.2, "gamma": 0.5, "memory": {"cell": "lstm", "span": None}},
        "train": {"num_iterations": 7},
    }
    assert changed_settings(config) == [
        Setting("family.horizon", "20", "100"),
        Setting("agent.gamma", "0.5", "0.99"),
        Setting("agent.memory.cell", "lstm", "gru"),
        Setting("train.num_iterations", "7", "no default"),
    ]


def scores_of(one: Evaluation) -> np.ndarray:
    assert one.per_task is not None
    return np.array(one.per_task.scores)


def test_tails_are_the_means_of_the_worst_tasks():
    one = evaluation()
    last = np.sort(scores_of(one)[-1])
    five, twenty = tails(one)
    assert (five.num_tasks, twenty.num_tasks) == (3, 12)
    assert five.estimate.value == pytest.approx(last[:3].mean())
    assert twenty.estimate.value == pytest.approx(last[:12].mean())
    assert five.estimate.low < five.estimate.value < five.estimate.high
    worst = worst_tasks(one)
    assert [row["episode 4"] for row in worst] == pytest.approx(last[:10].tolist())
    assert list(worst[0]) == ["task", "episode 1", "episode 4", "oracle", "task.goal.0", "task.goal.1"]


def test_the_gap_is_how_much_better_training_tasks_are_and_what_lacks_to_bounds_too():
    run = read_run(make_run("runs/a"))
    found = {(gap.better, gap.worse, gap.quantity): gap.estimate for gap in gaps(run)}
    assert len(found) == 4
    train, test = (scores_of(evaluation(split))[-1] for split in ("train", "test"))
    gap = found["train", "test", "return"]
    assert gap.value == pytest.approx(train.mean() - test.mean(), abs=1e-6)
    assert gap.high - gap.low == pytest.approx(2 * 1.96 * math.sqrt((train.var() + test.var()) / NUM_TASKS), rel=0.1)
    assert ("test", "ood", "return minus oracle") in found


def test_a_map_has_the_mean_score_in_each_column_and_the_parameter_that_matters_first():
    one = evaluation()
    first, second = task_maps(one, [1, 4])
    assert (first.name, second.name) == ("goal.0", "goal.1")
    assert first.explained is not None
    assert second.explained is not None
    assert first.explained > 0.9 > 0.3 > second.explained
    assert first.rows == ["episode 1", "episode 4"]
    assert sum(first.counts[0]) == NUM_TASKS
    assert one.per_task is not None
    goal = np.array(one.per_task.parameters["goal"])[:, 0]
    lowest = scores_of(one)[-1][np.argsort(goal)[: first.counts[1][0]]]
    assert first.values[1][0] == pytest.approx(lowest.mean())
    (plane,) = plane_maps(one)
    assert sum(map(sum, plane.counts)) == NUM_TASKS
    assert any(value is None for row in plane.values for value in row)


def test_of_many_parameters_those_that_explain_the_score_are_drawn():
    one = evaluation()
    assert one.per_task is not None
    noise = np.random.default_rng(0).normal(size=(NUM_TASKS, 50)).tolist()
    many = replace(one, per_task=replace(one.per_task, parameters={**one.per_task.parameters, "noise": noise}))
    charts, num_hidden = figures.maps(many)
    assert charts[1].title == "goal.0"
    assert len(charts) + num_hidden == 53  # the plane of the goal among them
    assert len(charts) <= 9


def test_what_a_sampler_drew_has_a_chart_for_each_number_of_a_task():
    run = read_run(make_run("runs/a", splits=()))
    assert figures.sampled_tasks(run, Measure()) == []
    drawn = {"sampler/goal.0/p10": 0.1, "sampler/goal.0/p50": 0.2, "sampler/goal.0/p90": 0.4}
    (chart,) = figures.sampled_tasks(replace(run, rows=[{**each, **drawn} for each in run.rows]), Measure())
    assert chart.title == "Training tasks drawn: goal.0"
    band, line = chart.as_json()["data"]
    assert set(band["y"]) == {0.1, 0.4}
    assert set(line["y"]) == {0.2}


def test_the_time_of_a_training_is_parted_by_its_log():
    split = time_split(read_run(make_run("runs/a", splits=())).rows)
    assert split is not None
    assert (split.total_collecting, split.total_updating, split.rate) == (20, 60, 25)
    assert split.collecting == [1.0] * 20


# Colours


def brightness(colour: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["background", "panel"])
@pytest.mark.parametrize(
    ("name", "ratio"),
    [("text", 7), ("muted", 4.5), ("link", 4.5), ("problem", 4.5), ("ours", 4.5), ("bound-oracle", 3)],
)
def test_text_has_the_contrast_of_wcag(theme, ground, name, ratio):
    colours = palette.variables(theme)
    low, high = sorted(map(brightness, (colours[name], colours[ground])))
    assert (high + 0.05) / (low + 0.05) >= ratio


def test_points_and_bounds_have_the_colours_of_a_runs_own_plots():
    for name, token in palette.bound_colours(plots._KNOWN).items():
        assert palette.BOUNDS[token].light == plots._KNOWN[name]
    others = [palette.BOUNDS[token].light for token in palette.bound_colours(f"b{n}" for n in range(5)).values()]
    assert tuple(others) == plots._OTHERS
    names = ("point-first", "ours", "point-other", "point-more")
    assert tuple(palette.POINTS[name].light for name in names) == plots._POINT_COLOURS


def test_a_bound_has_one_colour_whatever_others_there_are():
    assert palette.bound_colours(["random", "ppo", "oracle", "thompson"]) == {
        "random": "bound-random",
        "oracle": "bound-oracle",
        "ppo": "bound-1",
        "thompson": "bound-2",
    }
    assert set(palette.bound_colours(f"b{number}" for number in range(12)).values()) <= set(palette.BOUNDS)

"""Where progress is written to: the choice is the run's, trackers are imported on use, a resumed run stays the same."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from experiments.cli.main import main
from metarl.errors import UserError
from metarl.run.directory import STEP_TAG, Run
from metarl.run.log_writers import EXTRAS, WRITERS, check_log

RECIPE = """from agents import RL2Config
from envs import BernoulliBandit
from experiments import Experiment, TrainConfig

experiment = Experiment(
    BernoulliBandit(num_arms=2, num_pulls=3),
    RL2Config(hidden_size=8, head_sizes=()),
    TrainConfig(num_iterations=2, num_tasks=4, eval_tasks=4),
)
"""


class Tracker:
    """The functions of wandb, trackio and mlflow that are used, each noted."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.rows.append((step, metrics))

    log_metrics = log

    def start_run(self, **settings: Any) -> SimpleNamespace:
        self.calls.append(("start_run", settings))
        return SimpleNamespace(info=SimpleNamespace(run_id="abc"))

    def log_dict(self, content: dict[str, Any], name: str) -> None:
        self.calls.append(("log_dict", {"name": name, "content": content}))

    def __getattr__(self, name: str) -> Any:
        return lambda *words, **settings: self.calls.append((name, settings))


def train(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> int:
    monkeypatch.chdir(folder)
    Path("recipe.py").write_text(RECIPE)
    with pytest.raises(SystemExit) as stop:
        main(["train", "recipe.py", "--run-dir", "run", *words])
    return int(stop.value.code or 0)


@pytest.mark.parametrize("name", EXTRAS)
def test_a_resumed_run_goes_on_in_the_same_tracked_run(tmp_path, monkeypatch, name):
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, name, tracker)
    assert train(monkeypatch, tmp_path, "--log", name) == 0
    assert json.loads(Path("run/meta.json").read_text())["log"] == [name]
    assert not list(Path("run").glob("events.*"))  # TensorBoard was not asked for
    assert [step for step, _ in tracker.rows] == [12, 24]
    assert tracker.rows[0][1]["meta_train/return/total"] == Run.open("run").progress()[0]["meta_train/return/total"]
    assert Path("run/progress.csv").is_file()
    with pytest.raises(SystemExit, match="0"):
        main(["resume", "run", "--num-iterations", "3"])
    assert [step for step, _ in tracker.rows] == [12, 24, 36]
    started = [settings for call, settings in tracker.calls if call in ("init", "start_run")]
    assert len(started) == 2
    if name == "mlflow":
        assert started[1] == {"run_id": "abc"}
        assert [call for call, _ in tracker.calls].count("end_run") == 2
    else:
        assert started[0]["project"] == "metarl"
        assert started[0]["config"]["experiment"].endswith("recipe.py")
        identity = ("name", "id", "resume")
        assert [started[0].get(key) for key in identity] == [started[1].get(key) for key in identity]
        assert started[0]["resume"] == "allow"
        assert [call for call, _ in tracker.calls].count("finish") == 2


@pytest.mark.parametrize("name", EXTRAS)
def test_a_tracker_that_is_not_installed_is_one_line_and_makes_no_run(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setitem(sys.modules, name, None)
    assert train(monkeypatch, tmp_path, "--log", "tensorboard", name) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"metarl: logging to {name} needs its package: pip install 'metarl[{name}]'")
    assert errors.count("\n") == 1
    assert not Path("run").exists()


def test_an_unknown_writer_is_one_line(tmp_path, monkeypatch, capsys):
    assert train(monkeypatch, tmp_path, "--log", "wand") == 2
    assert "--log is 'wand'; must be one of 'tensorboard', 'csv', 'json'" in capsys.readouterr().err
    with pytest.raises(UserError, match="log is 'wand'; must be one of tensorboard, csv, json"):
        check_log(["wand"])


def test_a_run_from_before_the_choice_logs_as_it_did(tmp_path):
    run = Run.create_at(tmp_path / "run", {}, ["metarl"])
    (run.path / "meta.json").write_text("{}")
    run.log({"a": 1.0}, 5)
    run.close()
    assert set(run.log_names) == {"tensorboard", "csv", "json"} < set(WRITERS)
    assert run.progress() == [{"a": 1.0, STEP_TAG: 5}]
    assert list(run.path.glob("events.*"))


def events_of(path: Path) -> EventAccumulator:
    events = EventAccumulator(str(path), {"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def test_tensorboard_says_what_the_run_is(tmp_path):
    config = {"seed": 3, "agent": {"learning_rate": 1e-3, "sizes": [8, 8]}, "expected": None}
    run = Run.create_at(tmp_path / "run", config, ["metarl", "train", "x"])
    run.log({"meta_test/return/ep_1": 1.0, "time/iterations": 1.0, "time/collect_fps": 2.0, "time/fps": 3.0}, 5)
    run.close()
    run.log({"time/fps": 4.0}, 6)  # by another process, as after a resume
    run.close()
    events = events_of(run.path)
    assert set(events.Tags()["scalars"]) == {"meta_test/return/ep_1", "time/fps"}
    texts = {tag: events.Tensors(tag) for tag in events.Tags()["tensors"]}
    assert b"metarl train x" in texts["command/text_summary"][0].tensor_proto.string_val[0]
    assert b"learning_rate" in texts["config/text_summary"][0].tensor_proto.string_val[0]
    assert len(texts["config/text_summary"]) == 1
    settings = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"agent.learning_rate" in settings
    assert b"agent.sizes" in settings
    layout: Any = vars(layout_pb2)["Layout"]()  # made at run time
    layout.ParseFromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert set(charts) == {"test tasks", "validation tasks", "training tasks"}
    (pattern,) = charts["test tasks"]
    assert re.fullmatch(pattern, "meta_test/return/ep_1")
    assert not re.match(pattern, "meta_test/return/total")


def test_the_run_of_somebody_else_sends_nothing_to_a_tracker_unless_that_is_asked_for(tmp_path, monkeypatch, capsys):
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    assert train(monkeypatch, tmp_path, "--log", "wandb") == 0
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "somebody_else"))
    words = ["resume", "run", "--num-iterations"]
    with pytest.raises(SystemExit, match="0"):
        main([*words, "3"])
    assert len(tracker.rows) == 2
    assert "Nothing is sent to wandb: run was not trained by you." in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main([*words, "4", "--log", "wandb"])
    assert [step for step, _ in tracker.rows] == [12, 24, 48]

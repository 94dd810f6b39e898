"""A run knows what it was made from: whatever is edited afterwards is named, and the user says which is to be used."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import metarl
from experiments.cli.main import main
from experiments.experiment.definition import Experiment, load
from experiments.experiment.reading import record_of
from experiments.experiment.recipe_file import load_file
from metarl.errors import UserError
from metarl.fewshot.images import photos
from metarl.run.kept_files import last_record

ROBOT = """<mujoco>
  <compiler meshdir="meshes"/>
  <include file="parts/actuators.xml"/>
  <asset><mesh name="hull" file="hull.obj"/></asset>
  <worldbody>
    <body>
      <joint name="slide" type="slide" axis="1 0 0" damping="1"/>
      <geom type="mesh" mesh="hull"/>
    </body>
  </worldbody>
</mujoco>
"""
ACTUATORS = """<mujoco>
  <actuator><motor joint="slide" gear="5" ctrlrange="-1 1" ctrllimited="true"/></actuator>
</mujoco>
"""
HULL = """v 0 0 0
v 1 0 0
v 0 1 0
v 0 0 1
f 1 3 2
f 1 2 4
f 1 4 3
f 2 3 4
"""
SLIDER = """from pathlib import Path

import torch

from agents.rl2 import RL2Config
from envs.locomotion.custom_robot import MujocoFamily
from envs.samplers import Uniform
from experiments import Experiment, TrainConfig
from scales import SCALE
from tools.shaping import shaped


def observe(physics, task):
    return torch.cat([physics.qpos, physics.qvel], dim=1)


def reward(physics, action, task):
    return SCALE * shaped((physics.position("slide") - task.target).abs())


experiment = Experiment(
    MujocoFamily(
        mjcf=Path(__file__).parent / "robot" / "slider.xml",
        observe=observe,
        reward=reward,
        tasks={"target": Uniform(-1, 1)},
        horizon=8,
    ),
    RL2Config(hidden_size=4, head_sizes=(), num_epochs=1),
    TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=2),
)
"""
FILES = {
    "slider.py": SLIDER,
    "scales.py": "SCALE = 1.0\n",
    "tools/__init__.py": "",
    "tools/shaping.py": "from .signs import SIGN\n\n\ndef shaped(distance):\n    return SIGN * distance\n",
    "tools/signs.py": "SIGN = -1\n",
    "robot/slider.xml": ROBOT,
    "robot/parts/actuators.xml": ACTUATORS,
    "robot/meshes/hull.obj": HULL,
}
EDITS = {  # by file: what is replaced, and by what
    "slider.py": ("return SCALE *", "return 9 + SCALE *"),
    "scales.py": ("1.0", "7.0"),
    "tools/shaping.py": ("distance\n", "distance - 5\n"),
    "tools/signs.py": ("-1", "+1"),
    "robot/slider.xml": ('damping="1"', 'damping="9"'),
    "robot/parts/actuators.xml": ('gear="5"', 'gear="50"'),
    "robot/meshes/hull.obj": ("v 0 0 1", "v 0 0 3"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)
    metarl.train(folder / "slider.py", run_dir=folder / "run", progress=False)
    return folder


@pytest.fixture
def project(trained: Path, monkeypatch: pytest.MonkeyPatch):
    """The folder of the recipe and its run, as it was after training; files are put back in the end."""
    monkeypatch.chdir(trained)
    shutil.copytree("run", "trained_run")
    yield trained
    for name, text in FILES.items():
        (trained / name).parent.mkdir(exist_ok=True, parents=True)
        (trained / name).write_text(text)
    shutil.rmtree("run")
    shutil.move("trained_run", "run")


def metarl_command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    out, errors = capsys.readouterr()
    return int(stop.value.code or 0), out, errors


def evaluation(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    status, out, errors = metarl_command(capsys, "evaluate", "run", "--tasks", "3", "--json", *words)
    assert status == 0, errors
    return json.loads(out)


def edit(name: str) -> None:
    old, new = EDITS[name]
    text = Path(name).read_text()
    assert old in text
    Path(name).write_text(text.replace(old, new))


def test_a_run_keeps_the_files_behind_it(project):
    kept = last_record(project / "run")
    assert kept is not None
    assert {os.path.relpath(file.path, project): file.module for file in kept.record.files} == {
        "slider.py": "metarl_recipe",
        "scales.py": "scales",
        "tools/__init__.py": "tools",
        "tools/shaping.py": "tools.shaping",
        "tools/signs.py": "tools.signs",
        "robot/slider.xml": None,
        "robot/parts/actuators.xml": None,
        "robot/meshes/hull.obj": None,
    }
    for file in kept.record.files:
        assert kept.content_of(file).decode() == FILES[os.path.relpath(file.path, project)]


@pytest.mark.parametrize("name", EDITS)
def test_what_is_edited_is_named_and_the_user_chooses(project, capsys, name):
    before = evaluation(capsys)
    assert before["code"] == "as trained"
    edit(name)
    for command in ("evaluate", "play", "resume"):
        status, _, errors = metarl_command(capsys, command, "run")
        assert status == 2
        assert errors.count("\n") == 1
        assert f"changed since run was trained: {Path(name).name}; --as-trained" in errors
        assert "--with-current" in errors
    as_trained = evaluation(capsys, "--as-trained")
    assert as_trained["code"] == "as trained"
    assert means(as_trained["points"]) == pytest.approx(means(before["points"]), rel=1e-4)
    current = evaluation(capsys, "--with-current")
    assert current["code"] == f"changed: {Path(name).name}"
    if not name.endswith(".obj"):  # whose size changes nothing of how a slider slides
        assert current["points"] != before["points"]
    with pytest.raises(UserError, match="changed since"):
        metarl.evaluate("run", tasks=3)
    assert (
        metarl.evaluate("run", tasks=3, as_trained=True).points
        == metarl.evaluate("run", tasks=3, as_trained=True).points
    )


def test_evaluations_of_other_code_have_files_of_their_own(project, capsys):
    metarl_command(capsys, "evaluate", "run", "--tasks", "3")
    edit("scales.py")
    _, out, _ = metarl_command(capsys, "evaluate", "run", "--tasks", "3", "--with-current")
    assert "_with_current.json" in out
    codes = {path.name: json.loads(path.read_text())["code"] for path in Path("run").glob("evaluation_test_3x*.json")}
    assert sorted(codes.values()) == ["as trained", "changed: scales.py"]


def test_a_file_that_is_gone_is_named_and_its_copy_is_enough(project, capsys):
    before = evaluation(capsys)["points"]
    shutil.rmtree("tools")
    shutil.rmtree("robot")
    status, _, errors = metarl_command(capsys, "evaluate", "run")
    assert status == 2
    assert "shaping.py (gone)" in errors
    assert means(evaluation(capsys, "--as-trained")["points"]) == pytest.approx(means(before), rel=1e-4)


def means(points: list[dict[str, Any]]) -> list[float]:
    """The scores of a curve; products of matrices may round otherwise where their memory lies otherwise."""
    return [point["mean"] for point in points]


def test_a_recipe_that_has_moved_is_found_with_one_argument(project, capsys, tmp_path):
    before = evaluation(capsys)["points"]
    for name in ("slider.py", "scales.py", "tools", "robot"):
        shutil.move(name, tmp_path / name)
    (tmp_path / "slider.py").rename(tmp_path / "renamed.py")
    status, _, errors = metarl_command(capsys, "evaluate", "run")
    assert status == 2
    assert "--recipe PATH" in errors
    moved = evaluation(capsys, "--recipe", str(tmp_path / "renamed.py"))
    assert moved["code"] == "as trained"
    assert means(moved["points"]) == pytest.approx(means(before), rel=1e-4)
    words = ("resume", "run", "--num-iterations", "2", "--recipe", str(tmp_path / "renamed.py"))
    assert metarl_command(capsys, *words)[0] == 0
    assert evaluation(capsys)["code"] == "as trained"  # the run names the new place from then on
    (tmp_path / "scales.py").write_text("SCALE = 2.0\n")
    status, _, errors = metarl_command(capsys, "evaluate", "run", "--recipe", str(tmp_path / "renamed.py"))
    assert status == 2
    assert "was trained: scales.py; " in errors


def test_a_training_that_goes_on_with_new_code_keeps_both(project, capsys):
    edit("scales.py")
    assert metarl_command(capsys, "resume", "run", "--num-iterations", "2", "--with-current")[0] == 0
    assert evaluation(capsys)["code"] == "as trained"
    records = [json.loads(Path(f"run/code/{number}/record.json").read_text()) for number in (0, 1)]
    assert [record["iteration"] for record in records] == [0, 1]
    texts = [Path(f"run/code/{number}/files/scales.py").read_text() for number in (0, 1)]
    assert texts == ["SCALE = 1.0\n", "SCALE = 7.0\n"]


def test_a_training_that_goes_on_as_trained_is_the_uninterrupted_one(project, capsys):
    shutil.copytree("run", "other")
    assert metarl_command(capsys, "resume", "other", "--num-iterations", "2")[0] == 0
    edit("scales.py")
    assert metarl_command(capsys, "resume", "run", "--num-iterations", "2", "--as-trained")[0] == 0
    first, second = (json.loads(Path(run, "evaluation_test.json").read_text()) for run in ("other", "run"))
    shutil.rmtree("other")
    assert first == second
    assert not Path("run/code/1").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--as-trained", "--with-current"], "--as-trained and --with-current exclude each other"),
        (["--as-trained", "--recipe", "slider.py"], "--as-trained and --recipe exclude each other"),
        (["--recipe", "absent.py"], "slider.py (gone)"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(project, capsys, flags, message):
    status, _, errors = metarl_command(capsys, "evaluate", "run", *flags)
    assert status == 2
    assert message.replace("slider.py", "absent.py" if "absent.py" in flags else "slider.py") in errors


def test_a_run_of_an_earlier_version_has_no_record(project, capsys):
    shutil.rmtree("run/code")
    status, _, errors = metarl_command(capsys, "evaluate", "run")
    assert status == 2
    assert "needs code that you have not run here" in errors
    assert evaluation(capsys, "--trust")["code"] == "unknown"
    assert evaluation(capsys, "--recipe", "slider.py")["code"] == "unknown"
    status, _, errors = metarl_command(capsys, "evaluate", "run", "--as-trained")
    assert status == 2
    assert "keeps no code" in errors


def test_an_evaluation_says_what_it_is_of(project, capsys):
    first, second = evaluation(capsys), evaluation(capsys, "--seed", "1", "--checkpoint", "best")
    saved = json.loads(Path("run/evaluation_test.json").read_text())
    for answer in (first, second, saved):
        assert answer["training_seed"] == 0
        assert answer["code"] == "as trained"
        assert len(answer["tasks_hash"]) == 12
    assert (first["evaluation_seed"], second["evaluation_seed"]) == (0, 1)
    assert (first["checkpoint"], second["checkpoint"]) == ("latest", "best")
    assert first["tasks_hash"] == evaluation(capsys, "--points", "1")["tasks_hash"]
    assert len({first["tasks_hash"], second["tasks_hash"], saved["tasks_hash"]}) == 3


BANDIT = """from agents import RL2Config
from envs import BernoulliBandit
from experiments import Experiment, TrainConfig

experiment = Experiment(
    BernoulliBandit(num_pulls=2), RL2Config(hidden_size=4), TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=2)
)
"""


def test_meta_names_the_commit_of_the_users_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(BANDIT)

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=b", *words], check=True)

    def project() -> dict:
        run = metarl.train("recipe.py", progress=False)
        return json.loads((run.path / "meta.json").read_text())["project"]

    assert project() is None
    git("init", "-q")
    Path(".gitignore").write_text("runs\n__pycache__\n")
    git("add", ".gitignore")
    git("commit", "-q", "-m", "one")
    first = project()
    assert (Path(first["folder"]), len(first["commit"]), first["changed"]) == (tmp_path.resolve(), 40, True)
    git("add", "recipe.py")
    git("commit", "-q", "-m", "two")
    second = project()
    assert second["commit"] != first["commit"]
    assert not second["changed"]


IMAGES = """from experiments import Experiment, TrainConfig
from metarl.fewshot.images.photos import ImageFolder
from metarl.fewshot.methods.prototypical import PrototypicalConfig

experiment = Experiment(
    ImageFolder(data_dir="{folder}", size=28, ways=2, queries=1, test_queries=1, split_shares=(0.5, 0.0, 0.5)),
    PrototypicalConfig(),
    TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=2),
)
"""


def test_images_that_have_changed_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    for number in range(4):
        Path("images", str(number)).mkdir(parents=True)
        for index in range(3):
            Image.fromarray(noise.integers(0, 255, (28, 28, 3), np.uint8)).save(f"images/{number}/{index}.png")
    Path("recipe.py").write_text(IMAGES.format(folder=tmp_path / "images"))
    metarl.train("recipe.py", run_dir="run", progress=False)
    before = evaluation(capsys)
    assert before["code"] == "as trained"
    for number in range(4):
        Image.fromarray(noise.integers(0, 255, (28, 28, 3), np.uint8)).save(f"images/{number}/0.png")
    photos._pool.cache_clear()  # as in a new process
    status, _, errors = metarl_command(capsys, "evaluate", "run")
    assert status == 2
    assert "changed since run was trained: images of family; " in errors
    assert evaluation(capsys, "--with-current")["code"] == "changed: images of family"
    status, _, errors = metarl_command(capsys, "evaluate", "run", "--as-trained")
    assert status == 2
    assert "a run keeps their hash only" in errors


def test_an_experiment_made_in_python_is_given_again(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    experiment: Experiment = load_file(tmp_path / "slider.py").experiment
    run = metarl.train(experiment, run_dir=tmp_path / "run", progress=False)
    with pytest.raises(UserError, match="was trained from Python, and has parts"):
        metarl.load(run.path)
    assert metarl.evaluate(run.path, tasks=2, recipe=experiment) == metarl.evaluate(run, tasks=2)
    kept = last_record(run.path)
    assert kept is not None
    assert "scales" in {file.module for file in kept.record.files}


GYMNASIUM = """from agents.rl2 import RL2Config
from envs.external.gymnasium_family import GymnasiumFamily
from envs.samplers import Uniform
from envs.swings import apply
from experiments import Experiment, TrainConfig

experiment = Experiment(
    GymnasiumFamily("Pendulum-v1", tasks={"g": Uniform(5, 15)}, apply=apply, horizon=4, num_workers=1),
    RL2Config(hidden_size=4, head_sizes=(), num_epochs=1),
    TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=2),
)
"""


def test_kept_functions_reach_worker_processes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("envs").mkdir()
    Path("envs/swings.py").write_text("import lengths\n\n\ndef apply(env, task):\n    env.l = lengths.LENGTH\n")
    Path("lengths.py").write_text("LENGTH = 1.0\n")
    Path("recipe.py").write_text(GYMNASIUM)
    run = metarl.train("recipe.py", progress=False)
    before = metarl.evaluate(run, tasks=2)
    Path("lengths.py").write_text("LENGTH = 3.0\n")
    assert metarl.evaluate(run.path, tasks=2, as_trained=True) == before
    assert metarl.evaluate(run.path, tasks=2, with_current=True) != before


def test_files_above_the_recipe_and_behind_links_are_kept_too(tmp_path, monkeypatch, capsys):
    for name, text in FILES.items():
        folder = tmp_path / "real" / ("" if name.startswith("robot") else "recipes")
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text.replace('.parent / "robot"', '.parent / ".." / "robot"'))
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "link")
    metarl.train("recipes/slider.py", run_dir="run", progress=False)
    before = evaluation(capsys)
    assert {path.name for path in Path("run/code/0/files").iterdir()} == {"recipes", "robot"}
    for name in ("robot/slider.xml", "robot/parts/actuators.xml"):
        edit(name)
    status, _, errors = metarl_command(capsys, "evaluate", "run")
    assert status == 2
    assert "changed since run was trained: slider.xml, actuators.xml; " in errors
    assert means(evaluation(capsys, "--as-trained")["points"]) == pytest.approx(means(before["points"]), rel=1e-4)
    assert evaluation(capsys, "--with-current")["points"] != before["points"]
    monkeypatch.chdir(tmp_path / "real")
    assert means(evaluation(capsys, "--as-trained")["points"]) == pytest.approx(means(before["points"]), rel=1e-4)


def test_a_module_that_is_imported_by_a_string_is_kept(tmp_path):
    (tmp_path / "first.py").write_text("import importlib\nsecond = importlib.import_module('second')\n")
    (tmp_path / "second.py").write_text("")
    (tmp_path / "recipe.py").write_text(f"import first\n{BANDIT}")
    record, _ = record_of(load(str(tmp_path / "recipe.py")), str(tmp_path / "recipe.py"))
    assert [file.module for file in record.files] == ["metarl_recipe", "first", "second"]

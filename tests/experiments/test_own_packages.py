"""A project with packages of the names of ours: a recipe finds its modules, or is told what hides them."""

import subprocess
import sys
from pathlib import Path

import pytest

import envs
import metarl
from experiments.experiment.definition import load
from experiments.experiment.reading import record_of
from metarl.errors import UserError

HEAD = """from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from experiments import Experiment, TrainConfig
"""
TAIL = """
experiment = Experiment(
    Mine(num_pulls=2), RL2Config(hidden_size=4, head_sizes=()), TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=2)
)
"""
MINE = """from dataclasses import dataclass

from envs.torch_families.bandits import BernoulliBandit


@dataclass(frozen=True)
class Mine(BernoulliBandit):
    num_arms: int = 3
"""


def project(folder: Path, files: dict[str, str], line: str) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)
    folder.mkdir(exist_ok=True)
    (folder / "recipe.py").write_text(HEAD + line + TAIL)
    return folder / "recipe.py"


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"envs/__init__.py": "", "envs/my_env.py": MINE}, "from envs.my_env import Mine"),
        ({"envs/my_env.py": MINE}, "from envs.my_env import Mine"),
        ({"envs/__init__.py": "1 / 0", "envs/my_env.py": MINE}, "from envs import my_env; Mine = my_env.Mine"),
        ({"agents/a/b.py": MINE}, "import agents.a.b; Mine = agents.a.b.Mine"),
        ({"experiments/x.py": MINE, "metarl/y.py": "from experiments.x import Mine"}, "from metarl.y import Mine"),
    ],
)
def test_modules_of_a_package_of_the_same_name_are_found(tmp_path, files, line):
    recipe = project(tmp_path, files, line)
    run = metarl.train(recipe, run_dir=tmp_path / "run", progress=False)
    assert metarl.load(run.path).observation_space.shape == metarl.load(run).observation_space.shape
    kept = {file.module for file in record_of(load(str(recipe)), str(recipe))[0].files}
    assert kept >= {name.removesuffix(".py").replace("/", ".") for name in files if "__init__" not in name}
    assert metarl.load(run.path, as_trained=True)


def test_those_of_one_project_are_not_found_from_another(tmp_path):
    load(str(project(tmp_path / "one", {"envs/my_env.py": MINE}, "from envs.my_env import Mine")))
    assert not hasattr(envs, "my_env") or "envs.my_env" in sys.modules
    other = project(tmp_path / "two", {}, "from envs import my_env; Mine = my_env.Mine")
    with pytest.raises(UserError, match="cannot import name 'my_env'"):
        load(str(other))
    assert [Path(place).name for place in envs.__path__] == ["envs"]


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"envs/__init__.py": MINE}, "from envs import Mine"),
        ({"envs.py": MINE}, "from envs import Mine"),
        ({"envs/samplers.py": MINE}, "from envs.samplers import Mine"),
        ({"agents/__init__.py": ""}, "from agents.absent import Mine"),
        ({"metarl/__init__.py": ""}, "import metarl; Mine = metarl.Mine"),
    ],
)
def test_what_hides_a_users_package_is_said(tmp_path, files, line):
    name = next(iter(files))
    package = name.split("/")[0].removesuffix(".py")
    recipe = project(tmp_path, files, line)
    with pytest.raises(UserError) as error:
        load(str(recipe))
    assert f"; {package} is MetaRL's own package here, and {tmp_path / name.split('/')[0]}" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_import_that_fails_otherwise_has_no_such_explanation(tmp_path):
    with pytest.raises(UserError) as error:
        load(str(project(tmp_path, {"envs/my_env.py": MINE}, "from absent import Mine")))
    assert "MetaRL's own" not in str(error.value)


def test_a_former_place_of_a_module_is_said(tmp_path):
    with pytest.raises(UserError, match=r"'envs\.bandits'; it is envs\.torch_families\.bandits now"):
        load(str(project(tmp_path, {}, "from envs.bandits import BernoulliBandit as Mine")))


def test_a_script_next_to_such_a_package_is_told(tmp_path):
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("")
    (tmp_path / "script.py").write_text("import metarl\nmetarl.list_experiments()\n")
    root = Path(metarl.__file__).parents[1]
    words = [sys.executable, "script.py"]
    done = subprocess.run(words, cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True)
    message = f"package 'envs' is imported from {tmp_path.resolve() / 'envs'} and not from MetaRL's own"
    assert f"ImportError: {message}" in done.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("from metarl.fewshot.t_net import TNetConfig", "it is metarl.fewshot.methods.t_net now"),
        ("import metarl.fewshot.bayesian", "LaplaceConfig is in metarl.fewshot.methods.laplace"),
        ("TrainConfig(1, 1, num_episodes=2)", "it is num_points now"),
        ("Expected('us', at_least=1, episode=2)", "it is point now"),
        ("TrainConfig(1, 1, num_tusks=2)", "unexpected keyword argument 'num_tusks'"),
    ],
)
def test_former_names_are_said_where_a_recipe_still_has_them(tmp_path, line, message):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(f"from experiments import Expected, TrainConfig\n{line}\n")
    with pytest.raises(UserError) as refusal:
        load(str(recipe))
    assert message in str(refusal.value)
    assert ("now" in str(refusal.value)) == ("tusks" not in line)

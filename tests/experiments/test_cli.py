"""The command line: quick answers, one line for every mistake, and the whole way from train to evaluate."""

import csv
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from experiments.cli import plots
from experiments.cli.progress import TrainingProgress, duration
from experiments.cli.tables import print_evaluation
from experiments.experiment import names
from experiments.experiment.definition import Expected, Experiment, from_config, load, to_config
from metarl.errors import UserError
from metarl.evaluation import RETURN, Evaluation, Score
from metarl.rl.trials import TrialSource
from metarl.run.directory import Run
from tests.experiments.command import finished_run, run

RECIPE = '''
"""RL2 on a tiny bandit."""
from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from experiments.experiment.definition import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=BernoulliBandit(num_arms=2, num_pulls=3),
    agent=RL2Config(hidden_size=8, head_sizes=(8,)),
    train=TrainConfig(num_iterations=3, num_tasks=4, eval_every=2, eval_tasks=5),
    expected=Expected(at_least=99.0, source="nobody"),
)
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE)
    return "recipe.py"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return finished_run(RECIPE, tmp_path_factory.mktemp("finished"))


@pytest.fixture
def trained(finished, tmp_path, monkeypatch, capsys) -> str:
    """A finished training of the recipe, of which each test has a copy."""
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()  # what the training has printed
    return str(shutil.copytree(finished, "run"))


# Quick answers

HEAVY = {"torch", "mujoco", "gymnasium", "numpy", "matplotlib", "stable_baselines3", "pydantic", "rich", "scipy"}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["list"],
        ["train", "--help"],
        ["evaluate", "--help"],
        ["trian"],
        ["train", "grid_navi/rl3"],
        ["baselines", "grid_navy"],
    ],
)
def test_names_and_help_answer_before_torch_is_imported(words):
    program = (
        "import sys\n"
        "from experiments.cli.main import main\n"
        f"heavy = {HEAVY}\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert result.stdout.endswith("heavy: []\n"), result.stderr
    assert result.returncode == (0 if "--help" in words or words == ["list"] else 2)


def test_the_list_describes_everything(capsys):
    status, output, _ = run(capsys, "list")
    assert status == 0
    catalogs = (names.FAMILIES, names.FUNCTION_FAMILIES, names.AGENTS, names.LEARNERS, names.experiment_names())
    for name in itertools.chain(*catalogs):
        assert re.search(rf"^  {name} +\w", output, re.MULTILINE), f"{name} has no description"
    agents = [line.split(maxsplit=1) for line in run(capsys, "list", "agents")[1].splitlines()]
    assert agents == [[name, description] for name, description in names.described("agents").items()]


@pytest.mark.parametrize("words", ["train --help", "list experiments"])
def test_names_stand_apart_from_what_they_are(capsys, words):
    output = run(capsys, *words.split())[1]
    for name in names.experiment_names():
        assert re.search(rf"^  {name}  +\S", output, re.MULTILINE), name


WITH_ARGUMENTS = ("list", "launch", "evaluate", "probe", "diagnose", "portfolio", "play", "resume", "histories")


@pytest.mark.parametrize(
    ("module", "given"),
    [(name, ["--help"]) for name in (*WITH_ARGUMENTS, "benchmark")]
    + [("train", ["bernoulli_bandit/rl2", "--help"]), ("baselines", ["bernoulli_bandit", "--help"])],
)
def test_the_help_of_each_argument_stands_alone(capsys, module, given):
    output = re.sub(r"[│┃]", " ", run(capsys, module, *given)[1])
    own = output.split("family options")[0]  # the commands' own arguments, before those of an experiment's parts
    leaning = r"(?:of |likewise|the same|these)"
    arguments = re.findall(r"^ *(?:--[\w-]+|\[?[A-Z{][^ ]*).*?(?:\n {6,}\S.*)*$", own, re.MULTILINE)
    assert arguments, output
    for argument in arguments:
        assert not re.search(rf"(?:^|\s{{2,}}){leaning}", argument), argument


@pytest.mark.parametrize("module", [*WITH_ARGUMENTS, "benchmark"])
def test_every_argument_of_a_command_has_a_help_text(module):
    source = Path(names.__file__).parents[1] / "cli" / "commands" / f"{module}.py"
    body = source.read_text().split("class Arguments:")[1].split("\n\n")[0]
    for line in body.strip().splitlines():
        text = re.search(r"  # (.+)$", line)
        assert text, line
        assert not re.match(r"of |likewise|the same|these", text[1]), line


# Recipes


@pytest.mark.parametrize("name", names.experiment_names())
def test_every_recipe_loads_and_survives_its_config(name):
    experiment = load(name)
    assert isinstance(experiment, Experiment)
    assert experiment.family.name == name.split("/")[0]
    assert experiment.agent_name in names.AGENTS | names.LEARNERS
    config = json.loads(json.dumps(to_config(experiment, name)))
    assert from_config(config, Path("run")) == experiment


def test_a_short_family_name_is_spelt_out():
    assert load("bandit/rl2") == load("bernoulli_bandit/rl2")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("agent", "hidden_siz"), 3, "agent.hidden_siz is not a field: did you mean hidden_size?"),
        (("agent", "hidden_size"), "8", "agent.hidden_size is '8': Input should be a valid integer"),
        (("agent", "learning_rate"), -1.0, "agent: learning_rate is -1.0; must be positive"),
        (
            ("family", "class"),
            "envs.bandits:Bandit",
            "family.class is 'envs.bandits:Bandit'; must be in the catalogs of this installation, or the recipe's",
        ),
        (("agent", "class"), "agents.rl2:RL2", "agent.class is 'agents.rl2:RL2'; must be in the catalogs"),
        (("agent", "class"), "agents.rl2", "agent.class is 'agents.rl2'; must be module:class"),
        (("agent", "class"), ".rl2:RL2Config", "agent.class is '.rl2:RL2Config'; must be in the catalogs"),
        (("agent", "class"), 3, "agent.class is 3; must be module:class"),
        (("experiment",), None, "experiment is None; must be the recipe's name or path"),
        (("device",), "gpu", "device is 'gpu': Input should be 'cpu' or 'cuda'"),
        (("seed",), -1, "seed is -1; must be 0 or more"),
        (("train",), None, "train is None"),
        (("family",), 3, "family must be an object with a field 'class'"),
    ],
)
def test_a_wrong_config_names_the_field(recipe, place, value, message):
    config = to_config(load(recipe), recipe)
    *path, last = place
    target: Any = config
    for key in path:
        target = target[key]
    target[last] = value
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        from_config(config, Path("run"), lambda: load(recipe))
    assert str(caught.value).startswith("run/config.json: ")


# Mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", "unknown command 'trian': did you mean train?"),
        ("list agnets", "what is 'agnets'; must be one of"),
        ("train", "which experiment?"),
        ("train grid_navi/rl3", "unknown experiment 'grid_navi/rl3': did you mean grid_navi/rl2?"),
        ("train absent.py", "no recipe at absent.py"),
        ("train --seed 3", "the experiment comes first"),
        ("train recipe.py --agent.learning-rate abc", "--agent.learning-rate is 'abc'; it takes FLOAT"),
        ("train recipe.py --agent.learning-rate=abc", "--agent.learning-rate is 'abc'; it takes FLOAT"),
        ("train recipe.py --agent.learning_rate -1", "agent: learning_rate is -1.0; must be positive"),
        (
            "train recipe.py --agent.learning-rate 5e-5",
            "final_learning_rate is 0.0001 and learning_rate 5e-05; the final",
        ),
        ("train recipe.py --agent.learning-rate", "Missing value for argument '--agent.learning-rate'"),
        (
            "train recipe.py --agent.memory gur",
            "--agent.memory is 'gur': did you mean gru?",
        ),
        (
            "train recipe.py --agent.hidden-siz 3",
            "unknown option --agent.hidden-siz; did you mean --agent.hidden-size?",
        ),
        ("train recipe.py --agent.target-kl x", "--agent.target-kl is 'x'; it takes {None}|FLOAT"),
        ("train recipe.py --agent.head-sizes 8 x", "--agent.head-sizes is '8 x'; it takes [INT [INT ...]]"),
        ("train recipe.py --agent.normalise-obs maybe", "unknown argument 'maybe' after --agent.normalise-obs"),
        ("train recipe.py --train.num-iterations 0", "train: num_iterations is 0; must be at least 1"),
        ("train recipe.py --family.num-arms 1", "family: num_arms is 1"),
        ("train recipe.py --seed -1", "seed is -1; must be 0 or more"),
        (
            "train half_cheetah_vel/promp --family.velocity.ood middle",
            "--family.velocity.ood is 'middle'; it takes {[FLOAT [FLOAT ...]]}|{extrapolation,interpolation}",
        ),
        ("train sinusoid/maml --family.x 3", "--family.x is '3'; it takes 2 values"),
        ("train recipe.py --device gpu", "--device is 'gpu'; must be one of 'cpu', 'cuda'"),
        ("train recipe.py --run-dir recipe.py/run", "cannot create a run in recipe.py/run: Not a directory"),
        ("train recipe.py --run-dir .", "is not empty"),
        ("train broken.py", "recipe broken.py does not load: SyntaxError"),
        ("train empty.py", "recipe empty.py has no module-level `experiment"),
        ("resume absent", "there is no run at absent"),
        ("evaluate .", "is not a run: it has no config.json"),
        ("evaluate absent --split odd", "--split is 'odd'; must be one of 'train', 'val', 'test', 'ood'"),
        ("evaluate absent --tasks 0", "--tasks is 0; must be at least 1"),
        ("evaluate absent --seed 99999999999999999999", "--seed is 99999999999999999999; must be in [0, 2^62 - 1]"),
        ("evaluate absent --points 0", "--points is 0; must be at least 1"),
        ("baselines bandi", "unknown task family 'bandi': did you mean bandit?"),
        ("baselines bernoulli_bandit --trials 1", "--trials is 1; must be at least 2"),
        ("benchmark simulatoin", "unknown benchmark 'simulatoin': did you mean simulation?"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(recipe, capsys, words, message):
    Path("broken.py").write_text("experiment = (")
    Path("empty.py").write_text("")
    status, _, errors = run(capsys, *words.split())
    assert status == 2
    assert message in errors
    assert errors.startswith("metarl: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_mistake_is_the_same_line_in_any_encoding(encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    words = [sys.executable, "-m", "experiments", "evaluate", "run", "--tasks", "x"]
    result = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert result.stderr == "metarl: --tasks is 'x'; it takes INT (see metarl evaluate --help)\n"


def test_a_gpu_that_is_not_there_is_said(recipe, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, _, errors = run(capsys, "train", recipe, "--device", "cuda", "--run-dir", "run")
    assert status == 2
    assert "no CUDA GPU" in errors
    assert not Path("run").exists()


def test_help_of_an_experiment_names_every_field(recipe, capsys):
    status, output, _ = run(capsys, "train", recipe, "--help")
    assert status == 0
    for flag in ("--seed", "--device", "--run-dir", "--agent.learning-rate", "--train.num-tasks", "--family.num-arms"):
        assert f"{flag} " in output


# From train to evaluate


def test_train_evaluate_resume(recipe, capsys):
    overrides = ["--seed", "5", "--agent.normalise-obs", "False", "--agent.head_sizes", "4", "4"]
    status, output, errors = run(capsys, "train", recipe, "--run-dir", "run", *overrides)
    assert status == 0, errors
    assert "oracle" in output
    assert "NOT reached" in output
    assert "tensorboard --logdir_spec run:run" in output
    assert Path("run/evaluation_test.png").read_bytes().startswith(b"\x89PNG")
    config = Run.open("run").config()
    assert (config["seed"], config["agent"]["normalise_obs"], config["agent"]["head_sizes"]) == (5, False, [4, 4])

    words = ["evaluate", "run", "--split", "ood", "--tasks", "6", "--episodes", "2", "--json"]
    status, output, _ = run(capsys, *words)
    assert status == 0
    answer = json.loads(output)  # one object and nothing else
    assert (answer["family"], answer["agent"], answer["split"], answer["num_tasks"]) == (
        "bernoulli_bandit",
        "rl2",
        "ood",
        6,
    )
    assert [set(episode) for episode in answer["points"]] == [{"mean", "iqm", "ci95"}] * 2
    assert all(len(values) == 2 for values in answer["bounds"].values())
    assert json.loads(run(capsys, *words)[1]) == answer
    assert (answer["evaluation_seed"], answer["checkpoint"], answer["iteration"], answer["num_samples"]) == (
        0,
        "latest",
        3,
        36,
    )
    assert not list(Path("run").glob("evaluation_ood*"))

    status, output, _ = run(capsys, "resume", "run")
    assert status == 0
    assert "This run is finished: 3 iterations" in output
    assert run(capsys, "resume", "run", "--num-iterations", "2")[0] == 2
    assert run(capsys, "resume", "run", "--num-iterations", "5")[0] == 0
    assert Run.open("run").load("latest")["iteration"] == 5
    assert Run.open("run").config()["train"]["num_iterations"] == 5
    assert len(Run.open("run").progress()) == 5


def test_an_evaluation_that_is_asked_for_later_has_a_file_of_its_own(trained, capsys):
    of_training = {path: path.read_bytes() for path in Path("run").glob("evaluation_*")}
    assert {path.name for path in of_training} == {"evaluation_test.json", "evaluation_test.png"}
    first = json.loads(of_training[Path("run/evaluation_test.json")])
    assert (first["num_tasks"], first["evaluation_seed"], first["checkpoint"], first["iteration"]) == (
        5,
        0,
        "latest",
        3,
    )
    words = ["evaluate", "run", "--tasks", "6", "--checkpoint", "best"]
    assert run(capsys, *words, "--seed", "1")[0] == 0
    assert run(capsys, *words)[0] == 0
    words += ["--episodes", "2"]
    status, output, errors = run(capsys, *words)
    assert status == 0, errors
    best = Run.open("run").load("best")
    for asked in ("6x2", "6x3"):
        name = f"evaluation_test_{asked}_i{best['iteration']}_s0"
        saved = json.loads(Path(f"run/{name}.json").read_text())
        assert Path(f"run/{name}.png").is_file()
        assert (saved["evaluation_seed"], saved["checkpoint"], saved["num_samples"]) == (0, "best", best["num_samples"])
    assert len(list(Path("run").glob("evaluation_*"))) == 8
    assert all(path.read_bytes() == content for path, content in of_training.items())
    assert f"run/evaluation_test_6x2_i{best['iteration']}_s0.json" in output
    assert json.loads(run(capsys, *words, "--json")[1]).keys() == saved.keys()


def test_an_evaluation_by_the_mode_and_the_scores_of_its_tasks_have_files_of_their_own(trained, capsys):
    status, output, errors = run(capsys, "evaluate", "run", "--tasks", "6", "--deterministic", "--per-task", "csv")
    assert status == 0, errors
    assert "deterministic: True" in output
    stem = Path("run/evaluation_test_6x3_deterministic_i3_s0")
    saved = json.loads(stem.with_suffix(".json").read_text())
    assert saved["facts"]["deterministic"] is True
    with stem.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["task"]), int(row["episode"])) for row in rows] == [(n, k) for n in range(6) for k in (1, 2, 3)]
    scores, arms = saved["per_task"]["scores"], saved["per_task"]["parameters"]["mean"]
    for row in rows:
        task, point = int(row["task"]), int(row["episode"]) - 1
        assert float(row["return"]) == scores[point][task]
        assert [float(row["task.mean.0"]), float(row["task.mean.1"])] == arms[task]
    assert (
        len(stem.with_suffix(".json").read_text().splitlines()) < 200
    )  # a line for all tasks, not one for each number
    status, _, errors = run(capsys, "evaluate", "run", "--tasks", "6", "--json", "--per-task", "csv")
    assert (status, errors.count("\n")) == (2, 1)
    assert "--json prints the scores of each task already" in errors


def test_the_evaluation_after_training_has_the_scores_of_its_tasks(recipe, capsys):
    status, output, _ = run(capsys, "train", recipe, "--run-dir", "run")
    assert status == 0
    saved = json.loads(Path("run/evaluation_test.json").read_text())
    assert [len(point) for point in saved["per_task"]["scores"]] == [5, 5, 5]
    gains = [last - first for first, last in zip(*saved["per_task"]["scores"][::2], strict=True)]
    assert saved["gain"]["mean"] == pytest.approx(sum(gains) / 5)
    assert re.search(r"│ +gain │", output)


def test_points_beyond_training_are_marked(trained, capsys):
    _, output, _ = run(capsys, "evaluate", "run", "--tasks", "6", "--points", "5")
    assert [word in output for word in (" 3 ", " 3* ", " 4* ", " 5* ")] == [True, False, True, True]
    assert "* beyond training, whose trials ended at episode 3" in output
    assert "beyond training" not in run(capsys, "evaluate", "run", "--tasks", "6", "--points", "3")[1]


@pytest.mark.parametrize("data_dir", ["photos", "../photos", "~/photos", "/somewhere/photos"])
def test_a_relative_folder_of_data_lies_beside_the_recipe(data_dir, tmp_path, monkeypatch):
    """From whatever folder the recipe is trained, and the run read."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "project").mkdir()
    recipe = tmp_path / "project" / "recipe.py"
    recipe.write_text(
        "from experiments.experiment.definition import load\n"
        "from dataclasses import replace\n"
        "shipped = load('omniglot/maml')\n"
        f"experiment = replace(shipped, family=replace(shipped.family, data_dir={data_dir!r}))\n"
    )
    monkeypatch.chdir(tmp_path)
    experiment = load("project/recipe.py")
    expected = {"~/photos": tmp_path / "home" / "photos"}.get(data_dir, tmp_path / "project" / data_dir)
    assert Path(experiment.family.data_dir) == expected
    config = to_config(experiment, "project/recipe.py")
    monkeypatch.chdir("/")
    assert from_config(config, Path("run")).family.data_dir == str(expected)


def test_an_evaluation_takes_other_settings_than_training(trained, capsys):
    config = Path("run/config.json").read_bytes()
    words = ["evaluate", "run", "--tasks", "6"]
    longer = ["--family.num-pulls", "30", "--seed", "1", "--agent.normalise-obs", "true"]
    status, output, errors = run(capsys, *words, *longer, "--json")
    assert status == 0, errors
    answer = json.loads(output)
    assert answer["facts"] == {"family.num_pulls": 30}  # what is as it was is not named
    assert answer["evaluation_seed"] == 1
    assert len(answer["points"]) == 30
    assert run(capsys, *words, *longer)[0] == 0
    assert Path("run/evaluation_test_6x30_family.num_pulls=30_i3_s1.json").is_file()
    assert Path("run/config.json").read_bytes() == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--family.num-pull 4", "unknown option --family.num-pull; did you mean --family.num-pulls?"),
        ("--family.num-pulls x", "--family.num-pulls is 'x'; it takes INT"),
        ("--family.num-pulls 0", "num_pulls is 0; must be at least 1"),
        ("--agent.hidden-size 16", "checkpoints/latest.pt does not fit the settings in run/config.json: agent."),
        ("--family.num-arms 3", "checkpoints/latest.pt does not fit the settings in run/config.json: agent."),
        ("--train.num-tasks 3", "unknown option --train.num-tasks"),
    ],
)
def test_settings_that_an_evaluation_cannot_take(trained, words, message, capsys):
    status, _, errors = run(capsys, "evaluate", "run", "--tasks", "6", *words.split())
    assert (status, errors.count("\n")) == (2, 1)
    assert message in errors


def test_an_evaluation_is_shown_even_where_it_cannot_be_saved(trained, capsys):
    Path("run/evaluation_test_6x3_i3_s0.json").mkdir()  # in the way of the file
    status, output, errors = run(capsys, "evaluate", "run", "--tasks", "6")
    assert "95 % interval" in output
    assert status == 2
    assert errors == "metarl: cannot write run/evaluation_test_6x3_i3_s0.json: Is a directory\n"


def test_a_finished_run_is_left_alone(trained, capsys):
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    status, output, _ = run(capsys, "resume", "run")
    assert status == 0
    assert output.startswith("This run is finished: 3 iterations. Evaluate it with: metarl evaluate run;")
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_a_split_that_the_family_does_not_have_is_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [
        "--train.num-iterations",
        "1",
        "--train.num-tasks",
        "2",
        "--train.eval-tasks",
        "2",
        "--family.horizon",
        "4",
    ]
    assert run(capsys, "train", "half_cheetah_dir/rl2", "--run-dir", "run", *small)[0] == 0
    status, _, errors = run(capsys, "evaluate", "run", "--split", "ood")
    assert status == 2
    assert "split is 'ood'; must be one of train, test for half_cheetah_dir" in errors
    assert errors.count("\n") == 1
    assert not Path("run/evaluation_ood.json").exists()


def test_without_a_directory_the_run_names_its_family_agent_and_seed(recipe, capsys):
    assert run(capsys, "train", recipe, "--seed", "7", "--train.num-iterations", "1")[0] == 0
    (path,) = Path("runs/bernoulli_bandit/rl2").iterdir()
    assert path.name.endswith("_s7")


def test_a_failing_simulation_is_one_line_and_keeps_the_run(recipe, capsys, monkeypatch):
    def explode(self: Any) -> None:
        raise FloatingPointError("reward at step 3 of row 1 is not finite")

    monkeypatch.setattr("metarl.trainer.Trainer.iterate", explode)
    status, _, errors = run(capsys, "train", recipe, "--run-dir", "run")
    assert status == 1
    assert errors.splitlines()[1:] == [
        "metarl: reward at step 3 of row 1 is not finite; what was saved before is in run"
    ]


def test_baselines_print_a_table_or_one_object(capsys):
    words = ["baselines", "bernoulli_bandit", "--trials", "20", "--family.num-arms", "2", "--family.num-pulls", "3"]
    status, output, _ = run(capsys, *words)
    assert status == 0
    assert "thompson" in output
    answer = json.loads(run(capsys, *words, "--json")[1])
    assert answer["num_trials"] == 20
    assert {"random", "oracle"} <= {result["name"] for result in answer["baselines"]}


def test_baselines_of_a_run_are_kept_in_it_and_drawn(recipe, capsys, monkeypatch):
    assert run(capsys, "train", recipe, "--run-dir", "my run")[0] == 0
    status, output, errors = run(capsys, "baselines", "my run", "--trials", "20")
    assert status == 0, errors
    assert "Saved: my run/baselines.json; drawn in the figures of: metarl evaluate 'my run'" in output
    saved = json.loads(Path("my run/baselines.json").read_text())
    assert (saved["family"], saved["num_trials"], saved["seed"]) == ("bernoulli_bandit", 20, 0)
    thompson = next(result for result in saved["baselines"] if result["name"] == "thompson")
    assert len(thompson["episodes"]) == 3
    assert sum(thompson["episodes"]) == pytest.approx(thompson["mean"])
    drawn: list[set[str]] = []
    original = plots._draw_adaptation
    monkeypatch.setattr(plots, "_draw_adaptation", lambda *given: drawn.append({*given[2]}) or original(*given))
    for words in ([], ["--points", "2"], ["--points", "4"], ["--split", "ood"], ["--family.num-pulls", "2"]):
        assert run(capsys, "evaluate", "my run", "--tasks", "6", *words)[0] == 0
    own = {"oracle", "random"}
    everything = own | {"greedy", "epsilon_greedy", "ucb1", "thompson", "gittins"}
    assert drawn == [everything, everything, own, own, own]
    assert run(capsys, "baselines", "my run", "--family.num-pulls", "2")[0] == 2


@pytest.mark.parametrize(
    "words", [["recipe.py"], ["bernoulli_bandit/rl2", "--family.num-pulls", "3"], ["bandit", "--family.num-pulls", "3"]]
)
def test_baselines_are_of_recipes_and_experiments_too(recipe, capsys, words):
    status, output, errors = run(capsys, "baselines", *words, "--trials", "4", "--json")
    assert status == 0, errors
    answer = json.loads(output)
    assert answer["family"] == "bernoulli_bandit"
    assert all(len(result["episodes"]) == 3 for result in answer["baselines"])


def test_a_robot_of_a_recipe_has_baselines(capsys):
    status, output, errors = run(capsys, "baselines", "own_robot/rl2", "--trials", "2", "--ppo-steps", "1", "--json")
    assert status == 0, errors
    assert {result["name"] for result in json.loads(output)["baselines"]} == {"random", "ppo_hidden", "ppo_visible"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("omniglot", "omniglot has no baselines"),
        ("sinusoid/maml", "sinusoid has no baselines"),
        ("grid_navi/rl3", "unknown experiment 'grid_navi/rl3': did you mean grid_navi/rl2?"),
        ("runs/grid_navi/rl2/absent", "there is no run at runs/grid_navi/rl2/absent"),
        ("absent.py", "there is no recipe at absent.py"),
        ("grid_navy", "unknown task family 'grid_navy': did you mean grid_navi?"),
    ],
)
def test_what_has_no_baselines_is_one_line(recipe, capsys, name, message):
    status, _, errors = run(capsys, "baselines", name, "--trials", "2")
    assert (status, errors.count("\n")) == (2, 1)
    assert message in errors


# Checking a family


def test_a_check_prints_spaces_ranges_and_what_two_policies_get(capsys):
    status, output, _ = run(capsys, "check", "point_navigation", "--tasks", "5", "--family.horizon", "6")
    assert status == 0
    assert "all laws hold" in output
    for row in ("goal", "reward per step", "ended by the task", "steps per second", "-0.1 to 0.1"):
        assert row in output


def test_a_check_as_json_has_the_numbers(capsys):
    status, output, _ = run(capsys, "check", "bernoulli_bandit", "--tasks", "7", "--family.num-pulls", "3", "--json")
    facts = json.loads(output)
    assert (status, facts["num_tasks"]) == (0, 7)
    assert facts["random"]["episode_steps"] == 1
    assert 0 <= facts["at_rest"]["reward"][0] <= facts["at_rest"]["reward"][1] <= facts["at_rest"]["reward"][2] <= 1


def test_a_check_draws_a_sheet_of_tasks(capsys, tmp_path):
    path = tmp_path / "tasks.png"
    status, output, _ = run(
        capsys, "check", "wind", "--family.horizon", "4", "--tasks", "2", "--sheet", str(path), "--sheet-tasks", "3"
    )
    assert (status, f"Sheet: {path}" in output) == (0, True)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sinusoid"], "sinusoid cannot be checked"),
        (["grid_navy"], "unknown task family 'grid_navy': did you mean grid_navi?"),
        (["grid_navi", "--tasks", "0"], "--tasks is 0; must be at least 1"),
        (["grid_navi", "--sheet", "tasks.jpg"], "--sheet is 'tasks.jpg'; must end in .png"),
        (["bernoulli_bandit", "--sheet", "tasks.png"], "bernoulli_bandit cannot be rendered"),
    ],
)
def test_what_cannot_be_checked_is_one_line(capsys, words, message):
    status, _, errors = run(capsys, "check", *words)
    assert (status, errors.count("\n")) == (2, 1)
    assert message in errors


@pytest.mark.slow
def test_the_doctor_measures_the_simulator(capsys):
    status, output, _ = run(capsys, "doctor")
    assert status == 0, output
    assert re.search(r"half_cheetah_vel: [\d,]+ env-steps/s", output)


# Progress


def fake_trainer(num_iterations: int) -> Any:
    source = SimpleNamespace(measure=RETURN, unit_rate=TrialSource.unit_rate, score_tag=TrialSource.score_tag)
    config = SimpleNamespace(num_iterations=num_iterations)
    return SimpleNamespace(source=source, iteration=0, num_points=2, config=config)


def show(terminal: bool, num_iterations: int = 1000, width: int = 120) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width)
    trainer = fake_trainer(num_iterations)
    with TrainingProgress(trainer, console=console) as progress:
        for iteration in range(1, num_iterations + 1):
            trainer.iteration = iteration
            progress(trainer, {"time/fps": 12345.0, "meta_train/return/ep_1": 1.5, "meta_train/return/ep_2": 2.5})
    return cast(io.StringIO, console.file).getvalue()


def test_progress_is_calm_where_there_is_no_terminal():
    lines = show(terminal=False).splitlines()
    assert len(lines) == 20
    assert lines[0].startswith("50/1000 (5%)  12,345 env-steps/s  0:00 left  return 1.5 in episode 1, 2.5 in 2")
    assert lines[-1].startswith("1000/1000 (100%)")


def test_progress_on_a_terminal_is_a_bar():
    text = show(terminal=True)
    assert "━" in text
    assert "12,345 env-steps/s" in text


@pytest.mark.parametrize("width", [40, 60])
def test_progress_in_a_narrow_terminal_is_whole(width):
    text = show(terminal=True, width=width)
    assert "…" not in text
    for part in ("1000/1000", "12,345 env-steps/s", "0:00 left"):
        assert part in text
    assert "2.5 in 2" in " ".join(text.split())


# The report


@pytest.mark.parametrize("width", [40, 59, 80, 140])
def test_the_report_is_whole_in_any_terminal(width):
    scores = [Score(-1234.5, -1200.25, (-1300.0, -1100.0)), Score(-50.21, -49.12, (-51.0, -49.0))]
    bounds = {"bayes_optimal": [1.25, 2.25], "oracle": [3.5, 4.5], "random": [-1.75, -2.75]}
    evaluation = Evaluation("half_cheetah_vel", "rl2", "test", 1000, scores, scores[0], bounds, {"speed": [6.5, 7.5]})
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width)
    print_evaluation(evaluation, Expected(source="our own", at_least=3.0), console)
    lines = cast(io.StringIO, console.file).getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if "…" in line]
    cells = [cell.strip() for line in lines for cell in re.split("[│┃]", line)]
    for cell in ("episode", "95 % interval", "-1,234", "-50.21", "-51.00 to -49.00", "bayes-optimal", "8.00", "speed"):
        assert cell in cells
    tables = cells.count("episode")
    assert [cells.count(number) for number in ("1", "2", "all")] == [tables] * 3
    assert (tables == 1) == (width == 140)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")])
def test_durations_read_as_on_a_clock(seconds, text):
    assert duration(seconds) == text


def test_fields_that_an_agent_no_longer_has_are_passed_over_in_an_older_config():
    experiment = load("point_navigation/promp")
    config = to_config(experiment, "point_navigation/promp")
    config["agent"] |= {"outer": "clipped", "max_kl": 0.3, "num_cg_steps": 10}  # a trust region that had no effect
    assert from_config(config, Path("run")) == experiment
    config["agent"]["outer"] = "plain"
    with pytest.raises(UserError, match=r"agent\.outer is not a field"):
        from_config(config, Path("run"))


def test_fields_that_have_a_new_name_are_read_from_an_older_config():
    experiment = load("semicircle/pearl")
    config = to_config(experiment, "semicircle/pearl")
    for part, old, new in (
        ("agent", "target_share", "tau"),
        ("train", "num_episodes", "num_points"),
        ("expected", "episode", "point"),
    ):
        config[part][old] = config[part].pop(new)
    assert from_config(config, Path("run")) == experiment

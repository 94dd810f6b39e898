"""A run's directory from anywhere is read without any of the code that it names or has being run."""

import hashlib
import json
import os
import pickle
import py_compile
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import metarl
from experiments.cli.main import main
from experiments.experiment.code_choice import CodeChoice
from metarl.errors import UserError
from metarl.run.kept_files import CodeRecord, last_record

RECIPE = """'''A bandit with a class of its own.'''
from dataclasses import dataclass

from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from experiments import Experiment, TrainConfig
from arms import NUM_ARMS


@dataclass(frozen=True)
class Bandit(BernoulliBandit):
    num_arms: int = NUM_ARMS


experiment = Experiment(
    Bandit(num_pulls=3),
    RL2Config(hidden_size=4, head_sizes=(), num_epochs=1),
    TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=2),
)
"""
PAYLOAD = """import os, pathlib
pathlib.Path(os.environ["MARK"]).write_text(__name__)
"""
EVIL = PAYLOAD + RECIPE.replace("from arms import NUM_ARMS", "NUM_ARMS = 2")


class Runs(pickle.Unpickler):
    """Unpickling it writes the mark."""

    def __init__(self) -> None: ...

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (PAYLOAD,)


def metarl_command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    out, errors = capsys.readouterr()
    return int(stop.value.code or 0), out, errors


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, a module beside it, and a run of this user's made from them."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "recipe.py").write_text(RECIPE)
    (folder / "arms.py").write_text("NUM_ARMS = 2\n")
    metarl.train(folder / "recipe.py", run_dir=folder / "run", progress=False)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that run, in whose directory we are, with a file that payloads write when they are run."""
    path = shutil.copytree(trained / "run", tmp_path / "run")
    monkeypatch.chdir(path)
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))  # what an attacker knows to be installed
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "installed.py").write_text(EVIL)
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def config(**values: Any) -> Callable[[Path], None]:
    """Set fields of config.json, by dotted names."""

    def change(run: Path) -> None:
        def update(whole: dict[str, Any]) -> None:
            for name, value in values.items():
                *parts, last = name.split("__")
                target = whole
                for part in parts:
                    target = target[part]
                target[last] = value

        edit(run / "config.json", update)

    return change


def both(*changes: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        for each in changes:
            each(run)

    return change


def file(name: str, text: str = EVIL) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        (run / name).parent.mkdir(exist_ok=True, parents=True)
        (run / name).write_text(text)

    return change


def recipe_in_run(run: Path) -> None:
    file("evil.py")(run)
    config(experiment=str(run / "evil.py"), family__class="metarl_recipe:Bandit")(run)


def unsigned_copies(run: Path) -> None:
    """Copies of an attacker's own, with a record that fits them but for the signature."""
    file("code/0/files/recipe.py")(run)
    file("code/0/files/arms.py", PAYLOAD)(run)
    kept = last_record(run)
    assert kept is not None
    hashes = {
        name: hashlib.sha256((kept.folder / "files" / name).read_bytes()).hexdigest()
        for name in ("recipe.py", "arms.py")
    }
    files = tuple(replace(one, sha256=hashes[Path(one.path).name]) for one in kept.record.files)
    write_record(run, replace(kept.record, files=files))


def write_record(run: Path, record: CodeRecord) -> None:
    (run / "code" / "0" / "record.json").write_text(json.dumps(asdict(record)))


def another_recipe_for_the_signature(run: Path) -> None:
    """The user's own signature, which is for other code than what the config names."""
    file("evil.py")(run)
    config(experiment=str(run / "evil.py"))(run)


def record(**values: Any) -> Callable[[Path], None]:
    return lambda run: edit(run / "code" / "0" / "record.json", lambda whole: whole.update(values))


def checkpoint(write: Callable[[Path], object]) -> Callable[[Path], None]:
    """Another checkpoint, in a run that needs no code."""

    def change(run: Path) -> None:
        for name in ("latest", "best"):
            write(run / "checkpoints" / f"{name}.pt")

    return change


def torch_script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as it is deprecated
        torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))


NO_CODE = config(experiment="bernoulli_bandit/rl2", family__class="envs.torch_families.bandits:BernoulliBandit")
GYMNASIUM = {"class": "envs.external.gymnasium_family:GymnasiumFamily", "env": "installed:Env-v0"}
PAYLOADS = {
    "a function of the standard library as a class": config(family__class="os:system"),
    "a module of the standard library as a class": config(family__class="this:d"),
    "a class of a dotted name": config(agent__class="agents.rl2:RL2Config.__init__"),
    "a class that is no configuration": config(agent__class="subprocess:Popen"),
    "our own command as a class": config(agent__class="experiments.__main__:main"),
    "a module in the run's directory": both(file("evil.py"), config(family__class="evil:Bandit")),
    "a module that is installed": config(agent__class="installed:RL2Config"),
    "a recipe in the run's directory": recipe_in_run,
    "a recipe by a relative path": both(recipe_in_run, config(experiment="evil.py")),
    "a recipe by a name with dots": both(recipe_in_run, config(experiment="../evil")),
    "a recipe by a module's name": config(experiment="installed"),
    "another recipe than the signed one": another_recipe_for_the_signature,
    "copies without a signature": unsigned_copies,
    "copies with an empty signature": both(unsigned_copies, record(signature="")),
    "copies that are somewhere else": record(
        files=[{"path": "/x.py", "sha256": "0", "copy": "../../evil.py", "module": "metarl_recipe"}]
    ),
    "a part of a recipe": both(recipe_in_run, NO_CODE, config(family__of_recipe=["reward"], experiment="evil.py")),
    "an environment of another module": config(experiment="pendulum/rl2", family={**GYMNASIUM, "of_recipe": ["x"]}),
    "an environment with an empty list": config(experiment="pendulum/rl2", family={**GYMNASIUM, "of_recipe": []}),
    "an environment without a recipe": config(experiment="pendulum/rl2", family={**GYMNASIUM, "tasks": {}}),
    "a pickle as the checkpoint": both(NO_CODE, checkpoint(lambda path: path.write_bytes(pickle.dumps(Runs())))),
    "a pickled object in a checkpoint": both(NO_CODE, checkpoint(lambda path: torch.save({"agent": Runs()}, path))),
    "a script as the checkpoint": both(NO_CODE, checkpoint(torch_script)),
}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_is_run(payload: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    PAYLOADS[payload](run)
    modules = set(sys.modules)
    for command in (["evaluate", ".", "--tasks", "2"], ["play", "."], ["resume", ".", "--num-iterations", "2"]):
        for flags in ([], ["--as-trained"], ["--with-current"]):
            status, out, errors = metarl_command(capsys, *command, *flags)
            assert (status, out) == (2, ""), (command, flags, out, errors)
            assert errors.startswith("metarl: ")
            assert errors.count("\n") == 1, errors
    for read in (metarl.load, metarl.evaluate):
        with pytest.raises(UserError):
            read(run)
    assert not (tmp_path / "mark").exists()
    assert not {"this", "evil", "installed", "experiments.__main__"} & (set(sys.modules) - modules)


# What the user's own word does


def evaluated(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    status, _, errors = metarl_command(capsys, "evaluate", ".", "--tasks", "2", "--json", *words)
    assert status == 0, errors
    return errors


@pytest.fixture
def elsewhere(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run on the machine of somebody else, who has another key."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return run


def test_a_users_own_run_is_read_without_a_word(run: Path, capsys: pytest.CaptureFixture[str]):
    assert evaluated(capsys) == ""
    assert evaluated(capsys, "--as-trained") == ""


def test_somebody_elses_run_needs_a_word(elsewhere: Path, trained: Path, capsys: pytest.CaptureFixture[str]):
    status, _, errors = metarl_command(capsys, "evaluate", ".")
    assert status == 2
    assert "--trust" in errors
    assert "--recipe PATH" in errors
    recipe, module = trained / "recipe.py", trained / "arms.py"
    assert evaluated(capsys, "--trust") == f"metarl: running code that . names: {recipe}, {module}\n"
    copies = "code/0/files/recipe.py, code/0/files/arms.py"
    assert evaluated(capsys, "--trust", "--as-trained") == f"metarl: running code that . names: {copies}\n"
    assert evaluated(capsys, "--recipe", str(trained / "recipe.py")) == ""
    assert metarl.load(elsewhere, recipe=trained / "recipe.py")
    with pytest.raises(UserError, match="needs code that you have not run here"):
        metarl.load(elsewhere)


def test_baselines_of_somebody_elses_run_need_a_word_too(elsewhere, trained, capsys):
    words = ("baselines", str(elsewhere), "--trials", "2", "--ppo-steps", "0", "--json")
    status, _, errors = metarl_command(capsys, *words)
    assert status == 2
    assert "needs code that you have not run here" in errors
    status, output, errors = metarl_command(capsys, *words, "--recipe", str(trained / "recipe.py"))
    assert status == 0, errors
    assert json.loads(output)["family"] == "bernoulli_bandit"


def test_a_payload_is_run_by_whoever_trusts_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recipe_in_run(run)
    evaluated(capsys, "--trust", "--with-current")
    assert (tmp_path / "mark").read_text() == "metarl_recipe"


@pytest.mark.parametrize("text", ["", "x = 1", "import experiment_tools", "def experiment(:", "print(experiment)"])
def test_what_is_not_a_recipe_is_not_run_even_if_trusted(run, tmp_path, capsys, text):
    recipe_in_run(run)
    (run / "evil.py").write_text(f"{PAYLOAD}{text}\n")
    status, _, errors = metarl_command(capsys, "evaluate", ".", "--trust", "--with-current")
    assert status == 2
    assert "is not a recipe" in errors
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["recipe.py", "arms.py"])
def test_a_copy_that_was_changed_is_not_run(run, tmp_path, capsys, name):
    (run / "code" / "0" / "files" / name).write_text(EVIL)
    for flags in (["--as-trained"], ["--as-trained", "--trust"]):
        status, _, errors = metarl_command(capsys, "evaluate", ".", *flags)
        assert status == 2
        assert f"code/0/files/{name} has been changed since it was kept" in errors
    assert not (tmp_path / "mark").exists()


def test_of_the_copies_folder_only_what_the_record_has_is_run(run, tmp_path, capsys):
    folder = run / "code" / "0" / "files"
    for name in ("torch.py", "numpy.py", "dataclasses.py", "agents.py"):
        (folder / name).write_text(EVIL)
    original = (folder / "arms.py").read_bytes()
    (folder / "arms.py").write_bytes(PAYLOAD.encode().ljust(len(original), b"\n"))
    py_compile.compile(str(folder / "arms.py"))  # whose date and size are those of the source file
    state = (folder / "arms.py").stat()
    (folder / "arms.py").write_bytes(original.ljust(state.st_size))
    edit_hash(run, "arms.py")
    os.utime(folder / "arms.py", ns=(state.st_atime_ns, state.st_mtime_ns))
    evaluated(capsys, "--as-trained", "--trust")
    assert not (tmp_path / "mark").exists()


def edit_hash(run: Path, name: str) -> None:
    kept = last_record(run)
    assert kept is not None
    digest = hashlib.sha256((kept.folder / "files" / name).read_bytes()).hexdigest()
    files = tuple(replace(one, sha256=digest) if one.path.endswith(name) else one for one in kept.record.files)
    write_record(run, replace(kept.record, files=files))


def test_a_signature_is_for_one_record_and_one_key(run, capsys):
    record(iteration=1)(run)
    status, _, errors = metarl_command(capsys, "evaluate", ".", "--as-trained")
    assert status == 2
    assert "needs code that you have not run here" in errors


def test_a_run_of_a_catalogs_classes_needs_no_key_and_no_code(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "not_a_folder"))
    (tmp_path / "not_a_folder").write_text("")
    plain = RECIPE.replace("from arms import NUM_ARMS", "").replace("    Bandit(", "    BernoulliBandit(")
    (tmp_path / "plain.py").write_text(plain.replace("NUM_ARMS", "2"))
    metarl.train(tmp_path / "plain.py", run_dir=tmp_path / "run", progress=False)
    (tmp_path / "plain.py").unlink()
    monkeypatch.chdir(tmp_path / "run")
    assert evaluated(capsys) == ""


def edited_records(record: dict[str, Any]) -> list[Any]:
    """The record with each of its values, and those of its first file, replaced by what it must not be."""
    wrong: list[Any] = [
        None,
        3,
        -1.5,
        "",
        "\0",
        "\ud800",
        "/dev/zero",
        "../..",
        [],
        {},
        [[]],
        {"a": None},
        "os",
        10**400,
    ]
    edits: list[Any] = [[], {}, None, 3, "x"]
    for name in record:
        edits += [{**record, name: value} for value in wrong]
        edits.append({key: value for key, value in record.items() if key != name})
    first, *others = record["files"]
    for name in first:
        edits += [{**record, "files": [{**first, name: value}, *others]} for value in wrong]
    return edits


def test_a_record_that_was_edited_is_one_line_and_runs_nothing(run: Path, tmp_path: Path):
    path = run / "code" / "0" / "record.json"
    original = json.loads(path.read_text())
    file("code/evil.py")(run)
    outcomes: list[str] = []
    for edited in edited_records(original):
        path.write_text(json.dumps(edited))
        for choice in (CodeChoice(), CodeChoice(as_trained=True), CodeChoice(with_current=True)):
            try:
                metarl.load(run, as_trained=choice.as_trained, with_current=choice.with_current)
                outcomes.append("read")
            except UserError as error:
                outcomes.append(str(error))
    assert not [outcome for outcome in outcomes if "\n" in outcome]
    assert len(outcomes) > 400
    assert len(set(outcomes)) > 20
    assert not (tmp_path / "mark").exists()


def test_another_environment_than_the_recipes_is_made_for_whoever_trusts_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = {"family.horizon": 3, "family.num_workers": 0}
    few = {"train.num_iterations": 1, "train.num_tasks": 2, "train.eval_tasks": 2}
    metarl.train("pendulum/rl2", overrides={**small, **few}, run_dir="run", progress=False)
    monkeypatch.chdir("run")
    assert evaluated(capsys) == ""
    config(family__env="gymnasium.envs.classic_control:Pendulum-v1")(tmp_path / "run")
    status, _, errors = metarl_command(capsys, "evaluate", ".")
    assert status == 2
    assert "and the recipe's is 'Pendulum-v1'; --trust makes it anyway" in errors
    assert "making the former" in evaluated(capsys, "--trust")


def test_what_a_run_needs_no_recipe_for_takes_none(run, capsys):
    NO_CODE(run)
    status, _, errors = metarl_command(capsys, "evaluate", ".", "--recipe", "grid_navi/rl2")
    assert status == 2
    assert "leave it out, as . needs no recipe" in errors


def test_new_code_is_not_written_through_a_link(run, trained, tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (run / "code" / "1").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    words = ["resume", ".", "--num-iterations", "2", "--recipe", str(trained / "recipe.py")]
    status, _, errors = metarl_command(capsys, *words)
    assert status == 2
    assert "is a link out of the run's directory" in errors
    assert not list((tmp_path / "elsewhere").iterdir())


def no_record(run: Path) -> Path:
    path = run / "code" / "0" / "record.json"
    path.unlink()
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: os.mkfifo(no_record(run)), "record.json: there is no such file"),
        (lambda run: no_record(run).mkdir(), "record.json: there is no such file"),
        (lambda run: no_record(run).symlink_to("/dev/zero"), "record.json: there is no such file"),
        (lambda run: no_record(run).write_bytes(b"\xff" * 9), "record.json: Invalid JSON"),
        (lambda run: no_record(run).write_text("[" * 100_000), "record.json: Invalid JSON"),
        (lambda run: (run / "code" / "0").rename(run / "code" / "007"), "code/7/record.json: there is no such file"),
        (lambda run: (run / "code" / "0").rename(run / "code" / "\u00b2"), "needs code that you have not run here"),
        (lambda run: shutil.rmtree(run / "code" / "0" / "files"), None),
    ],
)
def test_records_that_are_no_files_are_one_line(run, capsys, change, message):
    change(run)
    status, _, errors = metarl_command(capsys, "evaluate", ".", "--tasks", "2")
    assert status == (0 if message is None else 2)
    assert message is None or message in errors
    status, _, errors = metarl_command(capsys, "evaluate", ".", "--tasks", "2", "--as-trained")
    assert status == 2
    assert errors.count("\n") == 1

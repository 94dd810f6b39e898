"""metarl sweep: the space of a command line, trials that survive kills, an objective that no test task has a say in."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.ERROR)

from optuna.trial import TrialState  # noqa: E402

from experiments.cli.commands.sweep import Arguments, plan_of  # noqa: E402
from experiments.experiment.definition import load  # noqa: E402
from experiments.workbench.launching import engines  # noqa: E402
from experiments.workbench.launching import worker as ordinary  # noqa: E402
from experiments.workbench.sweeping import worker  # noqa: E402
from experiments.workbench.sweeping.objective import (  # noqa: E402
    VALIDATION_SEED,
    Objective,
    ObjectiveName,
    validate,
    validation_scores,
    validation_split,
)
from experiments.workbench.sweeping.space import choice_of, parse_space, range_of  # noqa: E402
from experiments.workbench.sweeping.study import Pruning, Study  # noqa: E402
from experiments.workbench.sweeping.sweeper import Sweeper, best_of  # noqa: E402
from experiments.workbench.sweeping.warm_start import features, past_trials, similarity  # noqa: E402
from metarl.errors import UserError  # noqa: E402
from metarl.fewshot.regression import Sinusoid  # noqa: E402
from metarl.run.directory import Run  # noqa: E402
from tests.experiments.command import run as metarl  # noqa: E402

RECIPE = '''"""Sinusoids that are learned from for a moment."""

from experiments import Experiment, TrainConfig
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.regression import Sinusoid

experiment = Experiment(
    family=Sinusoid(shots=3, queries=3),
    agent=MAMLConfig(hidden_sizes=(4,)),
    train=TrainConfig(num_iterations=4, num_tasks=2, num_points=2, eval_every=0, eval_tasks=5, checkpoint_every=1),
)
'''
SPACE = ("--agent.outer-lr", "1e-4:1e-2:log", "--agent.num-inner-steps", "1,2")


@pytest.fixture(autouse=True)
def recipe(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE)
    return "recipe.py"


class InThisProcess:
    """An engine whose runs are over as soon as they are started."""

    def __init__(self, *statuses: int) -> None:
        """statuses: of the first runs, which end so before they train."""
        self.statuses, self.started = list(statuses), []

    def start(self, run: Path):
        self.started.append(run)
        return Ended(self.statuses.pop(0) if self.statuses else worker.train(str(run)))

    def close(self) -> None:
        pass


class Ended:
    failure = None

    def __init__(self, status: int | None) -> None:
        self.status = status

    def poll(self) -> int | None:
        return self.status

    def stop(self) -> None:
        pass

    kill = stop


@cache
def space_of(words=SPACE):
    return parse_space("recipe.py", words)


class Stoppable(Ended):
    """A run that goes on until it is stopped, or for fifty looks at it."""

    def __init__(self) -> None:
        super().__init__(None)
        self.polls = 0

    def poll(self) -> int | None:
        self.polls += 1
        return 1 if self.polls > 50 else self.status

    def stop(self) -> None:
        self.status = 143


def silently(text: str) -> None:
    """Print nothing."""


def sweep(engine=None, words=SPACE, folder: str = "out", say=silently, **arguments):
    """A sweeper that is ready to work."""
    space = space_of(words)
    plan, settings = plan_of(Arguments("recipe.py", **{"jobs": 1, "trials": 3, "pruner": "none", **arguments}), space)
    study = Study(Path(folder), settings, "random", 0)
    return Sweeper(plan, study, engine or InThisProcess(), say)


# The space


def suggested(dimension, seed: int) -> str:
    return dimension.suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask())


@given(
    low=st.floats(1e-6, 1e3),
    ratio=st.floats(1.01, 1e4),
    kind=st.sampled_from(["", "log", "step"]),
    seed=st.integers(0, 1000),
    other=st.floats(-1e9, 1e9),
)
def test_a_range_of_numbers_proposes_what_lies_in_it(low, ratio, kind, seed, other):
    high = low * ratio
    end = {"": "", "log": ":log", "step": f":{(high - low) / 7!r}"}[kind]
    dimension = range_of("agent.x", f"{low!r}:{high!r}{end}", float)
    word = float(suggested(dimension, seed))
    assert low <= word <= high
    nearest = dimension.nearest(word)
    assert nearest == pytest.approx(word, rel=1e-3)
    assert dimension.low <= (dimension.nearest(other) or 0.0) <= dimension.high * (1 + 1e-9)


@given(
    low=st.integers(-50, 50),
    steps=st.integers(1, 9),
    step=st.integers(1, 20),
    extra=st.integers(0, 19),
    seed=st.integers(0, 99),
)
def test_a_range_of_integers_proposes_its_steps(low, steps, step, extra, seed):
    high = low + steps * step + extra % step
    dimension = range_of("agent.x", f"{low}:{high}:{step}", int | None)
    members = range(low, high + 1, step)
    assert (dimension.low, dimension.high) == (members[0], members[-1])
    assert int(suggested(dimension, seed)) in members
    assert dimension.nearest(seed) in members
    assert dimension.nearest(members[-1]) == members[-1]


@given(st.lists(st.integers(-9, 9).map(str), min_size=1, max_size=5, unique=True), st.integers(0, 99))
def test_a_list_proposes_one_of_its_values(values, seed):
    dimension = choice_of("agent.x", ",".join(values))
    assert dimension.choices == tuple(values)
    assert suggested(dimension, seed) in values


@given(
    st.text(alphabet="0123456789eE.:-+log ", max_size=12).filter(lambda text: ":" in text),
    st.sampled_from([int, float]),
)
def test_a_text_is_a_range_or_is_refused_in_one_line(text, kind):
    try:
        dimension = range_of("agent.x", text, kind)
    except UserError as error:
        message = str(error)
    else:
        message = f"--agent.x is {text!r}; must be" if dimension.low < dimension.high else ""
    assert message.startswith(f"--agent.x is {text!r}; must be")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--agent.outer-lr", "1e-2:1e-4"), "must be LOW:HIGH, LOW:HIGH:log or LOW:HIGH:STEP with LOW below HIGH"),
        (("--agent.outer-lr", "0:1:log"), "must be above 0 for a logarithmic scale"),
        (("--agent.outer-lr", "-1:1"), "outer_lr is -1"),
        (("--agent.num-inner-steps", "1:2.5"), "must be a range of integers"),
        (("--agent.num-inner-steps", "1,x"), "--agent.num-inner-steps is 'x'; it takes INT"),
        (("--agent.num-inner-steps", "2,2"), "must be a list of different values"),
        (("--agent.adapted", "head,tail"), "--agent.adapted is 'tail'; must be one of 'all', 'head', 'body', 'bias'"),
        (("--agent.adapted", "a:b"), "must be one value or a list, as it is not a number"),
        (("--agent.outr-lr", "1,2"), "did you mean --agent.outer-lr?"),
        (("--family.shots", "1,2"), "cannot be searched, as scores would not be comparable"),
        (("--train.eval-tasks", "1,2"), "cannot be searched"),
        (("--seed", "3"), "unknown option --seed; a sweep takes its own"),
        (("--agent.outer-lr", "1,2", "--agent.outer-lr", "3"), "--agent.outer-lr is given more than once"),
        (("--agent.outer-lr", "0.1"), "no field is searched"),
    ],
)
def test_a_space_that_does_not_fit_is_refused_in_one_line(words, message):
    with pytest.raises(UserError) as error:
        parse_space("recipe.py", words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_fields_of_a_variant_belong_to_the_trials_that_have_it():
    words = ("--agent.memory", "gru,snail", "--agent.memory.filters", "8,16", "--agent.memory.span", "5")
    space = parse_space("bernoulli_bandit/rl2", (*words, "--agent.head-sizes", "8,8 8"))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(20):
        trial = study.ask()
        proposed = space.suggest(trial)
        memory = trial.params["agent.memory"]
        assert ("agent.memory.filters" in trial.params) == (memory == "snail")
        assert ("agent.memory.span" in trial.params) == (memory == "gru")
        if memory not in seen:
            agent = space.settings(proposed).agent
            assert type(agent.memory).__name__ == {"gru": "RecurrentConfig", "snail": "SnailConfig"}[memory]
        seen.add(memory)
    assert seen == {"gru", "snail"}


# Validation


def test_validation_tasks_are_not_test_tasks_though_both_are_of_one_distribution():
    trainer = load("recipe.py").trainer()
    hashes = {trainer.evaluate(split).tasks_hash for split in ("train", "test")}
    assert len(hashes) == 1  # one seed draws the same tasks for both splits
    evaluation = validate(trainer)
    assert (evaluation.split, evaluation.facts["tasks_of_split"]) == ("val", "train")
    assert evaluation.tasks_hash not in hashes
    assert validate(trainer).tasks_hash == evaluation.tasks_hash


class WithVal(Sinusoid):
    def sample(self, num_tasks, split, generator):
        return super().sample(num_tasks, "train" if split == "val" else split, generator)


def test_the_split_val_is_used_where_a_family_has_it():
    assert validation_split(Sinusoid()) == "train"
    assert validation_split(WithVal()) == "val"


def test_the_objective_is_a_point_a_mean_or_a_gain_in_the_direction_of_the_measure():
    scores = np.array([[4.0, 2.0], [2.0, 2.0], [1.0, 3.0]])  # [points, N]
    expected: dict[ObjectiveName, tuple[list[float], bool]] = {
        "last": ([1, 3], False),
        "mean": ([7 / 3, 7 / 3], False),
        "gain": ([3, -1], True),
    }
    for name, (by_task, maximises) in expected.items():
        objective = Objective(name, "mse", higher_is_better=False)
        assert objective.by_task(scores) == pytest.approx(by_task)
        assert objective.maximises is maximises
        row = {f"meta_val/mse/step_{point}": float(values.mean()) for point, values in enumerate(scores)}
        others = {
            "meta_test/mse/step_9": 99.0,
            "meta_val/iqm": 5.0,
            "meta_val/nll/step_9": 9.0,
            "meta_train/mse/step_9": 1,
        }
        assert objective.of_row({**row, **others}) == pytest.approx(np.mean(by_task))
    assert Objective("last", "return", higher_is_better=True).maximises
    assert (
        Objective("last", "return", True).of_row({"meta_val/return/total": 3.0, "meta_test/return/ep_1": 1.0}) is None
    )


def test_no_test_task_has_a_say(monkeypatch):
    """Whoever evaluates on the split "test" while trials run fails; what lies in a trial's directory is not read."""
    from metarl.fewshot.source import FewShotSource

    evaluate = FewShotSource.evaluate

    def guarded(self, learner, *, split, **settings):
        assert split != "test"
        return evaluate(self, learner, split=split, **settings)

    monkeypatch.setattr(FewShotSource, "evaluate", guarded)
    honest = sweep(folder="honest", pruner="median", evaluations=2)
    assert honest.work() == 0

    class Poisoning(InThisProcess):
        def start(self, run):
            for split in ("test", "val"):  # of the ordinary seed
                scores = {"per_task": {"scores": [[-1e9] * 5] * 3}, "evaluation_seed": 0, "iteration": 4}
                (run / f"evaluation_{split}.json").write_text(json.dumps(scores))
            return super().start(run)

    poisoned = sweep(Poisoning(), folder="poisoned", pruner="median", evaluations=2)
    assert poisoned.work() == 0
    values = [[trial.value for trial in each.study.trials()] for each in (honest, poisoned)]
    assert values[0] == values[1]
    run = honest.study.place(0) / "seed_0"
    assert not list(run.glob("evaluation_test*"))
    assert not [tag for row in Run(run).progress() for tag in row if tag.startswith("meta_test")]


# Trials


def test_a_trial_is_the_mean_of_its_seeds_which_are_ordinary_runs(capsys):
    sweeper = sweep(trials=2, seeds="2")
    assert sweeper.work() == 0
    trial = sweeper.study.trials(TrialState.COMPLETE)[0]
    scores = [validation_scores(sweeper.study.place(0) / f"seed_{seed}", 4) for seed in (0, 1)]
    assert trial.value == pytest.approx(np.mean([values[-1].mean() for values in scores if values is not None]))
    assert trial.user_attrs["by_seed"][0] != trial.user_attrs["by_seed"][1]
    run = sweeper.study.place(0) / "seed_1"
    assert Run(run).config()["seed"] == 1
    status, output, _ = metarl(capsys, "evaluate", str(run), "--tasks", "5")
    assert (status, "test tasks" in output) == (0, True)


def test_a_run_that_is_killed_goes_on_and_one_that_fails_fails_its_trial():
    said: list[str] = []
    engine = InThisProcess(-9, -9)
    sweeper = sweep(engine, trials=1, say=said.append)
    assert sweeper.work() == 0
    assert [trial.state for trial in sweeper.study.trials()] == [TrialState.COMPLETE]
    assert len(engine.started) == 3

    failing = sweep(InThisProcess(1, worker.IMPOSSIBLE), folder="failing", trials=2, say=said.append)
    assert failing.work() == 0
    assert [trial.state for trial in failing.study.trials()] == [TrialState.FAIL, TrialState.PRUNED]
    assert any("trial 0: failed: exit status 1" in text for text in said)
    with pytest.raises(UserError, match="3 trials failed one after the other, the last one: exit status 2"):
        sweep(InThisProcess(2, 2, 2), folder="hopeless", trials=9).work()


def test_a_trial_that_a_killed_process_left_is_taken_up_again_where_it_was():
    undisturbed = sweep(folder="undisturbed", trials=2)
    assert undisturbed.work() == 0

    killed = sweep(InThisProcess(-9, 0), trials=2)
    killed._fill()  # the first trial is begun, and its run ends before its first iteration
    path = killed.study.place(0) / "seed_0"
    experiment = replace(load("recipe.py"), agent=killed.active[0].experiment.agent)
    trainer = experiment.trainer()
    trainer.iterate()
    Run(path).save("latest", trainer.state_dict())
    killed.active[0].release()  # as the death of a process does

    engine = InThisProcess()
    resumed = sweep(engine, trials=2)
    assert resumed.work() == 0
    assert engine.started[0] == path
    assert len(Run(path).progress()) == 3  # the first iteration was done before
    assert [trial.value for trial in resumed.study.trials()] == [trial.value for trial in undisturbed.study.trials()]


def test_a_recipe_that_breaks_ends_the_sweep_and_spoils_no_trial():
    sweeper = sweep(trials=2)
    Path("recipe.py").write_text("import nowhere")
    with pytest.raises(UserError, match="does not load"):
        sweeper.work()
    Path("recipe.py").write_text(RECIPE)
    assert sweep(trials=2).work() == 0
    assert [trial.state for trial in sweeper.study.trials()] == [TrialState.COMPLETE] * 2


def test_an_interrupted_sweep_leaves_its_trial_to_go_on():
    class Interrupted(InThisProcess):
        def start(self, run):
            os.kill(os.getpid(), signal.SIGINT)
            return Stoppable()

    interrupted = sweep(Interrupted(), trials=1)
    assert interrupted.work() == 130
    assert [trial.state for trial in interrupted.study.trials()] == [TrialState.RUNNING]
    assert sweep(trials=1).work() == 0
    assert [trial.state for trial in interrupted.study.trials()] == [TrialState.COMPLETE]


def test_processes_share_the_trials_of_one_study():
    one, other = sweep(trials=3), sweep(trials=3)
    claimed = [each.study.claim(3) for each in (one, other, one, other)]
    assert [trial and trial[0].number for trial in claimed] == [0, 1, 2, None]
    assert one.study.is_worked_on()
    locks = [trial[1] for trial in claimed if trial is not None]
    locks[1].close()  # as the death of its process does
    again = one.study.claim(3)
    assert again is not None
    assert again[0].number == 1
    for lock in (*locks, again[1]):
        lock.close()


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "qmc"])
def test_a_sampler_goes_on_where_another_process_stopped(sampler):
    """Twelve trials by two processes, one after the other: hardly a proposal is made twice."""
    _, settings = plan_of(Arguments("recipe.py", pruner="none"), space_of())
    study = Study(Path("out"), settings, sampler, 0)
    for process in range(2):
        study = Study(Path("out"), settings, sampler, 0)
        while (claimed := study.claim(6 * process + 6)) is not None:
            trial, lock = claimed
            words = space_of().suggest(trial)
            study.optuna.tell(trial, float(words[1]))
            lock.close()
    proposed = [trial.params["agent.outer_lr"] for trial in study.trials()]
    assert len(proposed) == 12
    assert len(set(proposed)) > 9


@pytest.mark.parametrize("kind", ["median", "hyperband"])
def test_a_late_starter_is_not_pruned(kind):
    """One that improves all the time is kept, and so is any before the warm-up's end; one that gets worse is not."""
    study = optuna.create_study(pruner=Pruning(kind, warm_up=0.3, patience=2).pruner(100))
    for value in (1.0, 1.1, 1.2, 1.3, 1.4, 1.5):
        trial = study.ask()
        for step in range(10, 101, 10):
            trial.report(value, step)
            trial.should_prune()
        study.tell(trial, value)

    def pruned_at(values) -> int | None:
        trial = study.ask()
        for step, value in zip(range(10, 101, 10), values, strict=True):
            trial.report(value, step)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                return step
        study.tell(trial, values[-1])
        return None

    assert pruned_at([100.0 - step for step in range(10)]) is None
    stopped = pruned_at([100.0 + step for step in range(10)])
    assert stopped is not None
    assert stopped > 30


def test_pruned_trials_stop_their_runs_and_are_not_the_best():
    class Waiting(InThisProcess):
        """Runs that validate once and wait to be stopped."""

        def start(self, run):
            self.started.append(run)
            if len(self.started) <= 6:
                return Ended(worker.train(str(run)))
            rows = [
                {"time/iterations": step, "meta_val/mse/step_2": 1e9 * step, "time/total_timesteps": step}
                for step in range(1, 5)
            ]
            (run / "progress.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
            return Stoppable()

    sweeper = sweep(Waiting(), trials=7, pruner="median", evaluations=4, patience=1)
    assert sweeper.work() == 0
    states = [trial.state for trial in sweeper.study.trials()]
    assert states == [TrialState.COMPLETE] * 6 + [TrialState.PRUNED]
    best = best_of(sweeper.study, sweeper.plan)
    assert best is not None
    assert best.value == min(trial.value or 0.0 for trial in sweeper.study.trials(TrialState.COMPLETE))


def test_wilcoxons_pruner_skips_the_seeds_of_a_trial_that_is_worse_task_by_task():
    class Scored(InThisProcess):
        """Runs whose errors are small in the first trial and large in the second."""

        def start(self, run):
            self.started.append(run)
            errors = np.linspace(1, 2, 20) * (1 if "0000" in run.parts else 10)
            scores = {
                "evaluation_seed": VALIDATION_SEED,
                "iteration": 4,
                "per_task": {"scores": [[9.0] * 20, list(errors)]},
            }
            (run / "evaluation_val.json").write_text(json.dumps(scores))
            return Ended(0)

    engine = Scored()
    sweeper = sweep(engine, trials=2, seeds="3", pruner="wilcoxon")
    assert sweeper.work() == 0
    assert [run.parent.name for run in engine.started] == ["0000"] * 3 + ["0001"]
    first, second = sweeper.study.trials(TrialState.COMPLETE)
    assert (first.value, second.value) == pytest.approx((1.5, 15.0))
    assert best_of(sweeper.study, sweeper.plan) is not None
    assert second.user_attrs["pruned"]


# Warm start


def past_runs(folder: str, amplitude: tuple[float, float], rates, score) -> None:
    """Finished runs of a family of sinusoids with these outer rates, and the validation errors that `score` gives."""
    space = space_of((*SPACE, "--family.amplitude", *map(str, amplitude)))
    from experiments.cli.session import new_run

    for rate in rates:
        run = new_run(space.settings(("--agent.outer-lr", str(rate))), "recipe.py", Path(folder) / f"{rate}", [], ())
        content = {
            "measure": {"higher_is_better": False},
            "evaluation_seed": VALIDATION_SEED,
            "iteration": 4,
            "per_task": {"scores": [[9.0], [score(rate)]]},
        }
        (run.path / "evaluation_val.json").write_text(json.dumps(content))


@pytest.mark.slow
def test_the_best_settings_of_the_most_similar_family_are_tried_first():
    past_runs("near", (0.1, 6.0), [0.001, 0.002], lambda rate: 1000 * rate)
    past_runs("far", (100.0, 900.0), [0.003, 0.005, 0.5], lambda rate: 1e-9 / rate)
    found, notes = past_trials([Path("far"), Path("near")], space_of(), Objective("last", "mse", False))
    assert notes == []
    rates = [trial.values["agent.outer_lr"] for trial in found]
    assert rates[0] == 0.001  # by rank, however low the errors of the other family are
    assert rates.index(0.01) < rates.index(0.005) < rates.index(0.003)  # 0.5, at the end of the range
    assert found[0].similarity > max(trial.similarity for trial in found if "far" in trial.source)
    assert all(trial.values["agent.num_inner_steps"] == "1" for trial in found)

    sweeper = sweep(trials=2)
    assert sweeper.study.propose(found, 2) == found[:2]
    assert sweeper.work() == 0
    first = sweeper.study.trials()[0]
    assert first.params == {"agent.outer_lr": 0.001, "agent.num_inner_steps": "1"}
    assert sweeper.study.propose(found, 2) == []


def test_test_scores_of_the_sweeps_own_family_start_no_sweep():
    past_runs("own", (0.1, 5.0), [0.002], lambda rate: rate)
    (file,) = Path("own").glob("*/evaluation_val.json")
    file.rename(file.with_name("evaluation_test.json"))
    with pytest.raises(UserError, match="none of its 1 runs is finished and of use"):
        past_trials([Path("own")], space_of(), Objective("last", "mse", False))
    with pytest.raises(UserError, match="there are no runs in it"):
        past_trials([Path("nowhere")], space_of(), Objective("last", "mse", False))


def test_families_are_as_similar_as_their_features_are_near():
    one = features(Sinusoid())
    assert similarity(one, one) == 1
    near, far = (features(Sinusoid(amplitude=(0.1, high))) for high in (6.0, 100.0))
    assert 0 < similarity(one, far) < similarity(one, near) < 1
    assert similarity(one, near) == similarity(near, one)
    grid = features(load("grid_navi/rl2").family)
    assert {"observation_size", "action_size", "horizon", "bayes_optimal"} <= grid.keys()
    assert similarity(one, grid) == 0


# The command


class Local(InThisProcess):
    """In place of the engine of this name; what its programs print is dropped."""

    def __init__(self, threads: int, gpus: int = 0, program: str = ordinary.__name__) -> None:
        super().__init__()
        self.program = program

    def start(self, run: Path):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if self.program == worker.__name__:
                return super().start(run)
            return Ended(ordinary.train(str(run), str(Path.cwd())))


@pytest.mark.slow
def test_the_command_ends_with_a_recipe_that_trains(capsys, monkeypatch):
    monkeypatch.setattr(engines, "LocalEngine", Local)
    words = ("recipe.py", *SPACE, "--agent.hidden-sizes", "3 3,5", "--family.shots", "2")
    status, output, errors = metarl(
        capsys, "sweep", *words, "--trials", "4", "--jobs", "1", "--confirm", "1", "--json", "--pruner", "none"
    )
    assert status == 0, errors
    result = json.loads(output)
    assert (result["direction"], result["split"]) == ("minimise", "train")
    assert [trial["state"] for trial in result["trials"]] == ["complete"] * 4
    assert result["best"]["value"] == min(trial["value"] for trial in result["trials"])
    again = result["confirmation"]
    assert (again["seeds"], len(again["test"])) == ([1], 1)
    assert again["interval"][0] <= again["mean"] <= again["interval"][1]
    assert sorted(Path(file).name for file in result["files"]) == [
        "contour.png",
        "importance.png",
        "slice.png",
        "winner.py",
    ]
    winner = load("sweeps/recipe/winner.py")
    assert winner.family.shots == 2
    assert winner.agent == space_of(words[1:]).settings(result["best"]["words"]).agent
    assert winner.trainer().iterate()["time/iterations"] == 1

    changed = [word.replace("1e-2:log", "1e-1:log") for word in words]
    status, output, errors = metarl(capsys, "sweep", *changed, "--trials", "4", "--pruner", "none")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert "space.agent.outer_lr is '1e-4:1e-2:log' there and '1e-4:1e-1:log' here; give another --out" in errors


def test_a_directory_of_another_sweep_is_refused_by_what_differs():
    sweep()
    for arguments, message in (
        ({"objective": "mean"}, "objective is 'last' there and 'mean' here"),
        ({"seeds": "2"}, r"seeds is \[0\] there and \[0, 1\] here"),
    ):
        with pytest.raises(UserError, match=f"out holds another sweep: {message}; give another --out"):
            sweep(**arguments)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the experiment comes first"),
        (("--trials", "3"), "the experiment comes first"),
        (("nothing.py", *SPACE), "there is no recipe at nothing.py"),
        (("sinusoid/mamml", *SPACE), "did you mean sinusoid/maml"),
        (("recipe.py", *SPACE, "--trials", "0"), "--trials is 0; must be at least 1"),
        (("recipe.py", *SPACE, "--warm-up", "1"), "--warm-up is 1.0; must be at least 0 and below 1"),
        (("recipe.py", *SPACE, "--sampler", "grid"), "--sampler is 'grid'; must be one of"),
        (("recipe.py", *SPACE, "--pruner", "wilcoxon"), "give --seeds 2 or more"),
        (("recipe.py", *SPACE, "--warm-start", "nowhere"), "there are no runs in it"),
        (("recipe.py", *SPACE, "--out", "."), "is not empty and holds no sweep"),
    ],
)
def test_a_wrong_command_is_one_line(capsys, words, message):
    status, output, errors = metarl(capsys, "sweep", *words)
    assert (status, output) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1


def test_a_dry_run_shows_the_space_and_makes_nothing(capsys):
    status, output, _ = metarl(capsys, "sweep", "recipe.py", *SPACE, "--dry-run", "--trials", "7")
    assert status == 0
    assert "numbers from 0.0001 to 0.01 on a logarithmic scale" in output
    assert "Trials: 7, each of one seed" in output
    assert sorted(path.name for path in Path().iterdir()) == ["recipe.py"]


def test_without_optuna_one_line_names_the_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    status, _, errors = metarl(capsys, "sweep", "recipe.py", *SPACE)
    assert (status, errors.count("\n")) == (2, 1)
    assert "pip install 'metarl[workbench]'" in errors


def test_a_damaged_journal_is_one_line():
    claimed = sweep().study.claim(1)
    assert claimed is not None
    claimed[1].close()
    Path("out/journal.log").write_bytes(b"{]\n" * 3)
    with pytest.raises(UserError, match=r"^cannot read out/journal.log: .*$"):
        sweep()


@pytest.mark.slow
def test_a_sweep_of_two_processes_survives_the_kill_of_a_run_and_of_a_process():
    words = [sys.executable, "-P", "-m", "experiments", "sweep", "recipe.py", *SPACE, "--train.num-iterations", "200"]
    words += ["--trials", "3", "--jobs", "1", "--pruner", "none", "--sampler", "random", "--confirm", "1", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3]), "OMP_NUM_THREADS": "1"}

    def begin(folder: str):
        return subprocess.Popen(
            [*words, "--out", folder], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    undisturbed = json.loads(begin("undisturbed").communicate()[0])
    first, second = begin("out"), begin("out")
    until = time.monotonic() + 120
    while time.monotonic() < until and len(list(Path("out/trials").glob("*/*/progress.json"))) < 2:
        time.sleep(0.1)
    trained = subprocess.run(
        ["pgrep", "-P", str(second.pid), "-f", "sweeping.worker"], capture_output=True, text=True
    ).stdout.split()
    for process in trained:
        os.kill(int(process), signal.SIGKILL)
    first.kill()
    first.communicate()
    third = begin("out")
    results = [json.loads(process.communicate()[0]) for process in (second, third)]
    for result in results:
        assert [trial["state"] for trial in result["trials"]] == ["complete"] * 3
        values = {tuple(trial["words"]): trial["value"] for trial in result["trials"]}
        assert values == {tuple(trial["words"]): trial["value"] for trial in undisturbed["trials"]}
        assert result["confirmation"]["values"] == undisturbed["confirmation"]["values"]

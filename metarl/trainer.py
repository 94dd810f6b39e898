"""The outer loop: repeatedly draw experience from a source and update the meta-learner.

Agents that act in trials and learners that predict share this loop; they differ in their source.
"""

from __future__ import annotations

import math
import reprlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from metarl.evaluation import Evaluation, by_point, logged_points, tail_metrics
from metarl.parallel import exchanged, mean_metrics, process_count, sharing, spent
from metarl.protocols import Split
from metarl.records import Digest
from metarl.source import NamesSource, Source, TrainConfig
from metarl.torch_settings import keep_freed_memory

if TYPE_CHECKING:
    from metarl.run.directory import Run

__all__ = ["TrainConfig", "Trainer", "train"]

_STREAMS = ("initialisation", "task", "env", "policy", "update")  # one generator each, all derived from one seed
_MOST = 2.0**63  # limit on whatever is counted
_EVALUATION_SEED = 1_000_003  # seed of the held-out tasks, the same for every run


class Trainer:
    """A meta-learner, the source of its experience, and everything needed for an exact resume.

    The agent's configuration makes the source: trials in fresh tasks, a replay, or support and query sets.

    Raises:
        ValueError: when family, agent and settings are incompatible.
    """

    def __init__(
        self,
        family: Any,
        agent_config: NamesSource,
        config: TrainConfig,
        *,
        agent_name: str,
        seed: int,
        device: str = "cpu",
    ) -> None:
        keep_freed_memory()
        self.family, self.config, self.agent_name = family, config, agent_name
        self.generators = _generators(device, seed)
        self.source: Source[Any, Any] = agent_config.make_source(family, config, self.generators)
        if process_count() > 1:
            _check_shared(agent_config, self.source, config)
        self.agent = self.source.make_learner(config.num_iterations)
        self.num_points = self.source.num_points
        self.device, self.seed = device, seed
        self.iteration = 0
        self.num_samples = 0  # in the source's unit, e.g. environment steps or examples
        self.seconds = 0.0  # duration of meta-training, without evaluations
        self.best_return = self.source.measure.worst  # best mean score of a window between two checkpoints
        self.metrics: dict[str, float] = {}  # metrics of the last iteration by their logged tags, without its speed
        self._window: list[float] = []  # scores, e.g. returns of whole trials, of iterations since the last checkpoint

    @property
    def num_diverged(self) -> int:
        """The number of simulations reset because they diverged, if the environments count them."""
        return self.source.num_diverged

    def iterate(self) -> dict[str, float]:
        """One meta-iteration; returns its metrics by their logged tags.

        Raises:
            FloatingPointError: when a reward, an error or something learned is not finite.
        """
        spent()  # between iterations
        started = time.perf_counter()
        with sharing(self.config.num_tasks):
            draw = self.source.draw(self.agent)
            drawn = time.perf_counter()
            metrics = mean_metrics(self.agent.update(draw.experience, self.generators["update"]))
        ended, cost = time.perf_counter(), spent()
        metrics = {**draw.metrics, **metrics}
        score = metrics.get(self.source.score_tag)
        if score is not None and not math.isfinite(score):
            raise FloatingPointError(f"{self.source.score_tag} of iteration {self.iteration + 1} is {score}")
        spoilt = next(_not_numbers(self.agent.state_dict()), None)
        if spoilt is not None:
            raise FloatingPointError(f"{spoilt} is not a number after iteration {self.iteration + 1}")
        if (self.iteration + 1) % self.config.checkpoint_every == 0 or self.iteration == 0:
            self._check_processes_agree()
        if score is not None:
            self._window.append(score)
        self.iteration += 1
        self.num_samples += draw.amount
        self.seconds += ended - started
        self.metrics = {name: float(value) for name, value in metrics.items()}  # plain, to be saved
        speed = {
            "time/fps": draw.amount / (ended - started),
            "time/collect_fps": draw.amount / (drawn - started),
            "time/collect_share": (drawn - started) / (ended - started),
        }
        if process_count() > 1:
            speed["time/communication_share"] = cost.seconds / (ended - started)
            speed["time/communication_messages"] = float(cost.messages)
            speed["time/communication_bytes"] = float(cost.bytes)
        return {**metrics, **speed, **self._clock()}

    def _check_processes_agree(self) -> None:
        """Check that all processes of a run have learned the same, bit for bit.

        Raises:
            ValueError: when they have not, as an update takes no gradient step of metarl/optim.py.
        """
        if process_count() == 1:
            return
        digest = Digest()
        digest.add(self.agent.state_dict())
        if len(set(exchanged(str(digest)))) > 1:
            what = f"the processes have learned different things in iteration {self.iteration + 1}"
            raise ValueError(f"{what}: {self.agent_name} cannot be trained by several processes; use one")

    def _clock(self) -> dict[str, float]:
        """How far training is, by logged tags."""
        return {
            "time/time_elapsed": self.seconds,
            "time/iterations": float(self.iteration),
            "time/total_timesteps": float(self.num_samples),
        }

    @property
    def last_row(self) -> dict[str, float]:
        """What was logged of the last iteration, its speed aside."""
        return {**self.metrics, **self._clock()}

    def evaluate(
        self,
        split: Split = "test",
        num_tasks: int | None = None,
        num_points: int | None = None,
        seed: int = 0,
        *,
        family: Any = None,
        deterministic: bool = False,
    ) -> Evaluation:
        """The adaptation curve on held-out tasks; the training's random streams are not advanced.

        family: the family to evaluate on, e.g. with more classes; None: the training family. deterministic: act by the
        policy's mode.

        Raises:
            FloatingPointError: when the learner has diverged: no point of the curve is finite, or an observation, a
                reward or an action is not.
        """
        evaluation = self.source.evaluate(
            self.agent,
            agent_name=self.agent_name,
            split=split,
            num_tasks=self.config.eval_tasks if num_tasks is None else num_tasks,
            num_points=num_points,
            generator=torch.Generator(self.device).manual_seed(_EVALUATION_SEED + seed),
            family=family,
            deterministic=deterministic,
        )
        evaluation.check_finite()
        return evaluation

    @property
    def validation_split(self) -> Split:
        """The split of the curves during training: "val" where the family has one, else "test"."""
        return getattr(self.source, "validation_split", "test")

    def is_best_on_validation(self, evaluation: Evaluation) -> bool:
        """Whether an evaluation on the validation split is the best so far, at the last point of its curve."""
        score = evaluation.points[-1].mean
        is_best = self.source.measure.is_better(score, self.best_return)
        self.best_return = score if is_best else self.best_return
        return is_best

    @property
    def chooses_on_validation(self) -> bool:
        """Whether `best` is chosen by evaluations on validation tasks, and not by windows of training tasks."""
        return self.validation_split == "val" and self.config.eval_every > 0

    def close_window(self) -> bool:
        """Start a new window of iterations; returns whether the last one was the best so far, on training tasks.

        It never is where the best is chosen on validation tasks.
        """
        mean = sum(self._window) / max(len(self._window), 1)
        is_best = bool(self._window) and self.source.measure.is_better(mean, self.best_return)
        is_best = is_best and not self.chooses_on_validation
        self.best_return = mean if is_best else self.best_return
        self._window = []
        return is_best

    def state_dict(self, *, to_train: bool = True) -> dict[str, Any]:
        """The state, as tensors and plain Python. to_train: all that a resume needs; else what an evaluation needs."""
        return {
            "iteration": self.iteration,
            "num_samples": self.num_samples,
            "source": self.source.state_dict(to_train=to_train),
            "seconds": self.seconds,
            "best_return": self.best_return,
            "window": list(self._window),
            "metrics": dict(self.metrics),
            "agent": self.agent.state_dict(),
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
        }

    def streams_after(self, iteration: int, saved: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """States of random streams to continue with after an iteration, on another kind of device than the saved ones.

        A state that does not fit this kind is replaced by one that comes from the seed and the iteration.
        """
        fresh = {name: stream.get_state() for name, stream in _generators(self.device, self.seed, iteration).items()}
        return {name: saved[name] if saved[name].shape == state.shape else state for name, state in fresh.items()}

    def load_state_dict(self, state: Mapping[str, Any], *, to_train: bool = True) -> None:
        """Restore a saved state.

        to_train: restore the replay and the random streams too, which fit only the kind of device they were saved on.

        Raises:
            KeyError: names what the state lacks.
            ValueError: when a number in it is impossible.
        """
        for name in ("iteration", "num_samples", "seconds"):
            if not 0 <= state[name] <= _MOST:
                raise ValueError(f"{name} is {reprlib.repr(state[name])}; must be zero or positive, and finite")
        numbers = [*state["window"], *state.get("metrics", {}).values()]
        if not all(type(number) in (int, float) for number in numbers):
            raise ValueError("window and metrics must hold numbers")
        spoilt = next(_not_numbers(state), None)
        if spoilt is not None:
            raise ValueError(f"{spoilt} is not a number")
        self.iteration = state["iteration"]
        self.num_samples = state["num_samples"]
        self.metrics = dict(state.get("metrics", {}))  # older checkpoints have none
        self.source.load_state_dict(state["source"], to_train=to_train)
        self.seconds = state["seconds"]
        self.best_return = state["best_return"]
        self._window = list(state["window"])
        self.agent.load_state_dict(state["agent"])
        if to_train:
            for name, generator_state in state["generators"].items():
                self.generators[name].set_state(generator_state.cpu())


def _check_shared(agent_config: NamesSource, source: Source[Any, Any], config: TrainConfig) -> None:
    """Check that several processes can share the tasks of an iteration.

    Raises:
        ValueError: names the number of tasks, or what cannot be shared.
    """
    count = process_count()
    if config.num_tasks < count:
        raise ValueError(f"num_tasks is {config.num_tasks}; must be at least {count}, the number of processes")
    if not getattr(source, "shares_tasks", False):
        raise ValueError(f"{type(source).__name__} cannot share its tasks among {count} processes; use one")


def _generators(device: str, *seed: int) -> dict[str, torch.Generator]:
    """One generator for each random stream, all from one seed."""
    seeds = np.random.SeedSequence(seed).generate_state(len(_STREAMS), np.uint64).tolist()
    return {
        name: torch.Generator(device).manual_seed(stream_seed % 2**63)
        for name, stream_seed in zip(_STREAMS, seeds, strict=True)
    }


Evaluate = Callable[[Trainer, Split], Evaluation]


def kept_checkpoint(iteration: int) -> str:
    """The name of the checkpoint that is kept of an iteration."""
    return f"iteration_{iteration}"


def train(
    trainer: Trainer,
    run: Run,
    progress: Callable[[Trainer, Mapping[str, float]], None] = lambda *_: None,
    evaluate: Evaluate = Trainer.evaluate,
) -> Evaluation:
    """Meta-train from the trainer's iteration to the last one, logging and saving into the run; then evaluate.

    Checkpoints are saved at the start, every `checkpoint_every` iterations or `checkpoint_minutes`, and after the last
    iteration. If the last iteration was done before, only its row and its evaluation are made, where they are missing.

    With `keep_every`, `iteration_N` is kept of every N that is a multiple of it, to evaluate and not to resume from.

    `best` is the checkpoint with the best score on validation tasks, every `eval_every` iterations and at the end;
    where the family has no such tasks, or `eval_every` is 0, that with the best return, or error, over a window of
    training tasks. It never depends on test tasks. `progress` is called after each iteration. `evaluate` is called with
    the split: every `eval_every` iterations with that for validation (test tasks where the family has no other), and at
    the end with the test tasks too. An exception from either ends the training; the log is complete then, but a
    checkpoint for that iteration exists only if it was the last.
    """
    config = trainer.config
    evaluation = None
    if trainer.iteration == 0:
        run.save("latest", trainer.state_dict())  # what cannot be saved is known at once
    saved_at = time.monotonic()
    while trainer.iteration < config.num_iterations:
        metrics = trainer.iterate()
        is_last = trainer.iteration == config.num_iterations
        evaluation = None
        if config.keep_every and trainer.iteration % config.keep_every == 0:
            run.save(kept_checkpoint(trainer.iteration), trainer.state_dict(to_train=False))
        if is_last:
            _save(trainer, run)  # before the evaluation, which may take long: interrupting it loses nothing
        try:
            if is_last:
                evaluation, measured = _evaluate_at_the_end(trainer, run, evaluate)
                metrics |= measured
            elif config.eval_every and trainer.iteration % config.eval_every == 0:
                metrics |= _validate(trainer, run, evaluate)
        finally:
            run.log(metrics, trainer.num_samples)
        if not is_last and trainer.iteration % config.checkpoint_every == 0:
            _save(trainer, run)
            saved_at = time.monotonic()
        elif not is_last and time.monotonic() - saved_at > 60 * config.checkpoint_minutes:
            run.save("latest", trainer.state_dict())  # the window stays open: what is `best` does not depend on time
            saved_at = time.monotonic()
        progress(trainer, metrics)  # last, as it may stop the training: then the window is closed as it would have been
    return _finish(trainer, run, evaluate) if evaluation is None else evaluation


def _finish(trainer: Trainer, run: Run, evaluate: Evaluate) -> Evaluation:
    """The evaluation after the last iteration, and the row of both, where a kill came before them."""
    metrics = trainer.last_row
    try:
        evaluation, measured = _evaluate_at_the_end(trainer, run, evaluate)
        metrics = {**metrics, **measured}
    finally:
        run.log_anew(metrics, trainer.num_samples)
    return evaluation


def _evaluate_at_the_end(trainer: Trainer, run: Run, evaluate: Evaluate) -> tuple[Evaluation, dict[str, float]]:
    """The evaluation on test tasks, and what is logged of it and of that on validation tasks."""
    measured: dict[str, float] = {}
    if trainer.chooses_on_validation:
        measured = _validate(trainer, run, evaluate)
        run.save("latest", trainer.state_dict())  # with the best score so far, in case it is trained for longer
    evaluation = evaluate(trainer, "test")
    return evaluation, measured | evaluation_metrics(evaluation, trainer.metrics)


def _validate(trainer: Trainer, run: Run, evaluate: Evaluate) -> dict[str, float]:
    """What is logged of an evaluation during training; `best` is saved where it is chosen by it."""
    evaluation = evaluate(trainer, trainer.validation_split)
    if trainer.chooses_on_validation and trainer.is_best_on_validation(evaluation):
        run.save("best", trainer.state_dict(to_train=False))
    return evaluation_metrics(evaluation, trainer.metrics)


def _save(trainer: Trainer, run: Run) -> None:
    """`best` first: if interrupted in between, the older `latest` repeats this window."""
    if trainer.close_window():
        run.save("best", trainer.state_dict(to_train=False))
    run.save("latest", trainer.state_dict())


def evaluation_metrics(evaluation: Evaluation, of_training: Mapping[str, float] | None = None) -> dict[str, float]:
    """What is logged of an evaluation, by tags: "meta_test/..." on test tasks, "meta_val/..." on validation tasks.

    of_training: the metrics of the iteration before it, for the gap between training tasks and these.
    """
    points, measure, prefix = evaluation.points, evaluation.measure, f"meta_{evaluation.split}"
    logged = logged_points(measure, len(points))
    metrics = {f"{prefix}/{measure.tag}{k}": points[k - measure.first].mean for k in logged}
    if measure.name == "return":
        metrics[f"{prefix}/return/total"] = evaluation.total.mean
    metrics[f"{prefix}/iqm"] = points[-1].iqm
    if evaluation.tails:
        metrics |= tail_metrics(prefix, evaluation.tails[-1])
    if evaluation.gain is not None:
        metrics[f"{prefix}/gain"] = evaluation.gain.mean
    gap = _gap(evaluation, of_training or {})
    if gap is not None:
        metrics[f"{prefix}/gap"] = gap
    return metrics | by_point(prefix, evaluation.metrics, measure)


def _gap(evaluation: Evaluation, of_training: Mapping[str, float]) -> float | None:
    """How much better the last point that training has is on training tasks: the sign of meta-overfitting."""
    measure, last = evaluation.measure, evaluation.measure.first + len(evaluation.points) - 1
    if evaluation.trained_points is not None:
        last = min(last, measure.first + evaluation.trained_points - 1)
    trained = of_training.get(f"meta_train/{measure.tag}{last}", of_training.get("meta_train/return/posterior"))
    if trained is None:
        return None
    return (trained - evaluation.points[last - measure.first].mean) * (1 if measure.higher_is_better else -1)


def _not_numbers(state: Any, where: str = "") -> Iterator[str]:
    """Where in nested mappings and lists tensors hold what is not a number (NaN)."""
    if isinstance(state, torch.Tensor):
        if state.is_floating_point() and bool(state.isnan().any()):
            yield where
    elif isinstance(state, (Mapping, list, tuple)):
        for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
            yield from _not_numbers(value, f"{where}.{key}" if where else str(key))

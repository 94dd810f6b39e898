"""Samplers of training tasks: their laws, what each is drawn to, and exact resume."""

import io
import re
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.maml import MAMLTRPOConfig
from agents.pearl import PEARLConfig
from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.navigation import PointNavigation, Semicircle
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.regression import Sinusoid
from metarl.records import Record
from metarl.statistics import tail_mean
from metarl.task_samplers.adr import ADRConfig
from metarl.task_samplers.alp_gmm import ALPGMMConfig
from metarl.task_samplers.catalog import SAMPLERS
from metarl.task_samplers.coordinates import Coordinates, nearest_distinct
from metarl.task_samplers.curriculum import Curriculum, Stage
from metarl.task_samplers.mixture import fit
from metarl.task_samplers.plr import ACCELConfig, PLRConfig, rank_weights
from metarl.task_samplers.roml import RoMLConfig, worst_tail
from metarl.trainer import TrainConfig, Trainer

CPU = torch.device("cpu")
BY_HAND = Curriculum([Stage(5, {"mass": (1.0, 2.0)})])
ADAPTIVE = {name: config for name, config in SAMPLERS.items() if config.chooses == "parameters"}
of_each = pytest.mark.parametrize("config", [*ADAPTIVE.values(), BY_HAND], ids=[*ADAPTIVE, "curriculum"])


@dataclass(frozen=True)
class Masses(Record):
    """A number from 1 to 3, and one of five."""

    mass: Tensor  # [N]
    kind: Tensor  # [N] int64
    constant: Tensor  # [N, 2]


def draw(count: int, generator: torch.Generator) -> Masses:
    mass = 1 + 2 * torch.rand(count, generator=generator)
    return Masses(mass, torch.randint(5, (count,), generator=generator), torch.zeros(count, 2))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def driven(sampler, iterations: int, score, generator, count: int = 32) -> list[Masses]:
    """The tasks of so many iterations in which a learner learns, scored by a function of them."""
    learned: list[Masses] = []
    while len(learned) < iterations:
        tasks = sampler.propose(count, generator)
        sampler.report(tasks, score(tasks))
        learned += [tasks] if sampler.learns else []
    return learned


def light_is_hard(tasks: Masses) -> Tensor:
    return tasks.mass - 3


# Laws


@of_each
def test_proposed_tasks_are_tasks_of_the_family(config):
    for tasks in driven(config.make(draw, CPU), 20, light_is_hard, seeded()):
        assert len(tasks) == 32
        assert bool(((tasks.mass >= 1) & (tasks.mass <= 3)).all())
        assert set(tasks.kind.tolist()) <= set(range(5))
        assert not tasks.constant.any()


@of_each
def test_a_sampler_resumes_exactly_where_it_was_saved(config):
    one, generator = config.make(draw, CPU), seeded()
    driven(one, 12, light_is_hard, generator)
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other, same = config.make(draw, CPU), seeded()
    other.load_state_dict(torch.load(file, weights_only=True))
    same.set_state(generator.get_state())
    before, after = (driven(*each) for each in ((one, 9, light_is_hard, generator), (other, 9, light_is_hard, same)))
    for left, right in zip(before, after, strict=True):
        assert torch.equal(left.mass, right.mass)
        assert torch.equal(left.kind, right.kind)


def test_the_uniform_sampler_draws_as_the_family_does():
    sampler = SAMPLERS["uniform"].make(draw, CPU)
    assert torch.equal(sampler.propose(7, seeded()).mass, draw(7, seeded()).mass)
    assert sampler.learns
    assert sampler.report(draw(7, seeded()), torch.zeros(7)) == {}


def test_coordinates_are_quantiles_of_what_differs_between_tasks():
    coordinates = Coordinates(draw, CPU)
    assert coordinates.names == ("mass", "kind")
    tasks = Masses(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 2, 4]), torch.zeros(3, 2))
    expected = torch.tensor([[0.0, 0.1], [0.5, 0.5], [1.0, 0.9]], dtype=torch.float64)
    torch.testing.assert_close(coordinates.of(tasks), expected, atol=0.03, rtol=0)
    near = coordinates.near(expected, seeded())
    torch.testing.assert_close(near.mass, tasks.mass, atol=0.1, rtol=0)
    assert near.kind.tolist() == [0, 2, 4]
    logged = coordinates.drawn(tasks)
    assert logged["sampler/mass/p50"] == 2
    assert logged["sampler/kind/p10"] == pytest.approx(0.4)


def test_fixed_tasks_are_chosen_by_nearness_and_none_twice():
    known = Masses(torch.tensor([1.0, 1.5, 3.0]), torch.tensor([0, 0, 0]), torch.zeros(3, 2))
    wanted = known[torch.tensor([1, 1, 0])]
    assert nearest_distinct(wanted, known).tolist() == [1, 0, 2]


# RoML


@pytest.mark.parametrize("highest_is_hard", [True, False])
def test_roml_draws_from_the_worst_tail_of_a_known_score(highest_is_hard):
    def score(tasks: Masses) -> Tensor:
        return -((tasks.mass if highest_is_hard else 4 - tasks.mass) ** 2)

    sampler = RoMLConfig().make(draw, CPU)
    drawn = driven(sampler, 60, score, seeded())[-10:]
    tilted = torch.cat([score(tasks[round(0.2 * 32) :]) for tasks in drawn])
    worst = float(tail_mean(score(draw(20_000, seeded(1))).double().numpy(), 0.05))
    assert float(tilted.mean()) == pytest.approx(worst, rel=0.2)
    assert abs(float(sampler.mean[1]) - 0.5) < 0.2  # which does not matter for the score
    own = torch.cat([tasks.mass[: round(0.2 * 32)] for tasks in drawn])
    assert float(own.mean()) == pytest.approx(2, abs=0.25)  # the family's own share


def test_the_worst_tail_holds_its_fraction_of_the_weight():
    scores, weight = torch.tensor([5.0, 1.0, 2.0, 9.0]), torch.tensor([1.0, 2.0, 1.0, 4.0])
    assert worst_tail(scores, weight, 0.25).tolist() == [False, True, False, False]
    assert worst_tail(scores, weight, 0.3).tolist() == [False, True, True, False]


# Prioritised replay


def test_rank_weights_sum_to_one_and_fall_with_the_rank():
    weights = rank_weights(torch.tensor([3.0, 7.0, 5.0], dtype=torch.float64), 0.5)
    torch.testing.assert_close(weights, torch.tensor([1 / 9, 1.0, 1 / 4], dtype=torch.float64) / (49 / 36))
    for temperature in (0.05, 0.3, 3.0):
        assert float(rank_weights(torch.rand(500, generator=seeded()), temperature).sum()) == pytest.approx(1)


@pytest.mark.parametrize("config", [PLRConfig(), PLRConfig(robust=True), ACCELConfig()], ids=str)
def test_replay_goes_to_tasks_in_which_more_has_been_reached_than_lately(config):
    generator = seeded()
    sampler = replace(config, first_tasks=100).make(draw, CPU)

    def score(tasks: Masses) -> Tensor:  # nothing to learn but in the kind 3, whose scores vary
        return torch.where(tasks.kind == 3, torch.randn(len(tasks), generator=generator), 0.0)

    last = torch.cat([tasks.kind for tasks in driven(sampler, 60, score, generator)[-20:]])
    assert float((last == 3).double().mean()) > 0.4  # a fifth of the family's
    assert [float(probability.sum()) for probability in sampler.probabilities()] == pytest.approx([1, 1])


def test_robust_replay_learns_from_nothing_new_and_accel_edits_what_was_replayed():
    generator = seeded()
    sampler = ACCELConfig(first_tasks=32, edit_std=0.01).make(draw, CPU)
    seen, replayed = 0, None
    for _ in range(30):
        size = sampler.size
        tasks = sampler.propose(32, generator)
        if sampler.learns:
            assert sampler.size == size
            replayed = tasks
        elif replayed is not None:  # what follows a batch from the buffer: neighbours of its tasks
            assert float((tasks.mass - replayed.mass).abs().max()) < 0.2
            assert not torch.equal(tasks.mass, replayed.mass)
            replayed, seen = None, seen + 1
        sampler.report(tasks, light_is_hard(tasks))
    assert seen > 5


def test_a_full_buffer_stays_full_and_a_task_that_comes_again_has_one_place():
    sampler = PLRConfig(capacity=40, first_tasks=10**6).make(draw, CPU)
    driven(sampler, 5, light_is_hard, seeded())
    assert sampler.size == 40
    few = draw(6, seeded())
    sampler = PLRConfig(first_tasks=10**6).make(lambda count, _: few[torch.arange(count) % 6], CPU)
    driven(sampler, 5, light_is_hard, seeded())
    assert sampler.size == 6


def test_a_first_batch_larger_than_the_buffer_fills_it():
    sampler = PLRConfig(capacity=4, first_tasks=10**6).make(draw, CPU)
    driven(sampler, 1, light_is_hard, seeded(), count=10)
    assert sampler.size == len(sampler.probabilities()[0]) == 4


# Learning progress


def test_a_mixture_finds_the_clusters_and_the_criterion_their_number():
    generator = seeded()
    centres = torch.tensor([[0.2, 0.2], [0.8, 0.5], [0.3, 0.9]], dtype=torch.float64)
    data = centres.repeat_interleave(60, 0) + 0.03 * torch.randn(180, 2, generator=generator, dtype=torch.float64)
    fits = {number: fit(data, number, seeded(1)) for number in (2, 3, 6)}
    assert min(fits, key=lambda number: fits[number].akaike(data)) == 3
    mixture = fits[3]
    torch.testing.assert_close(mixture.mean[mixture.mean[:, 0].argsort()], centres[[0, 2, 1]], atol=0.02, rtol=0)
    stds = mixture.covariance.diagonal(dim1=1, dim2=2).sqrt()
    torch.testing.assert_close(stds, torch.full_like(stds, 0.03), atol=0.01, rtol=0)
    assert float(mixture.weight.sum()) == pytest.approx(1)
    assert fits[2].num_parameters == 1 + 2 * (2 + 3)


def test_alp_gmm_goes_where_scores_change():
    sampler, calls = ALPGMMConfig(fit_every=100, most_components=4).make(draw, CPU), iter(range(1000))

    def score(tasks: Masses) -> Tensor:  # light tasks improve, heavy ones are as they were
        return torch.where(tasks.mass < 1.5, 0.1 * next(calls), 7.0)

    last = torch.cat([tasks.mass for tasks in driven(sampler, 30, score, seeded())[-10:]])
    assert float((last < 1.5).double().mean()) > 0.6  # a quarter of the family's
    assert sampler.mixture is not None


# Automatic domain randomisation


def test_adr_widens_where_the_learner_does_well_and_narrows_where_it_does_not():
    config = ADRConfig(first_width=0.4, step=0.05, decide_every=10, widen_above=0.5, narrow_below=0.2)
    sampler = config.make(draw, CPU)
    first = torch.tensor([[0.3, 0.3], [0.7, 0.7]], dtype=torch.float64)
    torch.testing.assert_close(sampler.box, first)

    def score(tasks: Masses) -> Tensor:  # good in light tasks, poor in heavy ones
        return torch.where(tasks.mass < 2.2, 1.0, 0.0)

    generator = seeded()
    for tasks in driven(sampler, 30, score, generator):
        assert len(tasks) == 32
    assert float(sampler.box[0, 0]) < 0.1  # light: quantile 0
    assert 0.5 < float(sampler.box[1, 0]) < 0.7  # heavy: about where the scores change, at 0.6
    driven(sampler, 200, lambda tasks: torch.ones(len(tasks)), generator)
    torch.testing.assert_close(sampler.box, torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64))


def test_adr_needs_no_limits_where_scores_at_the_ends_are_those_of_the_middle():
    sampler = ADRConfig(decide_every=10).make(draw, CPU)
    generator = seeded()
    driven(sampler, 40, lambda tasks: -500 + 10 * torch.randn(len(tasks), generator=generator), generator)
    assert float((sampler.box[1] - sampler.box[0]).min()) > 0.3
    with pytest.raises(ValueError, match="widen_above and narrow_below must both be given, or both be None"):
        ADRConfig(widen_above=3)
    with pytest.raises(ValueError, match="narrow_below is 4; must be less than widen_above, 3"):
        ADRConfig(widen_above=3, narrow_below=4)


# A schedule by hand


def test_a_curriculum_goes_through_its_stages_and_then_to_all_tasks():
    stages = [Stage(2, {"mass": (1.0, 1.2), "kind": (3, 3)}), Stage(1, {"mass": (2.5, 3.0)})]
    first, second, third, *rest = driven(Curriculum(stages).make(draw, CPU), 8, light_is_hard, seeded())
    for tasks in (first, second):
        assert float(tasks.mass.max()) <= 1.2
        assert set(tasks.kind.tolist()) == {3}
    assert float(third.mass.min()) >= 2.5
    assert {len(tasks) for tasks in (first, third)} == {32}
    assert float(rest[-1].mass.max() - rest[-1].mass.min()) > 1.5


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"weight": (0, 1)}, "stage 1 has a range of weight; tasks differ in mass, kind"),
        ({"mass": (5, 6)}, "stage 1 has ranges {'mass': .5, 6.}, in which this family has no task"),
    ],
)
def test_a_stage_without_tasks_is_named(ranges, message):
    with pytest.raises(ValueError, match=message):
        Curriculum([Stage(3, ranges)]).make(draw, CPU)


@pytest.mark.parametrize("limits", [(2, 1), 3, (1, 2, 3)])
def test_a_range_that_is_none_is_named(limits):
    with pytest.raises(ValueError, match=re.escape(f"ranges has 'mass': {limits!r}; must be a lowest and a highest")):
        Stage(3, {"mass": limits})


def test_a_stage_that_is_none_is_named():
    stages: Any = [(3, {"mass": (1, 2)})]
    with pytest.raises(ValueError, match=r"stages has \(3, .*; must be made of Stage\(iterations, ranges\)"):
        Curriculum(stages)


# In training


def trainer_of(agent, family, sampler, **settings) -> Trainer:
    config = TrainConfig(**{"num_iterations": 6, "num_tasks": 4, "eval_tasks": 3, "sampler": sampler, **settings})
    return Trainer(family, agent, config, agent_name="agent", seed=0)


KINDS: dict[str, tuple[Any, Any]] = {
    "trials": (RL2Config(hidden_size=8, head_sizes=(), num_epochs=1), PointNavigation(horizon=4, num_episodes=2)),
    "blocks": (MAMLTRPOConfig(hidden_sizes=(8,), num_rollouts=2), PointNavigation(horizon=4)),
    "replay": (
        PEARLConfig(
            hidden_sizes=(8,),
            encoder_sizes=(8,),
            num_train_tasks=9,
            initial_episodes=1,
            num_gradient_steps=1,
            meta_batch=2,
            batch=8,
            context=8,
            capacity=200,
        ),
        Semicircle(horizon=4),
    ),
    "few shots": (MAMLConfig(hidden_sizes=(8,)), Sinusoid()),
}
SMALL = {
    name: replace(config, first_tasks=8) if isinstance(config, PLRConfig) else config
    for name, config in ADAPTIVE.items()
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", SMALL.values(), ids=SMALL)
def test_training_with_a_sampler_resumes_exactly(kind, sampler):
    whole, second = (trainer_of(*KINDS[kind], sampler) for _ in range(2))
    for _ in range(2):
        whole.iterate()
    second.load_state_dict(deepcopy(whole.state_dict()))
    rows, resumed = ([trainer.iterate() for _ in range(2)] for trainer in (whole, second))
    for row, other in zip(rows, resumed, strict=True):
        untimed = {tag: value for tag, value in row.items() if not tag.startswith("time/")}
        assert untimed == {tag: other[tag] for tag in untimed}
        assert any(tag.startswith("sampler/") for tag in row)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_is_on_the_familys_own_tasks_whatever_the_sampler(kind):
    hashes = {trainer_of(*KINDS[kind], sampler).evaluate().tasks_hash for sampler in SMALL.values()}
    assert hashes == {trainer_of(*KINDS[kind], SAMPLERS["uniform"]).evaluate().tasks_hash}


def test_the_worst_tasks_of_training_are_logged_for_every_sampler():
    row = trainer_of(*KINDS["trials"], SAMPLERS["uniform"], num_tasks=40).iterate()
    assert row["meta_train/return/worst"] < row["meta_train/return/cvar5"] < row["meta_train/return/cvar20"]
    assert row["meta_train/return/cvar20"] < row["meta_train/return/total"]


def test_a_sampler_that_cannot_choose_says_so():
    message = "tasks of this family have 10 numbers that differ; this sampler needs 1 to 8"
    with pytest.raises(ValueError, match=message):
        trainer_of(RL2Config(hidden_size=8), BernoulliBandit(num_arms=10), RoMLConfig())
    trainer_of(RL2Config(hidden_size=8), BernoulliBandit(num_arms=10), PLRConfig())
    with pytest.raises(ValueError, match="sampler is 'roml'; must be a configuration such as RoMLConfig"):
        TrainConfig(num_iterations=1, num_tasks=1, sampler="roml")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"tail is 1\.5; must be between 0 and 1"):
        RoMLConfig(tail=1.5)
    with pytest.raises(ValueError, match="replay_share is 0; must be greater with robust"):
        PLRConfig(robust=True, replay_share=0)

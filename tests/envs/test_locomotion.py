"""Locomotion families: every reward and metric by hand, where episodes end, what training can draw, wrong variants."""

# Wrong values are given on purpose.
# pyright: reportArgumentType=false

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.check import check_family
from envs.locomotion.ant import AntDir, AntGoal, AntVel
from envs.locomotion.half_cheetah import HalfCheetahDir, HalfCheetahVel
from envs.locomotion.humanoid import HumanoidDir
from envs.locomotion.ranges import Disc
from envs.locomotion.swimmer import SwimmerVel
from envs.locomotion.tasks import DirectionTasks, GoalTasks, HeadingTasks, VelocityTasks
from envs.locomotion.walkers import HopperRandParams, Walker2dRandParams, Walker2dVel
from envs.samplers import Range, Uniform
from envs.simulators.state import State


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Rewards and metrics, by hand


def moments(family: Any, start: tuple[float, float], end: tuple[float, float], **qpos: float) -> tuple[State, State]:
    """A row before and after a step that takes all of it from one place of the plane to another.

    Other entries of qpos by their index: q2=0.5. Velocities are absurd, as no reward is about them.
    """
    robot = family.robot

    def at(place: tuple[float, float], velocity: float) -> State:
        position = torch.zeros(1, robot.num_positions, dtype=torch.float64)
        position[0, 0] = place[0]
        if robot.num_hidden == 2:
            position[0, 1] = place[1]
        for name, value in qpos.items():
            position[0, int(name[1:])] = value
        point = torch.tensor([[[-70.0, -70.0, 0.0], [*place, 0.0]]], dtype=torch.float64)  # world, torso
        whole = torch.tensor([[[*place, 0.0], [-70.0, -70.0, 0.0]]], dtype=torch.float64)
        qvel = torch.full((1, robot.num_velocities), velocity, dtype=torch.float64)
        return State(qpos=position, qvel=qvel, xpos=point, subtree_com=whole)

    return at(start, 0.0), at(end, 50.0)


def heading(x: float, y: float) -> HeadingTasks:
    return HeadingTasks(torch.tensor([[x, y]]))


def velocity(value: float) -> VelocityTasks:
    return VelocityTasks(torch.tensor([value]))


def ones(family: Any) -> Any:
    return family.sample(1, "train", generator()).map(torch.ones_like)


WALKER, HOPPER = Walker2dRandParams(), HopperRandParams()


@pytest.mark.parametrize(
    ("family", "tasks", "end", "qpos", "dt", "action", "expected"),
    [
        # v = (0.1, 0.2) / 0.05 = (2, 4). Forward: 2, +1 for standing; |a|² = 8 * 0.25 = 2, times 0.5 = 1
        (AntDir(), heading(1, 0), (0.1, 0.2), {"q2": 0.5}, 0.05, 0.5, 2 + 1 - 1),
        (AntDir(), heading(-1, 0), (0.1, 0.2), {"q2": 0.5}, 0.05, 0.5, -2 + 1 - 1),
        # along (0.6, 0.8): 1.2 + 3.2 = 4.4; at z = 0.1 there is no bonus
        (AntDir(directions="circle"), heading(0.6, 0.8), (0.1, 0.2), {"q2": 0.1}, 0.05, 0.0, 4.4),
        (
            AntDir(control_cost=0.005, alive_bonus=0.05),
            heading(1, 0),
            (0.1, 0),
            {"q2": 0.3},
            0.05,
            1.0,
            2 + 0.05 - 0.04,
        ),
        # |2 - 3| = 1; 1 - 1 + 0.05 - 0.005 * 8
        (AntVel(), velocity(3), (0.1, 0.2), {"q2": 0.5}, 0.05, 1.0, 0.05 - 0.04),
        (AntVel(), velocity(0.5), (0.1, 0.2), {"q2": 1.5}, 0.05, 0.0, 1 - 1.5),
        # from (0.1, 0.2) to (1, -1): 0.9 + 1.2 in blocks; 0.1 * 8 * 0.25
        (AntGoal(), GoalTasks(torch.tensor([[1.0, -1.0]])), (0.1, 0.2), {}, 0.05, 0.5, -2.1 - 0.2),
        # 0.5 m away: (0.3, 0.4); then 1.5 m away
        (
            AntGoal(sparse=True, control_cost=0.01),
            GoalTasks(torch.tensor([[0.4, 0.6]])),
            (0.1, 0.2),
            {},
            0.05,
            1.0,
            0.42,
        ),
        (AntGoal(sparse=True), GoalTasks(torch.tensor([[1.0, 1.4]])), (0.1, 0.2), {}, 0.05, 0.0, -0.75),
        # v = (0.03, 0.04) / 0.015 = (2, 8/3); along (0, 1): 8/3 * 1.25 = 10/3; |a|² = 17 * 0.16 = 2.72
        (HumanoidDir(), heading(0, 1), (0.03, 0.04), {"q2": 1.4}, 0.015, 0.4, 10 / 3 + 5 - 0.272),
        (HumanoidDir(), heading(-1, 0), (0.03, 0.04), {"q2": 0.9}, 0.015, 0.0, -2.5),
        # v = 0.032 / 0.016 = 2
        (WALKER, ones(WALKER), (0.032, 0), {"q1": 1.2}, 0.016, 1.0, 2 + 1 - 0.006),
        (WALKER, ones(WALKER), (0.032, 0), {"q1": 0.7}, 0.016, 0.0, 2),
        (WALKER, ones(WALKER), (0.032, 0), {"q1": 1.2, "q2": -1.1}, 0.016, 0.0, 2),
        (HOPPER, ones(HOPPER), (-0.016, 0), {"q1": 1.2}, 0.016, 1.0, -1 + 1 - 0.003),
        (HOPPER, ones(HOPPER), (-0.016, 0), {"q1": 1.2, "q2": 0.3}, 0.016, 0.0, -1),
        (Walker2dVel(), velocity(5), (0.032, 0), {"q1": 1.2}, 0.016, 1.0, 15 - 3 - 0.006),
        (Walker2dVel(alive_bonus=1), velocity(5), (0.032, 0), {"q1": 2.1}, 0.016, 0.0, -3),
        # v = 0.02 / 0.04 = 0.5
        (SwimmerVel(), velocity(0.2), (0.02, 9), {}, 0.04, 1.0, -0.3 - 0.0002),
        (SwimmerVel(published_sign=True), velocity(0.2), (0.02, 9), {}, 0.04, 1.0, 0.3 - 0.0002),
    ],
)
def test_rewards_by_hand(
    family: Any, tasks: Any, end: tuple[float, float], qpos: Any, dt: float, action: float, expected: float
) -> None:
    before, after = moments(family, (0.0, 0.0), end, **qpos)
    reward = family.reward(before, after, torch.full((1, family.robot.num_actions), action), tasks, dt)
    assert reward.dtype == torch.float32
    assert reward.shape == (1,)
    assert float(reward) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("family", "tasks", "end", "dt", "expected"),
    [
        # v = (3, 4): 3 along x, cosine 3 / 5
        (AntDir(), heading(1, 0), (0.15, 0.2), 0.05, {"velocity_along": 3, "heading": 0.6}),
        (AntDir(), heading(-1, 0), (0.15, 0.0), 0.05, {"velocity_along": -3, "heading": -1}),
        (HumanoidDir(), heading(0, 1), (0.3, 0.4), 0.1, {"velocity_along": 4, "heading": 0.8}),
        (AntVel(), velocity(1), (0.15, 0.2), 0.05, {"velocity_error": 2}),
        (AntGoal(), GoalTasks(torch.tensor([[3.1, 4.2]])), (0.1, 0.2), 0.05, {"distance_to_goal": 5}),
        (WALKER, ones(WALKER), (0.032, 0), 0.016, {"velocity": 2}),
        (HOPPER, ones(HOPPER), (-0.032, 0), 0.016, {"velocity": -2}),
        (Walker2dVel(), velocity(5), (0.032, 0), 0.016, {"velocity_error": 3}),
        (SwimmerVel(published_sign=True), velocity(0.2), (0.02, 0), 0.04, {"velocity_error": 0.3}),
        (HalfCheetahVel(), velocity(3), (0.1, 0), 0.05, {"velocity_error": 1}),
        (HalfCheetahDir(), DirectionTasks(torch.tensor([-1.0])), (0.1, 0), 0.05, {"velocity_along": -2}),
    ],
)
def test_metrics_by_hand(family: Any, tasks: Any, end: tuple[float, float], dt: float, expected: Any) -> None:
    metrics = family.metrics(*moments(family, (0.0, 0.0), end), torch.zeros(1, family.robot.num_actions), tasks, dt)
    assert metrics.dtype == torch.float32
    assert dict(zip(family.metric_names, metrics[0].tolist(), strict=True)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("family", "standing", "fallen"),
    [
        (AntDir(), [{"q2": 0.2}, {"q2": 1.0}], [{"q2": 0.19}, {"q2": 1.01}]),
        (AntVel(), [{"q2": 0.2}], [{"q2": 0.19}]),
        (HumanoidDir(), [{"q2": 1.01}, {"q2": 1.99}], [{"q2": 1.0}, {"q2": 2.0}]),
        (WALKER, [{"q1": 0.81}, {"q1": 1.99, "q2": 0.99}], [{"q1": 0.8}, {"q1": 2.0}, {"q1": 1.2, "q2": -1.0}]),
        (Walker2dVel(), [{"q1": 0.81}], [{"q1": 0.8}]),
        (HOPPER, [{"q1": 0.71, "q2": 0.19}], [{"q1": 0.7}, {"q1": 1.2, "q2": -0.2}, {"q1": 1.2, "q4": 100.0}]),
    ],
)
def test_episodes_end_where_the_robot_falls(family: Any, standing: Any, fallen: Any) -> None:
    for places, ends in ((standing, False), (fallen, True)):
        for place in places:
            terminated = family.terminated(moments(family, (0, 0), (0, 0), **place)[1], None)
            assert bool(terminated) == ends, place


def test_ants_that_seek_a_goal_and_swimmers_never_fall() -> None:
    for family in (AntGoal(), SwimmerVel()):
        assert family.terminated(moments(family, (0, 0), (0, 0))[1], None) is None


def test_a_robot_that_falls_ends_its_episode_and_starts_another() -> None:
    family = AntDir()
    env = family.make_env(2, generator())
    env.reset(heading(1, 0))
    env.physics.qpos[0, 2] = 5.0
    step = env.step(torch.zeros(2, 8))
    assert step.terminated.tolist() == [True, False]
    assert not step.truncated.any()
    assert float(step.next_obs[0, 0]) > 4
    assert float(step.obs[0, 0]) < 1
    assert step.metrics is not None
    assert step.metrics.shape == (2, 2)


def test_what_observations_hold() -> None:
    count = torch.arange(24.0)[None].double()
    state = State(qpos=count[:, :15], qvel=100 + count[:, :14])
    assert AntDir().observation(state, heading(1, 0)).tolist() == [[*range(2, 15), *range(100, 114)]]
    assert AntGoal().observation(state, GoalTasks(torch.zeros(1, 2))).tolist() == [[*range(15), *range(100, 114)]]
    state = State(qpos=count[:, :9], qvel=count[:, :9] * 3 - 15)
    expected = [*range(1, 9), -10, -10, -9, -6, -3, 0, 3, 6, 9]  # positions without x, clipped velocities
    assert WALKER.observation(state, ones(WALKER)).tolist() == [expected]
    env = HumanoidDir().make_env(1, generator())
    obs = env.reset(heading(1, 0)).obs
    assert obs.shape == (1, 270)
    mass = obs[0, 45:175].view(13, 10)[:, 9]
    assert torch.allclose(mass, env.physics.field("body_mass")[1:].float())


# What training can draw


def in_the_middle(family: Any) -> dict[str, Any]:
    """The samplers of a family's parameters, with the split "ood" in the middle third."""
    return {name: replace(sampler, ood="interpolation") for name, sampler in family.samplers.items()}


@pytest.mark.parametrize(
    "family",
    [
        AntDir(directions="circle", hold_out_diagonals=True),
        AntDir(directions="axes"),
        AntVel(velocity=Range(0, 3, ood="interpolation")),
        AntGoal(goal=Disc(3.0, ood="interpolation"), sparse=True),
        HumanoidDir(directions="forward_backward"),
        Walker2dRandParams(**in_the_middle(Walker2dRandParams()), inertia_follows_mass=True),
        Walker2dVel(velocity=Range(0, 10, ood="interpolation")),
        HopperRandParams(**in_the_middle(HopperRandParams())),
        SwimmerVel(velocity=Range(0.1, 0.2, ood="interpolation"), published_sign=True),
        HalfCheetahVel(velocity=Uniform(-1, 3, ood="interpolation")),
    ],
    ids=lambda family: family.name,
)
def test_variants_obey_the_laws(family: Any) -> None:
    check_family(type(family)(**{**vars(family), "horizon": 5}))


def drawn(family: Any, split: Any, field: str) -> Tensor:
    return getattr(family.sample(4000, split, generator()), field)


def between(values: Tensor, low: float, high: float) -> bool:
    """Whether values fill a range to its ends and no more."""
    slack = 0.01 * (high - low)
    return low - 1e-6 <= float(values.min()) < low + slack and high - slack < float(values.max()) <= high + 1e-6


def test_the_ranges_of_scalars() -> None:
    assert between(drawn(AntVel(), "train", "velocity"), 0, 3)
    assert between(drawn(AntVel(), "ood", "velocity"), 3, 4)
    assert between(drawn(Walker2dVel(), "test", "velocity"), 0, 10)
    assert between(drawn(SwimmerVel(), "train", "velocity"), 0.1, 0.2)
    assert between(drawn(SwimmerVel(), "ood", "velocity"), 0.2, 0.2 + 0.1 / 3)
    middle = AntVel(velocity=Range(0, 3, ood="interpolation"))
    assert between(drawn(middle, "ood", "velocity"), 1, 2)
    outer = drawn(middle, "train", "velocity")
    assert between(outer[outer < 1.5], 0, 1)
    assert between(outer[outer > 1.5], 2, 3)


def test_the_ranges_of_multipliers() -> None:
    for field, base in {"body_mass": 1.5, "body_inertia": 1.5, "dof_damping": 1.3, "geom_friction": 1.5}.items():
        exponent = drawn(HOPPER, "train", field).log() / math.log(base)
        assert between(exponent, -3, 3)
        exponent = drawn(HOPPER, "ood", field).log() / math.log(base)
        assert between(exponent.abs(), 3, 4)
        assert exponent.min() < 0 < exponent.max()
    tasks = HopperRandParams(inertia_follows_mass=True).sample(5, "train", generator())
    assert torch.equal(tasks.body_inertia, tasks.body_mass[:, :, None].expand(5, 4, 3))
    tasks = HOPPER.sample(5, "train", generator())
    assert not torch.equal(tasks.body_inertia[:, :, 0], tasks.body_inertia[:, :, 1])


def test_goals_fill_the_disc_evenly() -> None:
    distance = drawn(AntGoal(), "train", "goal").norm(dim=1)
    assert 0 < float(distance.min()) < 0.1
    assert 2.97 < float(distance.max()) < 3
    assert abs(float((distance < 1.5).float().mean()) - 0.25) < 0.03  # half the radius is a quarter of the area
    assert between(drawn(AntGoal(), "ood", "goal").norm(dim=1), 3, 3 * math.sqrt(4 / 3))


def test_directions() -> None:
    both = drawn(AntDir(), "train", "direction")
    assert both[:, 1].abs().max() == 0
    assert float(both[:, 0].sum()) == 0  # as many forward as backward
    assert set(both[:, 0].tolist()) == {-1.0, 1.0}
    assert both[:2000, 0].sum() != 0  # in random order
    sideways = drawn(AntDir(), "ood", "direction")
    assert between(sideways[:, 1].abs(), math.sqrt(0.5), 1)
    assert sideways[:, 1].min() < 0 < sideways[:, 1].max()
    circle = drawn(HumanoidDir(), "train", "direction")
    assert torch.allclose(circle.norm(dim=1), torch.ones(4000))
    assert circle.mean(0).abs().max() < 0.05
    assert between(torch.atan2(circle[:, 1], circle[:, 0]), -math.pi, math.pi)
    axes = AntDir(directions="axes")
    assert len({(round(x), round(y)) for x, y in drawn(axes, "train", "direction").tolist()}) == 4
    assert torch.allclose(drawn(axes, "train", "direction").abs().sum(1), torch.ones(4000))
    assert torch.allclose(drawn(axes, "ood", "direction").abs(), torch.tensor(math.sqrt(0.5)))
    assert len({(x > 0, y > 0) for x, y in drawn(axes, "ood", "direction").tolist()}) == 4
    held_out = HumanoidDir(hold_out_diagonals=True)
    fifteen = math.radians(15)
    for split, low, high in (("train", fifteen, math.pi / 4), ("ood", 0, fifteen)):
        x, y = drawn(held_out, split, "direction").unbind(1)
        from_diagonal = (torch.atan2(y, x) % (math.pi / 2) - math.pi / 4).abs()
        assert between(from_diagonal, low, high)
        assert len({(a, b) for a, b in zip((x > 0).tolist(), (y > 0).tolist(), strict=True)}) == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: AntDir(directions="left"),
            "directions is 'left'; must be one of forward_backward, axes",
        ),
        (
            lambda: AntDir(hold_out_diagonals=True),
            "hold_out_diagonals is True; must be False unless directions is 'circle'",
        ),
        (lambda: AntVel(velocity=3.0), r"velocity is 3.0; must be a sampler such as Range\(low=0.0, high=3.0\)"),
        (lambda: AntGoal(goal=Range(0, 3)), r"goal is .*; must be a sampler such as Disc\(radius=3.0\)"),
        (lambda: HumanoidDir(alive_bonus=-1), "alive_bonus is -1; must be at least 0"),
        (lambda: Walker2dVel(frame_skip=0), "frame_skip is 0; must be at least 1"),
        (lambda: HopperRandParams(body_mass=2.0), r"body_mass is 2.0; must be a sampler such as Multiplier"),
        (lambda: SwimmerVel(velocity=Range(0, 1e39)), "velocity is .*, which draws infinite numbers"),
        (
            lambda: HumanoidDir().sample(2, "ood", generator()),
            "split is 'ood'; must be one of train, test for humanoid_dir",
        ),
        (
            lambda: AntDir().sample(2, "all", generator()),
            "split is 'all'; must be one of train, test, ood for ant_dir",
        ),
    ],
)
def test_wrong_variants_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_physics_per_task_are_the_multiplied_fields() -> None:
    """A multiplied row moves as MuJoCo's own loop does on a model that was edited by hand: see test_mujoco.py."""
    for family in (WALKER, HOPPER):
        env = family.make_env(2, generator())
        tasks = family.sample(2, "train", generator())
        env.reset(tasks)
        model, _ = env.copy_row(1)
        for field, skipped in {"body_mass": 1, "body_inertia": 1, "dof_damping": 3, "geom_friction": 0}.items():
            nominal = env.physics.field(field)
            expected = nominal.clone()
            expected[skipped:] *= getattr(tasks, field)[1].double()
            assert torch.equal(torch.from_numpy(getattr(model, field)), expected), field
            assert torch.equal(expected[:skipped], nominal[:skipped])

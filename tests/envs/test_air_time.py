"""How long feet are in the air, and the term that rewards long steps, on a foot that is lifted and put down."""

from pathlib import Path
from typing import Any

import pytest
import torch

from envs.check import check_family
from envs.locomotion.custom_robot import MujocoFamily
from envs.locomotion.quadruped import FEET, QuadrupedVel, rewards
from envs.locomotion.reward_terms import FeetAirTime
from envs.samplers import Choice, Uniform

# A foot on a slide, whose motor lifts it; it falls back by its weight. Another one never leaves the floor.
FOOT = """<mujoco><option timestep="0.01" integrator="implicitfast"/><worldbody>
  <geom name="floor" type="plane" size="9 9 1"/>
  <body pos="0 0 0.1"><joint name="lift" type="slide" axis="0 0 1" damping="1"/>
    <geom name="foot" size="0.1" mass="1"/></body>
  <body pos="1 0 0.1"><joint type="slide" axis="0 0 1"/><geom name="other" size="0.1" mass="1"/></body></worldbody>
  <actuator><motor name="lift" joint="lift" gear="30" ctrlrange="0 1"/></actuator>
  <sensor><contact name="foot" geom1="foot" data="found force" reduce="netforce"/>
    <contact name="other" geom1="other" data="found force" reduce="netforce"/></sensor></mujoco>"""
DT = 0.02


@pytest.fixture(scope="module")
def lifted(tmp_path_factory) -> Any:
    path = Path(tmp_path_factory.mktemp("foot")) / "foot.xml"
    path.write_text(FOOT)

    def make(**changes: Any) -> Any:
        settings: dict[str, Any] = {
            "mjcf": path,
            "observe": lambda physics, task: torch.stack([physics.air_time("foot"), physics.touches("foot")], 1),
            "reward": {"air": (1.0, FeetAirTime(("foot", "other"), target=0.1))},
            "metrics": {"landed_after": lambda physics, action, task: physics.landed_after("foot")},
            "tasks": {"friction": Uniform(0.5, 1)},
            "unchecked": ("friction",),
            "horizon": 50,
            "frame_skip": 2,
            "start_noise": 0.0,
        }
        return MujocoFamily(**{**settings, **changes})

    return make


def steps_of(family: Any, lifts: list[list[float]], active: dict[int, list[bool]] | None = None) -> Any:
    """What rows see, are paid and measure while their feet are lifted by these controls, [steps, rows] each."""
    rows = len(lifts[0])
    env = family.make_env(rows, torch.Generator().manual_seed(0))
    env.reset(family.sample(rows, "test", torch.Generator().manual_seed(0)))
    steps = []
    for number, lift in enumerate(lifts):
        chosen = (active or {}).get(number)
        steps.append(env.step(torch.tensor(lift)[:, None], None if chosen is None else torch.tensor(chosen)))
    air_time, touches = torch.stack([step.next_obs for step in steps]).unbind(2)
    return air_time, touches > 0, torch.stack([step.reward for step in steps]), steps


def test_the_clock_runs_in_the_air_and_the_term_pays_at_touchdown(lifted):
    air_time, touches, reward, steps = steps_of(lifted(), [[1.0, 0.0]] * 5 + [[0.0, 0.0]] * 30)
    assert touches[-1, 0]
    assert (air_time[:, 1] == 0).all()  # the second row's foot stays on the floor
    up = (~touches[:, 0]).nonzero().flatten()
    assert torch.equal(up, torch.arange(int(up[0]), int(up[-1]) + 1))  # one flight
    assert air_time[up, 0].tolist() == pytest.approx([DT * (index + 1) for index in range(len(up))])
    landing = int(up[-1]) + 1
    in_air = DT * (len(up) + 1)
    assert in_air > 0.1
    expected = torch.zeros(35)
    expected[landing] = in_air - 0.1
    torch.testing.assert_close(reward[:, 0], expected)
    assert (reward[:, 1] == 0).all()
    torch.testing.assert_close(steps[landing].metrics[:, 0], torch.tensor([in_air, 0.0]))


def test_a_new_episode_starts_the_clock_anew_and_an_inactive_row_stops_it(lifted):
    family = lifted(horizon=8)
    air_time, _, _, steps = steps_of(family, [[1.0, 1.0]] * 10, active={6: [True, False]})
    assert air_time[6, 1] == air_time[5, 1] == pytest.approx(float(air_time[6, 0]) - DT)
    ended = steps[7]
    assert ended.truncated.tolist() == [True, False]
    assert ended.obs[0, 0] == 0
    assert ended.next_obs[0, 0] > 0
    assert air_time[9, 0] < air_time[8, 1]


def test_the_clock_of_a_robot_with_latency_counts_all_substeps(lifted):
    late = lifted(tasks={"friction": Uniform(0.5, 1), "action_latency": Choice([10.0])}, unchecked=("friction",))
    air_time, touches, _, _ = steps_of(late, [[1.0]] * 6)
    flying = int((~touches[:, 0]).nonzero()[0])
    assert air_time[flying + 1, 0] == pytest.approx(float(air_time[flying, 0]) + DT)


def test_a_quadruped_with_the_term_obeys_the_laws():
    reward = {**rewards(), "air_time": (0.5, FeetAirTime(FEET, target=0.2))}
    check_family(QuadrupedVel(reward=reward, horizon=12))


def test_a_foot_without_a_sensor_is_named(lifted):
    with pytest.raises(ValueError, match=r"reward 'air' fails: ValueError: geom 'floor' has no sensor of contacts"):
        lifted(reward={"air": (1.0, FeetAirTime(("floor",)))})


def test_a_field_that_only_the_moment_before_is_asked_for_is_kept(lifted):
    family = lifted(reward=lambda physics, action, task: physics.before.xpos[:, 1, 2], metrics={})
    _, _, reward, _ = steps_of(family, [[0.0], [0.0]])
    assert reward[0, 0] == pytest.approx(0.1, abs=0.01)

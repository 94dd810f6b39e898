"""Simulation speed: our closed-loop rollout, the engine's raw limit and the peers, in one interleaved run.

All contenders of a body have the same frame skip and the same kind of policy (experiments/benchmarks/contenders.py),
and store observations, actions, log-probabilities and rewards. For each body and number of rows:

- `limit`: the engine alone, with the same rows and threads and precomputed controls.
- `closed_loop`: our rollout with one policy and one body for all rows; robots that fall stay down, as in the limit.
- `per_task_dynamics`: `closed_loop` with masses, damping and friction per task, close enough to the nominal ones to
  leave the solver's work unchanged.
- `per_task_policies`: `closed_loop` with one policy per task.

`rand_params` is the half cheetah's family with varied physics, unchanged: bodies far from the nominal one take the
solver more work, however they are simulated. On a machine with a GPU, `gpu_limit` and `gpu_closed_loop` are engine and
rollout there.

Each contender is measured for about the same time (experiments/benchmarks/harness.py). On a machine that is busy
otherwise, contenders of many processes get a larger share of it: ratios to them mean little there. A peer whose robot
has other observations or actions than ours is left out, and a line says so.

Tried without benefit: simulating one half of the rows while the policy decides for the other. Physics keeps all cores
busy, so at most the policy's time could be saved, and smaller batches slow the policy down by as much.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import torch

from envs.catalog import FAMILIES, make
from experiments.benchmarks import peers
from experiments.benchmarks.contenders import Contender, Dynamics, MemorylessAgent, closed_loop, gpu_limit, limit
from experiments.benchmarks.harness import Result, interleave, ratios, report
from metarl.torch_settings import torch_threads

PEER_STEPS = 5  # steps of all rows that count as an episode of a peer
SYNC_ENVS = 16  # environments in Gymnasium's loop, whose speed does not depend on their number


@dataclass(frozen=True)
class Body:
    """The measurements for a body."""

    family: str  # family whose observations, rewards and ends are computed
    rows: tuple[int, ...]
    horizon: int  # episode length, chosen so all rows take about a second


BODIES = {
    "half_cheetah": Body("half_cheetah_vel", (64, 800), 100),
    "hopper": Body("hopper_rand_params", (320,), 50),
    "walker2d": Body("walker2d_vel", (320,), 50),
    "ant": Body("ant_dir", (320,), 40),
    "humanoid": Body("humanoid_dir", (320,), 25),
}
BODIES = {name: body for name, body in BODIES.items() if body.family in FAMILIES}

TARGETS = {  # smallest ratios
    "closed_loop_half_cheetah_64 / limit_half_cheetah_64": 0.72,
    "closed_loop_half_cheetah_800 / limit_half_cheetah_800": 0.88,
    "closed_loop_ant_320 / limit_ant_320": 0.93,
    "closed_loop_humanoid_320 / limit_humanoid_320": 0.93,
    **{
        f"per_task_{what}_{name} / closed_loop_{name}": 0.95
        for name in ("half_cheetah_800", "hopper_320", "walker2d_320", "ant_320", "humanoid_320")
        for what in ("dynamics", "policies")
    },
    "closed_loop_half_cheetah_800 / gymnasium_sync_half_cheetah_800": 3.5,
    "closed_loop_half_cheetah_800 / gymnasium_async_half_cheetah_40": 10.0,
    "closed_loop_half_cheetah_800 / gymnasium_async_half_cheetah_200": 10.0,
    "closed_loop_half_cheetah_800 / envpool_half_cheetah_800": 1.4,
}


@dataclass(frozen=True)
class Settings:
    """The size of a benchmark."""

    bodies: tuple[str, ...] = tuple(BODIES)
    rows: tuple[int, ...] | None = None  # numbers of rows for every body; None: the body's own
    gpu_rows: tuple[int, ...] = (1024, 4096, 16384)  # numbers of rows for every body on a GPU
    copies: int = 8  # number of rows per task
    num_rounds: int = 5
    horizon: int | None = None  # episode length in steps; None: the body's own
    seconds: float = 0.7  # approximate duration of one measurement, a whole number of episodes
    # One process per environment: a meta-batch of the papers with one process per task; then many rows, as in ours. 800
    # processes would take 14 GB.
    num_processes: tuple[int, ...] = (40, 200)

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in asdict(self).items() if name != "bodies" and value is not None}
        for name, value in numbers.items():
            if min(value if isinstance(value, tuple) else (value,)) <= 0:
                raise ValueError(f"{name} of the simulation benchmark is {value}; must be positive")
        for rows in (*(self.rows or ()), *self.gpu_rows):
            if rows % self.copies:
                raise ValueError(f"rows has {rows}; must be a multiple of copies, {self.copies}")
        for body in self.bodies:
            if body not in BODIES:
                raise ValueError(f"bodies has {body!r}; must be one of {', '.join(BODIES)}")


def run(settings: Settings | None = None) -> Result:
    """Measure everything: environment steps per second, their ratios, and what was asked for."""
    settings = Settings() if settings is None else settings
    contenders: list[Contender] = []
    left_out: list[str] = []
    with torch_threads(1):  # for every contender's policy, as `collect` has it for ours
        try:
            contenders = _contenders(settings, torch.Generator().manual_seed(0), left_out)
            rounds = interleave({one.name: _speed(one, settings.seconds) for one in contenders}, settings.num_rounds)
        finally:
            for contender in contenders:
                contender.close()
    return Result(
        "simulation",
        settings,
        dict.fromkeys(rounds, "env-steps/s"),
        rounds,
        ratios(rounds, _ratio_names(settings, rounds)),
        asked=TARGETS,
        details={"rows": {contender.name: contender.num_rows for contender in contenders}},
        left_out=tuple(dict.fromkeys(left_out)),
    )


def _contenders(settings: Settings, generator: torch.Generator, left_out: list[str]) -> list[Contender]:
    """Peers first: their worker processes should start before ours hold threads. left_out: is given what cannot be."""
    found = [_peers(body, settings, generator, left_out) for body in settings.bodies]
    found += [_ours(body, settings, generator) for body in settings.bodies]
    if torch.cuda.is_available() and importlib.util.find_spec("mujoco_warp") is not None:
        on_gpu = torch.Generator("cuda").manual_seed(0)
        found += [_on_accelerator(body, settings, on_gpu) for body in settings.bodies]
    return [contender for contenders in found for contender in contenders]


def _peers(body: str, settings: Settings, generator: torch.Generator, left_out: list[str]) -> list[Contender]:
    """Others' environments of a body: of many processes for the half cheetah only, as those take long to start.

    Their episodes continue from one short measurement to the next.
    """
    rows = _rows(body, settings)
    makers: list[tuple[Callable[[str, int], peers.Peer], int]] = [(peers.envpool, number) for number in rows]
    if body == "half_cheetah":
        makers += [(peers.gymnasium_async, number) for number in settings.num_processes]
        makers += [(peers.sb3_subproc, min(settings.num_processes))]
        makers += [(peers.gymnasium_sync, number) for number in sorted({min(rows), max(rows)})]
    else:
        makers += [(peers.gymnasium_sync, SYNC_ENVS)]
    single = peers.make_gymnasium(body)
    agent = MemorylessAgent(
        SimpleNamespace(observation_space=single.observation_space, action_space=single.action_space), generator
    )
    single.close()

    def contender(peer: peers.Peer) -> Contender:
        def measure(num_episodes: int) -> tuple[int, float]:
            return peer.measure(agent.sample, num_episodes * PEER_STEPS)

        return Contender(f"{peer.name}_{peer.num_rows}", peer.num_rows, measure, peer.close)

    found = []
    for make_peer, number in makers:
        try:
            found.append(contender(make_peer(body, number)))
        except peers.NotComparableError as error:
            left_out.append(str(error))
    return found


def _ours(body: str, settings: Settings, generator: torch.Generator) -> list[Contender]:
    """The limit and our rollouts of a body on CPU threads."""
    family = _family(body, settings)
    found = []
    agent = MemorylessAgent(family, generator)
    for rows in _rows(body, settings):
        copies = settings.copies
        shared, per_task = Dynamics(family, per_task=False), Dynamics(family, per_task=True)
        agents = MemorylessAgent(family, generator, num_tasks=rows // copies)
        found += [
            limit(f"limit_{body}_{rows}", family, rows, generator),
            closed_loop(f"closed_loop_{body}_{rows}", shared, rows, copies, agent, generator),
            closed_loop(f"per_task_dynamics_{body}_{rows}", per_task, rows, copies, agent, generator),
            closed_loop(f"per_task_policies_{body}_{rows}", shared, rows, copies, agents, generator),
        ]
    if body == "half_cheetah":
        rows, changed = max(_rows(body, settings)), make("half_cheetah_rand_params", horizon=family.horizon)
        found.append(closed_loop(f"rand_params_{body}_{rows}", changed, rows, settings.copies, agent, generator))
    return found


def _on_accelerator(body: str, settings: Settings, generator: torch.Generator) -> list[Contender]:
    """Engine and rollout of a body on the generator's device."""
    family = Dynamics(_family(body, settings), per_task=False)
    agent = MemorylessAgent(family, generator)
    found = []
    for rows in settings.gpu_rows:
        found += [
            gpu_limit(f"gpu_limit_{body}_{rows}", family, rows, generator),
            closed_loop(f"gpu_closed_loop_{body}_{rows}", family, rows, settings.copies, agent, generator),
        ]
    return found


def _family(body: str, settings: Settings) -> Any:
    return make(BODIES[body].family, horizon=settings.horizon or BODIES[body].horizon)


def _rows(body: str, settings: Settings) -> tuple[int, ...]:
    return settings.rows or BODIES[body].rows


def _speed(contender: Contender, seconds: float) -> Callable[[], float]:
    """Environment steps per second, measured for about so long; two measurements before warm up and say how long."""
    contender.measure(1)
    num_episodes = max(1, round(seconds / contender.measure(1)[1]))

    def measure() -> float:
        num_steps, taken = contender.measure(num_episodes)
        return num_steps / taken

    return measure


def _ratio_names(settings: Settings, measured: Mapping[str, Any]) -> list[str]:
    """The compared pairs: ours and the limit at each number of rows, per task and shared, ours and the peers."""
    names = []
    for body in settings.bodies:
        for rows in _rows(body, settings):
            ours = f"closed_loop_{body}_{rows}"
            names += [f"{ours} / limit_{body}_{rows}"]
            names += [f"per_task_{what}_{body}_{rows} / {ours}" for what in ("dynamics", "policies")]
            names += [f"{ours} / {peer}_{body}_{rows}" for peer in ("gymnasium_sync", "envpool")]
        largest = max(_rows(body, settings))
        ours = f"closed_loop_{body}_{largest}"
        names += [f"rand_params_{body}_{largest} / {ours}", f"{ours} / gymnasium_sync_{body}_{SYNC_ENVS}"]
        for number in settings.num_processes:
            names += [f"{ours} / {peer}_{body}_{number}" for peer in ("gymnasium_async", "sb3_subproc")]
        names += [f"gpu_closed_loop_{body}_{rows} / gpu_limit_{body}_{rows}" for rows in settings.gpu_rows]
    return [name for name in dict.fromkeys(names) if set(name.split(" / ")) <= set(measured)]


def main(json: bool = False, bodies: Sequence[str] = ()) -> None:
    """Print the result as tables, or as one JSON object; bodies: those to measure, all if left out."""
    report(run(Settings(bodies=tuple(bodies)) if bodies else None), json)

"""Trainings that several processes share, to be compared with those of one; see test_parallel.py."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as processes

from agents.algorithm_distillation import ADConfig
from agents.dpt import DPTConfig
from agents.hypernetwork_policy import HypernetworkPolicyConfig
from agents.hyperx import HyperXConfig
from agents.inner_learner import InnerLearnerConfig
from agents.maml import MAMLTRPOConfig
from agents.memories import MEMORIES
from agents.pearl import PEARLConfig
from agents.promp import ProMPConfig
from agents.rl2 import RL2Config
from agents.rl2_sac import RL2SACConfig
from agents.teacher_student import TeacherStudentConfig
from agents.varibad import VariBADConfig
from envs.torch_families.dark_room import DarkRoom
from envs.torch_families.navigation import PointNavigation
from envs.torch_families.tabular import TabularMDP
from metarl import parallel
from metarl.adaptation.transformer import TransformerConfig
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.methods.neural_processes import NPConfig
from metarl.fewshot.regression import Sinusoid
from metarl.trainer import TrainConfig, Trainer
from tests.metarl.fewshot.metric_learners import METRIC_LEARNERS
from tests.metarl.fewshot.patterns import Patterns

POINT = PointNavigation(horizon=8, num_episodes=2)  # whose episodes end early where a goal is reached
MDP = TabularMDP(num_states=4, num_actions=3, horizon=5, num_episodes=3)  # with noise in transitions and rewards
ROOM = DarkRoom(size=3, horizon=4, num_episodes=2)
READER = TransformerConfig(num_layers=1, num_heads=2, positions="none")
SMALL = {"hidden_size": 16, "head_sizes": (16,), "num_minibatches": 3}
REPLAY: dict[str, Any] = {
    "latent_size": 3,
    "hidden_sizes": (16,),
    "encoder_sizes": (16,),
    "num_train_tasks": 7,
    "initial_episodes": 2,
    "prior_episodes": 2,
    "posterior_episodes": 2,
    "extra_episodes": 2,
    "num_gradient_steps": 6,
    "meta_batch": 5,
    "batch": 8,
    "context": 8,
}
VAE: dict[str, Any] = {
    "latent_size": 3,
    "hidden_size": 16,
    "encoder_sizes": (8,),
    "reward_decoder_sizes": (8,),
    "state_decoder_sizes": (8,),
    "embedding_size": 8,
    "head_sizes": (8,),
    "num_vae_steps": 2,
    "vae_batch": 5,
    "buffer_trials": 20,
}
SAC: dict[str, Any] = {
    "hidden_size": 16,
    "head_sizes": (16,),
    "num_gradient_steps": 6,
    "meta_batch": 5,
    "batch": 8,
    "buffer_trials": 20,
    "max_grad_norm": 1.0,
}
BONUS = HyperXConfig(novelty_sizes=(8,), novelty_outputs=4, novelty_learning_rate=1e-2, novelty_batch=15)
BLOCKS: dict[str, Any] = {"hidden_sizes": (16,), "num_rollouts": 4}

Case = tuple[Any, Any, int, int]  # family, configuration, tasks and copies

CASES: dict[str, Case] = {
    "rl2": (MDP, RL2Config(**SMALL), 5, 2),
    "rl2 with an inner learner": (MDP, RL2Config(**SMALL, inner=InnerLearnerConfig()), 5, 2),
    "rl2 that stops early": (MDP, RL2Config(**SMALL, num_epochs=6, target_kl=1e-4, learning_rate=1e-2), 5, 2),
    "rl2 with a transformer": (POINT, RL2Config(**{**SMALL, "hidden_size": 32}, memory=MEMORIES["transformer"]), 6, 1),
    "rl2 whose minibatches are of one row": (MDP, RL2Config(**SMALL), 3, 1),
    # without damping, ten steps of conjugate gradient on so few data amplify the last digits
    "maml_trpo": (POINT, MAMLTRPOConfig(**BLOCKS, normalise_obs=True, cg_damping=0.1, num_cg_steps=4), 5, 1),
    "e-maml": (POINT, MAMLTRPOConfig(**BLOCKS, exploration_credit=1.0, cg_damping=0.1, num_cg_steps=4), 5, 1),
    "promp": (POINT, ProMPConfig(**BLOCKS, target_kl=0.01), 5, 1),
    "pearl": (POINT, PEARLConfig(**REPLAY, normalise_obs=True, temperature=None), 5, 1),
    "rl2_sac": (POINT, RL2SACConfig(**SAC), 5, 2),
    "varibad": (POINT, VariBADConfig(**VAE, num_minibatches=2), 5, 1),
    "rl2 with a bonus": (POINT, RL2Config(**SMALL, bonus=BONUS), 5, 1),
    "varibad with a bonus": (POINT, VariBADConfig(**VAE, num_minibatches=2, bonus=BONUS), 5, 2),
    "dpt": (ROOM, DPTConfig(memory=READER, hidden_size=8, head_sizes=(8,), context=6, hold=2), 5, 2),
    "dpt on own trials": (ROOM, DPTConfig(memory=READER, hidden_size=8, head_sizes=(8,), context=6, own=0.5), 5, 1),
    "ad": (ROOM, ADConfig(hidden_size=8, context=6, num_histories=12, history_episodes=3), 5, 2),
    "rl2 with split aggregation": (MDP, RL2Config(**SMALL, memory=MEMORIES["splagger"]), 5, 1),
    "rl2 with a hypernetwork": (MDP, RL2Config(**SMALL, policy=HypernetworkPolicyConfig(hidden_sizes=(4,))), 5, 1),
    "teacher and student": (POINT, TeacherStudentConfig(**SMALL, teacher_fraction=0.3), 5, 1),
    "maml": (Sinusoid(), MAMLConfig(), 5, 1),
    "np": (Sinusoid(), NPConfig(), 5, 1),
    "prototypical": (Patterns(), METRIC_LEARNERS["prototypical"][0], 5, 1),
}


def train(name: str, case: Case, num_iterations: int, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The curve, the evaluation and the last state of a training of so many iterations, after a state if it has one."""
    family, config, num_tasks, copies = case
    settings = TrainConfig(num_iterations=5, num_tasks=num_tasks, copies=copies, eval_tasks=7)
    trainer = Trainer(family, config, settings, agent_name=name, seed=3)
    if state is not None:
        trainer.load_state_dict(state)
    rows = [trainer.iterate() for _ in range(num_iterations)]
    evaluation = trainer.evaluate()
    return {
        "rows": [{tag: value for tag, value in row.items() if not tag.startswith("time/")} for row in rows],
        "scores": None if evaluation.per_task is None else evaluation.per_task.scores,
        "tasks_hash": evaluation.tasks_hash,
        "state": trainer.state_dict(),
        "communication": rows[-1].get("time/communication_bytes"),
    }


def by_processes(count: int, work: Callable[[], Any], path: Path) -> Any:
    """What `work` returns in the first of so many processes, which share trainings; `work` can be pickled.

    They are copies of one process that has imported this module, as the import would take most of their time.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes.set_forkserver_preload([__name__, "torch._dynamo"])  # which every first optimiser imports
    arguments = (count, port, work, path)
    processes.start_processes(_worker, arguments, nprocs=count, start_method="forkserver")
    return torch.load(path, weights_only=False)


def _worker(index: int, count: int, port: int, work: Callable[[], Any], path: Path) -> None:
    ranks = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in ranks.items()} | {"MASTER_ADDR": "127.0.0.1"}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    parallel.join()
    result = work()
    if index == 0:
        torch.save(result, path)
    parallel.leave()

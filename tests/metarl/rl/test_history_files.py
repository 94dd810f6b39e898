"""Histories on disk: what is read is what was written, others read it too, and no test task gets in or out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.algorithm_distillation import ADConfig
from agents.rl2 import RL2Config
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation
from experiments.experiment.definition import Experiment
from experiments.workbench.histories import record_histories
from metarl.errors import UserError
from metarl.protocols import Split, TaskFamily
from metarl.records import Trajectory
from metarl.rl import history_files
from metarl.rl.histories import Histories
from metarl.rl.history_files import read_histories, write_histories
from metarl.rl.rollouts import collect
from metarl.trainer import TrainConfig, Trainer

GRID = GridNavi(size=3, horizon=4, num_episodes=3)
POINT = PointNavigation(horizon=5, num_episodes=2)
RL2 = RL2Config(hidden_size=4)


def trials(family: TaskFamily, num_tasks: int = 3) -> Trajectory[Any]:
    generator = torch.Generator().manual_seed(0)
    agent = RL2.make(family.observation_space, family.action_space, num_iterations=1, generator=generator)
    tasks = family.sample(num_tasks, "train", generator)
    return collect(family.make_env(num_tasks, generator), agent, tasks, family.num_episodes, generator=generator)


def written(folder: Path, family: TaskFamily, trajectory: Trajectory[Any], split: Split = "train") -> int:
    return write_histories(folder, family, trajectory, split=split, made_by={"algorithm_name": "rl2"})


@pytest.mark.parametrize("split", ["test", "val", "ood"])
def test_only_training_tasks_are_written(split, tmp_path):
    """Whether or not Minari is installed."""
    with pytest.raises(UserError, match=f"split is '{split}'; must be train"):
        written(tmp_path, GRID, trials(GRID), split)
    assert not any(tmp_path.iterdir())


def test_without_minari_a_line_says_what_to_install(tmp_path, monkeypatch):
    def missing() -> Any:
        raise UserError("histories on disk need h5py: pip install 'metarl[histories]'")

    monkeypatch.setattr(history_files, "_minari", missing)
    with pytest.raises(UserError, match="metarl\\[histories\\]"):
        written(tmp_path, GRID, trials(GRID))
    with pytest.raises(UserError, match="metarl\\[histories\\]"):
        Trainer(GRID, ADConfig(histories=str(tmp_path)), TrainConfig(1, 1), agent_name="ad", seed=0)


class TestWithMinari:
    @pytest.fixture(autouse=True)
    def _needs_its_storage(self):
        pytest.importorskip("h5py")

    @pytest.mark.parametrize("family", [GRID, POINT], ids=["grid", "point"])
    def test_what_is_read_is_what_was_written(self, family, tmp_path):
        trajectory = trials(family)
        valid = trajectory.valid.clone()
        valid[-2:, 1] = False  # a row that ended sooner
        trajectory = replace(trajectory, valid=valid, episode_start=trajectory.episode_start & valid)
        num_episodes = written(tmp_path, family, trajectory)
        assert num_episodes == int(trajectory.episode_start.sum())
        expected, found = Histories.of(trajectory), Histories(**read_histories(tmp_path, family))
        assert torch.equal(found.length, expected.length)
        for row, length in enumerate(expected.length.tolist()):
            for name in ("obs", "action", "reward"):
                assert torch.equal(getattr(found, name)[row, :length], getattr(expected, name)[row, :length]), name
            ends = found.episode_end[row, : length - 1]
            assert torch.equal(ends, expected.episode_end[row, : length - 1])

    def test_others_read_it(self, tmp_path):
        import minari

        trajectory = trials(GRID)
        written(tmp_path, GRID, trajectory)
        dataset = minari.MinariDataset(tmp_path / "data")
        assert dataset.total_episodes == 9
        assert dataset.total_steps == 36
        episode = dataset[4]
        assert episode.observations.shape == (5, 9)
        assert episode.rewards.tolist() == pytest.approx(trajectory.reward[4:8, 1].tolist())
        assert bool(episode.truncations[-1])

    def test_what_is_not_in_training_tasks_of_the_family_is_refused(self, tmp_path):
        written(tmp_path, GRID, trials(GRID))
        with pytest.raises(UserError, match="already holds a dataset"):
            written(tmp_path, GRID, trials(GRID))
        with pytest.raises(UserError, match="are of family 'grid_navi'; must be 'point_navigation'"):
            read_histories(tmp_path, POINT)
        with pytest.raises(UserError, match="are of grid_navi with size 3; must be 4"):
            read_histories(tmp_path, GridNavi(size=4))
        with pytest.raises(UserError, match="cannot be read as a Minari dataset"):
            read_histories(tmp_path / "none", GRID)
        metadata = tmp_path / "data" / "metadata.json"
        metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "split": "test"}))
        with pytest.raises(UserError, match="are of split 'test'; must be train"):
            read_histories(tmp_path, GRID)

    def test_an_agents_histories_teach_another(self, tmp_path):
        maker = Experiment(POINT, RL2, TrainConfig(num_iterations=1, num_tasks=2)).trainer()
        assert record_histories(maker, tmp_path, 4, 3, seed=0)[0] == 4
        config = ADConfig(hidden_size=8, context=5, histories=str(tmp_path))
        learner = Trainer(POINT, config, TrainConfig(num_iterations=2, num_tasks=3), agent_name="ad", seed=0)
        first = learner.iterate()["train/log_likelihood"]
        assert torch.isfinite(torch.tensor(first))
        assert len(learner.evaluate(num_tasks=3).points) == 2

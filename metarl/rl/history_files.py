"""Histories on disk, as Minari datasets, which other libraries of offline reinforcement learning read too.

A Minari episode is one episode of the environment. Its attributes say which history it belongs to (`history`) and its
place there (`episode`); those of the dataset say what made it, and of which split its tasks are. Only training tasks
are written, and only training tasks are read, so what is learned from files has seen no test task.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from metarl.errors import UserError
from metarl.protocols import Split, TaskFamily
from metarl.records import Trajectory

_DATA = "data"  # Minari's folder in that of a dataset


def check_split_of_histories(split: Split) -> None:
    """Refuse every split but the training tasks.

    Raises:
        UserError: naming the split.
    """
    if split != "train":
        raise UserError(f"split is {split!r}; must be train: what learns from histories must not know other tasks")


def write_histories(
    folder: Path, family: TaskFamily, trajectory: Trajectory[Any], *, split: Split, made_by: Mapping[str, str]
) -> int:
    """Write each row of a trajectory as one history; returns the number of episodes.

    made_by: what the dataset's metadata say of the agent, as text by name.

    Raises:
        UserError: when the tasks are not those of training, Minari is missing, or the folder holds a dataset.
    """
    check_split_of_histories(split)
    storage, buffer = _minari()
    data = folder / _DATA
    if (data / "metadata.json").exists():
        raise UserError(f"{folder} already holds a dataset; choose another folder")
    data.mkdir(parents=True, exist_ok=True)
    made = storage.new(data, family.observation_space, family.action_space, data_format="hdf5")
    places = []
    for number, (history, episode, values) in enumerate(_episodes(trajectory)):
        made.update_episodes([buffer(id=number, **values)])
        places.append({"history": history, "episode": episode})
    made.update_episode_metadata(places)
    name = f"metarl/{family.name}-v0"
    settings = {"family": family.name, "family_settings": _settings(family), "split": split}
    made.update_metadata({**made_by, "dataset_id": name, "minari_version": version("minari"), **settings})
    return len(places)


def read_histories(folder: Path, family: TaskFamily) -> dict[str, Tensor]:
    """The fields of `metarl.rl.histories.Histories` from a dataset that `write_histories` has written.

    Raises:
        UserError: when there is no such dataset of this family and of training tasks, or Minari is missing.
    """
    storage, _ = _minari()
    data = folder / _DATA
    try:
        metadata = json.loads((data / "metadata.json").read_text())
        made = storage.read(data)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"histories is {str(folder)!r}, which cannot be read as a Minari dataset ({error})") from error
    if metadata.get("split") != "train":
        raise UserError(f"histories in {folder} are of split {metadata.get('split')!r}; must be train")
    if metadata.get("family") != family.name:
        raise UserError(f"histories in {folder} are of family {metadata.get('family')!r}; must be {family.name!r}")
    for name, value in _settings(family).items():
        theirs = metadata["family_settings"].get(name)
        if theirs != value:
            raise UserError(f"histories in {folder} are of {family.name} with {name} {theirs}; must be {value}")
    numbers = range(made.total_episodes)
    rows: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    places = made.get_episode_metadata(numbers)
    for place, episode in zip(places, made.get_episodes(numbers), strict=True):
        rows.setdefault(int(place["history"]), []).append((int(place["episode"]), episode))
    histories = [[episode for _, episode in sorted(row, key=lambda pair: pair[0])] for _, row in sorted(rows.items())]
    if not histories:
        raise UserError(f"histories in {folder} are none")
    return _joined(histories)


def _settings(family: TaskFamily) -> dict[str, str]:
    """The settings of a family, as text by name; trials may have other numbers of episodes than histories."""
    names = [each.name for each in fields(family)] if is_dataclass(family) else []
    return {name: repr(getattr(family, name)) for name in names if name != "num_episodes"}


def _episodes(trajectory: Trajectory[Any]) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Each episode of each row: the numbers of its row and of itself there, and Minari's fields."""
    index, valid = trajectory.episode_index, trajectory.valid
    values = {
        "actions": trajectory.decision.action,
        "rewards": trajectory.reward,
        "terminations": trajectory.terminated,
        "truncations": trajectory.truncated,
    }
    for row in range(valid.shape[1]):
        for episode in range(int(index[valid[:, row], row].max()) + 1):
            steps = (index[:, row] == episode) & valid[:, row]
            obs, last = trajectory.obs[steps, row], trajectory.next_obs[steps, row][-1:]
            own = {name: value[steps, row].numpy() for name, value in values.items()}
            yield row, episode, {"observations": torch.cat([obs, last]).numpy(), **own}


def _joined(histories: list[list[dict[str, Any]]]) -> dict[str, Tensor]:
    """The histories' tensors, from the episodes of each in order."""

    def whole(name: str, episodes: list[dict[str, Any]]) -> Tensor:
        values = [episode[name][:-1] if name == "observations" else episode[name] for episode in episodes]
        return torch.as_tensor(np.concatenate(values))

    def padded(name: str) -> Tensor:
        return pad_sequence([whole(name, episodes) for episodes in histories], batch_first=True)

    reward = padded("rewards").float()
    return {
        "obs": padded("observations").float(),
        "action": padded("actions"),
        "reward": reward,
        "episode_end": padded("terminations").bool() | padded("truncations").bool(),
        "length": torch.tensor([sum(len(each["rewards"]) for each in episodes) for episodes in histories]),
    }


def _minari() -> tuple[Any, Any]:
    """Minari's storage and its buffer of an episode.

    Raises:
        UserError: saying how to install what is missing.
    """
    missing = next((name for name in ("minari", "h5py") if find_spec(name) is None), None)
    if missing is not None:
        raise UserError(f"histories on disk need {missing}: pip install 'metarl[histories]'")
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    return MinariStorage, EpisodeBuffer

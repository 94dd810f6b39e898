"""Class-aware sampling: tasks of classes that the learner confuses."""

import io
from dataclasses import dataclass, replace
from functools import lru_cache

import pytest
import torch

from metarl.fewshot.images.class_set import ImageClasses, pool_of
from metarl.fewshot.images.family import ClassTasks, ImageFamily
from metarl.fewshot.methods.prototypical import PrototypicalConfig
from metarl.fewshot.regression import Sinusoid
from metarl.fewshot.source import FewShotSource
from metarl.nets.conv import ConvConfig
from metarl.task_samplers.class_aware import ClassAwareConfig
from metarl.task_samplers.roml import RoMLConfig
from metarl.trainer import TrainConfig, Trainer

NUM_CLASSES, WAYS = 40, 4
TWINS = (3, 17)  # two classes that a learner takes for each other
LEARNER = PrototypicalConfig(conv=ConvConfig(num_blocks=1, filters=2, normalisation="running"))


@lru_cache
def noise() -> ImageClasses:
    """Classes of random images, of which the last half differ in nothing."""
    images = torch.randint(256, (NUM_CLASSES * 4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    mean = images.float().reshape(NUM_CLASSES, 4, 1, 8, 8).mean(1, keepdim=True).expand(-1, 4, -1, -1, -1)
    clear = mean.reshape_as(images)
    clear[NUM_CLASSES * 2 :] = images[NUM_CLASSES * 2 :]
    names = tuple(f"class{index}" for index in range(NUM_CLASSES))
    return ImageClasses(clear.byte(), torch.full((NUM_CLASSES,), 4), names, ("",) * NUM_CLASSES)


@dataclass(frozen=True)
class Noise(ImageFamily):
    ways: int = WAYS
    queries: int = 3
    test_queries: int = 3

    name = "noise"
    splits = ("train", "test")

    @property
    def image_shape(self):
        return (1, 8, 8)

    def pool(self, split):
        return pool_of(noise(), range(NUM_CLASSES))


def draw(count: int, generator: torch.Generator) -> ClassTasks:
    return ClassTasks(torch.rand(count, NUM_CLASSES, generator=generator).argsort(1)[:, :WAYS])


def driven(sampler, iterations: int, generator: torch.Generator) -> list[ClassTasks]:
    """Tasks of a learner whose only errors are between the twins."""
    drawn = []
    for _ in range(iterations):
        tasks = sampler.propose(16, generator)
        y = torch.arange(WAYS).repeat(16, 2)
        first, second = ((tasks.classes == twin) for twin in TWINS)
        both = (first.any(1) & second.any(1))[:, None]
        predicted = torch.where(first.gather(1, y) & both, second.byte().argmax(1, keepdim=True), y)
        predicted = torch.where(second.gather(1, y) & both, first.byte().argmax(1, keepdim=True), predicted)
        sampler.confused(tasks, y, predicted)
        sampler.report(tasks, (predicted == y).float().mean(1))
        drawn.append(tasks)
    return drawn


def share_of_twins(drawn: list[ClassTasks]) -> float:
    classes = torch.cat([tasks.classes for tasks in drawn])
    return float(torch.stack([(classes == twin).any(1) for twin in TWINS]).all(0).double().mean())


def test_pairs_that_are_confused_meet_more_often():
    sampler = ClassAwareConfig(candidates=64, temperature=0.3).make(draw, torch.device("cpu"))
    drawn = driven(sampler, 80, torch.Generator().manual_seed(0))
    assert share_of_twins(drawn[-40:]) > 0.1
    assert share_of_twins([draw(4000, torch.Generator().manual_seed(1))]) < 0.02
    hardness = sampler.hardness(torch.tensor([[3, 17, 0, 1], [3, 5, 0, 1], [7, 8, 9, 10]]))
    assert float(hardness[0]) > float(hardness[1]) > float(hardness[2]) == 0


def test_every_task_of_a_batch_counts_for_a_class_that_they_share():
    sampler = ClassAwareConfig(memory=0.5).make(draw, torch.device("cpu"))
    sampler.propose(1, torch.Generator().manual_seed(0))
    tasks = ClassTasks(torch.tensor([[3, 17, 0, 1], [3, 17, 2, 5]]))
    y = torch.arange(WAYS).expand(2, -1)
    wrong = torch.tensor([[1, 1, 2, 3], [0, 1, 2, 3]])  # only the first task's class 3 is taken for 17
    sampler.confused(tasks, y, wrong)
    hardness = sampler.hardness(torch.tensor([[3, 17, 8, 9], [0, 1, 2, 5]]))
    assert hardness.tolist() == [0.5, 0.0]  # 1/4 for the class and 1/4 for the pair: half of 1/2


def test_it_resumes_exactly_where_it_was_saved():
    one, generator = ClassAwareConfig().make(draw, torch.device("cpu")), torch.Generator().manual_seed(0)
    driven(one, 30, generator)
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other, same = ClassAwareConfig().make(draw, torch.device("cpu")), torch.Generator()
    other.load_state_dict(torch.load(file, weights_only=True))
    same.set_state(generator.get_state())
    for left, right in zip(driven(one, 5, generator), driven(other, 5, same), strict=True):
        assert torch.equal(left.classes, right.classes)


def trainer_of(sampler, family=None, **settings) -> Trainer:
    config = TrainConfig(**{"num_iterations": 40, "num_tasks": 8, "eval_tasks": 4, "sampler": sampler, **settings})
    return Trainer(family or Noise(), LEARNER, config, agent_name="prototypical", seed=0)


def test_training_draws_what_is_hard_to_tell_apart_and_resumes_exactly():
    whole = trainer_of(ClassAwareConfig())
    drawn: list[torch.Tensor] = []
    assert isinstance(whole.source, FewShotSource)
    propose = whole.source.sampler.propose

    def watched(count: int, generator: torch.Generator) -> ClassTasks:
        tasks = propose(count, generator)
        drawn.append(tasks.classes)
        return tasks

    whole.source.sampler.propose = watched
    rows = [whole.iterate() for _ in range(20)]
    assert float((torch.cat(drawn[-8:]) >= NUM_CLASSES // 2).double().mean()) > 0.6
    first, second = (trainer_of(ClassAwareConfig()) for _ in range(2))
    for _ in range(3):
        first.iterate()
    second.load_state_dict(first.state_dict())
    row = second.iterate()
    assert row["train/loss"] == rows[3]["train/loss"]
    assert row["meta_train/accuracy/worst"] <= row["meta_train/accuracy/cvar20"]


def test_fixed_labels_stay_fixed():
    family = Noise(fixed_labels=True)
    tasks = family.sample(500, "train", torch.Generator().manual_seed(0))
    labels = {int(cls): way for row in tasks.classes for way, cls in enumerate(row)}
    assert all(labels[int(cls)] == way for row in tasks.classes for way, cls in enumerate(row))
    episode = family.episode_of(tasks, "train", generator=torch.Generator())
    assert episode.support.y.shape == (500, WAYS)


def test_samplers_and_tasks_that_do_not_fit_each_other_are_named():
    with pytest.raises(ValueError, match="which chooses by parameters; tasks here have classes"):
        trainer_of(RoMLConfig())
    with pytest.raises(ValueError, match="which chooses by classes; tasks here have parameters"):
        Trainer(Sinusoid(), LEARNER, replace(TrainConfig(1, 1), sampler=ClassAwareConfig()), agent_name="", seed=0)

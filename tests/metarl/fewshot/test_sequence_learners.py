"""Learners that read examples in their order: what their memory is given, and numbers beside images."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metarl.adaptation.external_memory import ExternalMemoryConfig
from metarl.adaptation.sequence import SequenceState
from metarl.adaptation.snail import SnailConfig
from metarl.adaptation.transformer import TransformerConfig
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.example_reader import ExampleReader, SequenceLearnerConfig, drawn
from metarl.fewshot.methods.lstm import LSTMConfig
from metarl.fewshot.methods.mann import MANNConfig
from metarl.fewshot.methods.snail import SnailLearnerConfig
from metarl.fewshot.methods.transformer import TransformerLearnerConfig
from metarl.fewshot.regression import Sinusoid
from metarl.records import Examples
from metarl.trainer import TrainConfig, Trainer
from tests.metarl.fewshot.patterns import Patterns

FAMILY = Patterns(shots=2, size=2)
CONFIGS: dict[str, Any] = {
    "snail": SnailLearnerConfig(snail=SnailConfig((4,), (8,), (8,), length=11), hidden_sizes=(32,), outer_lr=3e-3),
    "transformer": TransformerLearnerConfig(
        width=32, transformer=TransformerConfig(num_heads=2, positions="none"), hidden_sizes=(32,), outer_lr=3e-3
    ),
    "mann": MANNConfig(
        hidden_size=32, slots=ExternalMemoryConfig(16, 8, num_heads=2), hidden_sizes=(32,), outer_lr=1e-2
    ),
    "lstm": LSTMConfig(hidden_size=32, hidden_sizes=(32,), outer_lr=1e-2),
}
learners = pytest.mark.parametrize("name", CONFIGS)
late_or_not = pytest.mark.parametrize("late_labels", [False, True], ids=["with labels", "late labels"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Notebook(nn.Module):
    """A memory that keeps what it is given, and says it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.hidden_size = size
        self.pages: list[Tensor] = []

    def prior(self, num_rows: int) -> SequenceState:
        return SequenceState(torch.zeros(num_rows, self.hidden_size))

    def read(self, state: SequenceState, x: Tensor) -> tuple[Tensor, SequenceState]:
        self.pages += x.unbind(0)
        return x, SequenceState(x[-1])

    def ask(self, state: SequenceState, x: Tensor) -> Tensor:
        self.pages += x.unbind(1)
        return x


class NotebookConfig(SequenceLearnerConfig):
    def make_memory(self, input_size: int, generator: torch.Generator) -> Any:
        return Notebook(input_size)


def written_by(late_labels: bool, parts: int) -> tuple[Tensor, Tensor, Examples]:
    """What a memory is given of the images [K + 1, N, 4] and of the labels [K + 1, N, 3] of a support and a query."""
    config = NotebookConfig(embedding="pixels", late_labels=late_labels)
    reader = ExampleReader(config, FAMILY.problem, seeded())
    episode = FAMILY.episode(2, "train", generator=seeded())
    state = reader.prior(2)
    for number in range(parts):
        size = episode.support.x.shape[1] // parts
        state = reader.adapt(state, episode.support.map(lambda value: value[:, number * size : (number + 1) * size]))  # noqa: B023
    reader.predict(state, episode.query.x[:, :1])
    memory: Any = reader.items.memory
    pages = torch.stack(memory.pages)
    images, labels = pages.split([4, 3], -1)
    return images, labels / reader.label_length, episode.support


@pytest.mark.parametrize("parts", [1, 2, 6])
def test_an_item_is_an_image_and_its_label_and_a_query_has_none(parts):
    images, labels, support = written_by(late_labels=False, parts=parts)
    assert torch.equal(images[:-1].transpose(0, 1), support.x.flatten(2))
    assert torch.equal(labels[:-1].argmax(-1).T, support.y)
    assert labels[:-1].sum(-1).eq(1).all()
    assert not labels[-1].any()


@pytest.mark.parametrize("parts", [1, 2, 6])
def test_late_labels_are_those_of_the_image_before(parts):
    images, labels, support = written_by(late_labels=True, parts=parts)
    assert torch.equal(images[:-1].transpose(0, 1), support.x.flatten(2))
    assert not labels[0].any()
    assert torch.equal(labels[1:].argmax(-1).T, support.y)
    assert labels[1:].sum(-1).eq(1).all()


@late_or_not
def test_numbers_have_a_one_beside_them_and_where_they_are_missing_a_zero(late_labels):
    family = Sinusoid()
    config = NotebookConfig(hidden_sizes=(), late_labels=late_labels)
    reader = ExampleReader(config, family.problem, seeded())
    episode = family.episode(2, "train", generator=seeded())
    reader.predict(reader.adapt(reader.prior(2), episode.support), episode.query.x[:, :1])
    memory: Any = reader.items.memory
    pages = torch.stack(memory.pages)  # [K + 1, N, x y given]
    assert torch.equal(pages[:-1, :, 0].T, episode.support.x[..., 0])
    given = pages[1:] if late_labels else pages[:-1]
    assert torch.equal(given[..., 1].T, episode.support.y[..., 0])
    assert given[..., 2].eq(1).all()
    assert not pages[0 if late_labels else -1, :, 1:].any()


@late_or_not
@learners
def test_examples_in_two_parts_are_examples_at_once(name, late_labels):
    reader = ExampleReader(
        replace(CONFIGS[name], embedding="pixels", late_labels=late_labels), FAMILY.problem, seeded()
    )
    episode = FAMILY.episode(2, "train", generator=seeded())
    support, query = episode.support, episode.query.x
    state = reader.prior(2)
    for part in (support.map(lambda value: value[:, :2]), support.map(lambda value: value[:, 2:])):
        state = reader.adapt(state, part)
    once = reader.adapt(reader.prior(2), support)
    torch.testing.assert_close(reader.predict(state, query), reader.predict(once, query), atol=1e-5, rtol=1e-4)


@learners
def test_with_late_labels_what_is_said_of_an_example_is_what_would_be_said_of_it_as_a_query(name):
    config = replace(CONFIGS[name], embedding="pixels", late_labels=True)
    reader = ExampleReader(config, FAMILY.problem, seeded())
    support = FAMILY.episode(2, "train", generator=seeded()).support
    said, _ = reader.read(reader.prior(2), support)
    for count in range(6):
        state = reader.adapt(reader.prior(2), support.map(lambda value: value[:, :count]))  # noqa: B023
        asked = reader.predict(state, support.x[:, count : count + 1])
        torch.testing.assert_close(asked[:, 0], said[:, count], atol=1e-5, rtol=1e-4)


def test_late_labels_are_those_of_examples_that_tell_nothing_of_the_next():
    """Were each example met once, the last labels could be told by counting the others."""
    support = FAMILY.episode(500, "train", generator=seeded()).support
    generator, counts, same = seeded(1), [], []
    for _ in range(60):
        met = drawn(support, generator)
        counts.append(met.y.shape[1])
        same.append((met.y[:, 1:] == met.y[:, :-1]).double().mean())
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    shares = torch.stack([share for share, count in zip(same, counts, strict=True) if count > 1])
    assert (shares - 1 / 3).abs().max() < 0.07  # of 500 pairs or more: three standard deviations


def test_meta_training_with_late_labels_meets_random_numbers_of_examples_in_their_place():
    family, config = replace(FAMILY, shots=4), NotebookConfig(embedding="pixels", late_labels=True)
    trainer = Trainer(family, config, TrainConfig(12, 5), agent_name="lstm", seed=0)
    met, pages = [], trainer.agent.adaptation.items.memory.pages
    for _ in range(12):
        before = len(pages)
        trainer.iterate()
        met.append(len(pages) - before - 3 * FAMILY.queries)
    assert 1 <= min(met) < max(met) <= 12


def test_an_example_is_met_with_its_own_label_and_padding_never():
    support = FAMILY.episode(50, "train", generator=seeded()).support
    valid = torch.arange(6) < torch.randint(1, 7, (50, 1), generator=seeded())
    numbered = replace(support, x=torch.arange(6.0).expand(50, 6)[..., None, None, None], valid=valid)
    met = drawn(numbered, seeded())
    place = met.x.flatten(2)[..., 0].long()
    assert valid.gather(1, place).all()
    assert torch.equal(met.y, support.y.gather(1, place))


def test_too_many_classes_are_refused():
    reader = ExampleReader(replace(CONFIGS["lstm"], embedding="pixels"), FAMILY.problem, seeded())
    support = FAMILY.episode(2, "train", generator=seeded()).support
    with pytest.raises(ValueError, match="ways is 4; this learner's net has outputs for 3"):
        reader.adapt(reader.prior(2), replace(support, y=support.y + 1))


@late_or_not
@learners
def test_padding_is_as_if_it_were_not_there(name, late_labels):
    """Four tasks with 4, 2, 0 and 4 of 6 examples, read at once, in two parts, and each alone."""
    config = replace(CONFIGS[name], embedding="pixels", late_labels=late_labels)
    reader = ExampleReader(config, FAMILY.problem, seeded())
    episode = FAMILY.episode(4, "train", generator=seeded())
    kept = [[0, 2, 3, 5], [1, 4], [], [0, 1, 2, 3]]
    valid = torch.tensor([[place in row for place in range(6)] for row in kept])
    support = replace(episode.support, x=episode.support.x.where(valid[..., None, None, None], 7.0), valid=valid)
    said, state = reader.read(reader.prior(4), support)
    answers, in_parts = reader.predict(state, episode.query.x), reader.prior(4)
    for part in (support.map(lambda value: value[:, :3]), support.map(lambda value: value[:, 3:])):
        in_parts = reader.adapt(in_parts, part)
    torch.testing.assert_close(reader.predict(in_parts, episode.query.x), answers, atol=1e-5, rtol=1e-4)
    for task, places in enumerate(kept):
        alone = reader.prior(1)
        if places:
            own = episode.support.map(lambda value: value[task : task + 1, places])  # noqa: B023
            said_alone, alone = reader.read(alone, own)
            torch.testing.assert_close(said[task, places], said_alone[0], atol=1e-5, rtol=1e-4)
        expected = reader.predict(alone, episode.query.x[task : task + 1])[0]
        torch.testing.assert_close(answers[task], expected, atol=1e-5, rtol=1e-4)


@late_or_not
def test_what_is_learned_from_padded_tasks_is_a_number(late_labels):
    config = replace(CONFIGS["lstm"], embedding="pixels", late_labels=late_labels)
    learner = config.make_learner(FAMILY.problem, num_iterations=1, generator=seeded())
    episode = FAMILY.episode(2, "train", generator=seeded())
    padded = FewShotEpisode(
        replace(episode.support, valid=torch.tensor([[True] * 6, [True] * 3 + [False] * 3])),
        replace(episode.query, valid=episode.query.y > 0),
    )
    assert all(math.isfinite(value) for value in learner.update(padded, seeded()).values())


@learners
def test_fewer_classes_than_outputs_are_told_apart(name):
    config = TrainConfig(num_iterations=1, num_tasks=2)
    trainer = Trainer(FAMILY, replace(CONFIGS[name], embedding="pixels"), config, agent_name=name, seed=0)
    two = replace(FAMILY, ways=2).episode(2, "test", generator=seeded())
    assert trainer.agent.predictions(two, 2).shape == (3, 2, 10, 2)


@learners
def test_functions_are_read_example_by_example(name):
    trainer = Trainer(Sinusoid(), CONFIGS[name], TrainConfig(num_iterations=2, num_tasks=4), agent_name=name, seed=0)
    assert all(math.isfinite(value) for value in trainer.iterate().values())
    assert trainer.agent.point == "example"
    episode = Sinusoid().episode(3, "test", generator=seeded())
    predictions = trainer.agent.predictions(episode, 10)
    assert predictions.shape == (11, *episode.query.y.shape)
    assert all(not torch.equal(one, other) for one, other in itertools.pairwise(predictions))


@pytest.mark.learn
def test_a_function_is_guessed_better_after_ten_examples_once_that_was_learned():
    train = TrainConfig(num_iterations=300, num_tasks=32)
    trainer = Trainer(Sinusoid(), CONFIGS["transformer"], train, agent_name="transformer", seed=0)
    before = trainer.evaluate(num_tasks=200, num_points=10).points
    for _ in range(300):
        trainer.iterate()
    after = trainer.evaluate(num_tasks=200, num_points=10).points
    assert before[10].mean > 3.5
    assert after[10].mean < 2.0
    assert after[10].mean < 0.7 * after[0].mean

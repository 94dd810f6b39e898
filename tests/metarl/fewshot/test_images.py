"""Episodes of images: what is drawn, from which classes, and how Omniglot is read and turned."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarl.fewshot.images import omniglot
from metarl.fewshot.images.class_set import ClassPool, ImageClasses, pool_of
from metarl.fewshot.images.data import DataError
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.images.sampling import (
    FixedSampler,
    MetaDatasetSampler,
    draw,
    draw_with_fixed_labels,
)
from metarl.protocols import Split

ROOT = Path(__file__).resolve().parents[3]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(*counts: int, groups: tuple[str, ...] | None = None, side: int = 2) -> ImageClasses:
    """Classes with so many images, each image full of its own number."""
    images = torch.arange(sum(counts), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, side, side).contiguous()
    names = tuple(f"class{index}" for index in range(len(counts)))
    return ImageClasses(images, torch.tensor(counts), names, groups or ("",) * len(counts))


def everything(source: ImageClasses, **settings) -> ClassPool:
    return pool_of(source, range(len(source.names)), **settings)


def image_numbers(x: torch.Tensor) -> torch.Tensor:
    return (x[..., 0, 0, 0] * 255).round().long()


# What is drawn


def test_an_episode_is_shot_after_shot_and_its_queries_are_other_images_of_the_same_classes():
    source = numbered(*[7] * 9)
    episode = draw(everything(source), 6, FixedSampler(4, 3, 2), seeded())
    support, query = episode.support, episode.query
    assert support.x.shape == (6, 12, 1, 2, 2)
    assert query.x.shape == (6, 8, 1, 2, 2)
    assert support.x.dtype == torch.float32
    assert support.y.dtype == torch.int64
    assert support.valid is None
    orders = set()
    for task in range(6):
        for shot in support.y[task].split(4):
            assert sorted(shot.tolist()) == [0, 1, 2, 3]
            orders.add(tuple(shot.tolist()))
        shown = torch.cat([image_numbers(support.x[task]), image_numbers(query.x[task])])
        assert len(shown.unique()) == 20
        classes = shown // 7
        labels = torch.cat([support.y[task], query.y[task]])
        of_label = [classes[labels == label].unique().tolist() for label in range(4)]
        assert all(len(found) == 1 for found in of_label)
        assert len({found[0] for found in of_label}) == 4
    assert len(orders) > 1


def test_every_class_and_image_is_drawn_as_often_and_one_seed_is_one_episode():
    pool = everything(numbered(*[5] * 6))
    first, second, other = (draw(pool, 2000, FixedSampler(3, 1, 1), seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.support.x, second.support.x)
    assert torch.equal(first.query.y, second.query.y)
    assert not torch.equal(first.support.x, other.support.x)
    for part in (first.support, first.query):
        counts = image_numbers(part.x).flatten().bincount(minlength=30)
        assert (counts - 200).abs().max() < 60  # 4.6 standard deviations of 200
        pairs = (image_numbers(part.x) // 5 * 3 + part.y).flatten().bincount(minlength=18)
        assert (pairs - 333).abs().max() < 80


def test_classes_of_different_sizes_give_only_their_own_images():
    episode = draw(everything(numbered(3, 9, 4)), 200, FixedSampler(3, 2, 1), seeded())
    numbers = torch.cat([image_numbers(episode.support.x), image_numbers(episode.query.x)], 1)
    classes = torch.bucketize(numbers, torch.tensor([3, 12]), right=True)
    labels = torch.cat([episode.support.y, episode.query.y], 1)
    assert all(len(row.unique()) == 9 for row in numbers)
    for row, label in zip(classes, labels, strict=True):
        assert all(len(row[label == way].unique()) == 1 for way in range(3))
    assert len(numbers.unique()) == 16


def test_groups_are_not_mixed_and_small_ones_are_left_out():
    source = numbered(*[4] * 9, groups=("a", "a", "b", "b", "b", "c", "c", "c", "c"))
    episode = draw(everything(source, by_group=True), 300, FixedSampler(3, 1, 1), seeded())
    classes = image_numbers(episode.support.x) // 4
    groups = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])[classes]
    assert (groups == groups[:, :1]).all()
    assert 100 < int((groups[:, 0] == 1).sum()) < 200  # each of the two as likely
    assert set(groups.unique().tolist()) == {1, 2}


def test_with_fixed_labels_a_class_has_one_label_in_all_tasks_and_every_class_is_drawn_as_often():
    pool = everything(numbered(*[4] * 8))
    labels: dict[int, set[int]] = {}
    for seed in (0, 1):
        members = draw_with_fixed_labels(len(pool), 3, 1000, seeded(seed))
        counts = members.flatten().bincount(minlength=8)
        episode = draw(pool, 1000, FixedSampler(3, 1, 1), seeded(seed), members)
        for part in (episode.support, episode.query):
            for cls, label in zip((image_numbers(part.x) // 4).flatten(), part.y.flatten(), strict=True):
                labels.setdefault(int(cls), set()).add(int(label))
        assert sorted(int(count) > 400 for count in counts) == [False] * 6 + [True] * 2  # two labels have three classes
        assert int(counts.min()) > 250
    assert all(len(found) == 1 for found in labels.values())
    with pytest.raises(ValueError, match="ways is 9; classes are 8"):
        draw_with_fixed_labels(8, 9, 1, seeded())


def test_fixed_labels_are_those_of_training_tasks_alone():
    fixed = Omniglot(ways=5, rotations="none", fixed_labels=True, data_dir=real_data())
    free = Omniglot(ways=5, rotations="none", data_dir=real_data())
    expected: dict[Split, bool] = {"train": False, "test": True}
    for split, equal in expected.items():
        one, other = (family.episode(2, split, generator=seeded()) for family in (fixed, free))
        assert torch.equal(one.support.x, other.support.x) == equal
    assert fixed.pool("train") is free.pool("train")
    with pytest.raises(ValueError, match="fixed_labels is True; must be False with the sampler meta_dataset"):
        Omniglot(sampler="meta_dataset", fixed_labels=True)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (FixedSampler(4, 1, 1), "ways is 4; classes are 3"),
        (FixedSampler(3, 2, 3), "shots + queries is 2 + 3 = 5; class class1 has 4 images"),
    ],
)
def test_too_few_classes_or_images_are_named(sampler, message):
    with pytest.raises(ValueError, match=message.replace("+", "[+]")):
        draw(everything(numbered(9, 4, 8)), 1, sampler, seeded())


def test_turns_are_those_of_numpy():
    picture = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3)
    source = ImageClasses(picture.repeat(4, 1, 1, 1), torch.tensor([2, 2]), ("p", "q"), ("", ""))
    pool = everything(source, all_turns=True)
    assert len(pool) == 8
    expected = {tuple(np.rot90(picture[0, 0].numpy(), turn).flatten().tolist()): turn for turn in range(4)}
    assert len(expected) == 4
    episode = draw(pool, 50, FixedSampler(8, 1, 1), seeded())
    for task in range(50):  # all four orientations of both classes, and the same in support and query
        found = {
            part: {
                int(label): expected[tuple((x[0] * 255).round().flatten().long().tolist())]
                for x, label in zip(data.x[task], data.y[task], strict=True)
            }
            for part, data in (("support", episode.support), ("query", episode.query))
        }
        assert sorted(found["support"].values()) == [0, 0, 1, 1, 2, 2, 3, 3]
        assert found["support"] == found["query"]


@pytest.mark.parametrize(("turned_by", "alike"), [("class", False), ("episode", True)])
def test_random_turns_are_of_a_class_or_of_the_whole_episode(turned_by, alike):
    picture = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    picture[0, 0, 0, 0] = 255  # its corner tells the turn
    source = ImageClasses(picture.repeat(8, 1, 1, 1), torch.tensor([2] * 4), tuple("abcd"), ("",) * 4)
    episode = draw(everything(source, turned_by=turned_by), 100, FixedSampler(4, 1, 1), seeded())
    corner = episode.support.x.flatten(2).argmax(-1)  # [N, K]
    assert set(corner.unique().tolist()) == {0, 1, 2, 3}
    assert bool((corner == corner[:, :1]).all()) == alike
    by_label = [data.x.flatten(2).argmax(-1).gather(1, data.y.argsort(1)) for data in (episode.support, episode.query)]
    assert torch.equal(*by_label)


def test_the_meta_dataset_sampler_keeps_its_laws():
    sizes = [3, 4, 20, 150, 20, 20, 21, 22, 30, 600, 40, 9]
    source = ImageClasses(
        torch.arange(sum(sizes)).remainder(256).byte()[:, None, None, None].clone(),
        torch.tensor(sizes),
        tuple(f"class{index}" for index in range(12)),
        ("",) * 12,
    )
    pool, sampler = everything(source), MetaDatasetSampler(most_ways=8)
    seen_ways, uneven = set(), 0
    for seed in range(20):
        episode = draw(pool, 20, sampler, seeded(seed))
        support, query = episode.support, episode.query
        assert support.valid is not None
        assert query.valid is not None
        for data, valid in ((support, support.valid), (query, query.valid)):
            for x, y, count in zip(data.x, data.y, valid.sum(1).tolist(), strict=True):
                again = torch.arange(len(y)) % count  # padding is what is there once more
                assert torch.equal(x, x[again])
                assert torch.equal(y, y[again])
            assert torch.equal(valid, valid.sort(dim=1, descending=True).values)
        for task in range(20):
            shots = support.y[task][support.valid[task]].bincount()
            queries = query.y[task][query.valid[task]].bincount()
            ways = len(shots)
            seen_ways.add(ways)
            assert len(queries) == ways
            assert int(shots.min()) >= 1
            assert int(shots.sum()) <= 500
            assert len(queries.unique()) == 1
            assert 1 <= int(queries[0]) <= 10
            first = support.y[task][:ways]
            assert sorted(first.tolist()) == list(range(ways))  # shot after shot here too
            uneven += len(shots.unique()) > 1
    assert seen_ways == {5, 6, 7, 8}
    assert uneven > 200


def test_the_meta_dataset_sampler_by_hand():
    images = torch.tensor([[20, 6, 400, 0]]).expand(4000, 4)
    support, queries = MetaDatasetSampler().sizes(images, seeded())
    assert (queries == torch.tensor([3, 3, 3, 0])).all()  # half the smallest class
    assert (support[:, 3] == 0).all()
    assert (support[:, :3] >= 1).all()
    assert (support + queries <= images).all()
    assert int(support.sum(1).max()) <= 17 + 3 + 100  # what the three may add: all their others, at most a hundred
    # Of a support of 3 + spare, a class has 1 + its share of spare; shares go by size, times 1/2 to 2.
    ratio = (support[:, 2] - 1).float() / (support[:, 0] - 1).clamp(min=1)
    full = support[:, 0] > 3
    assert float(ratio[full].min()) > 20 / 4 / 2
    assert float(ratio[full].max()) < 20 * 4 * 2


# Omniglot


def test_the_meta_dataset_sampler_stays_in_one_alphabet():
    family = Omniglot(ways=12, sampler="meta_dataset", rotations="none", queries=10, data_dir=real_data())
    pool = family.pool("train")
    assert pool.groups is not None
    for group in range(33):
        assert len({pool.source.groups[index] for index in pool.classes[pool.groups == group].tolist()}) == 1
    assert int(pool.groups.max()) == 32
    episode = family.episode(4, "train", generator=seeded())
    assert episode.query.valid is not None
    assert set(episode.query.valid.sum(1).tolist()) <= set(range(50, 121, 10))
    with pytest.raises(ValueError, match="shots is 3; the sampler meta_dataset draws its own"):
        family.episode(1, "train", shots=3, generator=seeded())


def real_data() -> str:
    """The folder that holds the real images; without them, the test is skipped."""
    places = [Path(place) for place in (os.environ.get("METARL_DATA"), ROOT.parent / "shared" / "data") if place]
    for place in places:
        if (place / "omniglot" / "images_background.zip").exists():
            return str(place)
    pytest.skip(f"omniglot/images_background.zip is in none of {', '.join(map(str, places))}")


def classes(family: Omniglot, split) -> set[str]:
    pool = family.pool(split)
    return {pool.source.names[index] for index in pool.classes.tolist()}


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({}, (4112, 688, 1692)),
        ({"rotations": "none"}, (1028, 172, 423)),
        ({"rotations": "augment", "test_rotations": "none"}, (1028, 172, 423)),
        ({"test_rotations": "episode"}, (4112, 172, 423)),
        ({"class_split": "meta_dataset", "rotations": "none"}, (883, 81, 659)),
        ({"class_split": "random", "rotations": "none"}, (1100, 100, 423)),
        ({"class_split": "random", "rotations": "none", "random_sizes": (1150, 50, 423)}, (1150, 50, 423)),
        ({"class_split": "lake", "rotations": "none"}, (964, 0, 659)),
    ],
)
def test_splits_have_their_sizes_and_share_no_class(settings, sizes):
    family = Omniglot(data_dir=real_data(), **settings)
    found = []
    for split, size in zip(("train", "val", "test"), sizes, strict=True):
        if size:
            assert len(family.pool(split)) == size
            found.append(classes(family, split))
        else:
            with pytest.raises(ValueError, match=f"split is '{split}'; class_split 'lake' of omniglot leaves no class"):
                family.pool(split)
    assert len(set.union(*found)) == sum(map(len, found))


def test_out_of_distribution_is_one_alphabet_that_training_has_nothing_of():
    family = Omniglot(data_dir=real_data())
    pool = family.pool("ood")
    alphabets = {name.split("/")[0] for name in classes(family, "ood")}
    assert len(alphabets) == 12
    assert "Gurmukhi" not in alphabets  # the Vinyals split has it in training and test
    assert not alphabets & {name.split("/")[0] for name in classes(family, "train")}
    assert len(pool) == 423 - 4
    assert pool.turned_by == "episode"
    assert pool.groups is not None
    with pytest.raises(ValueError, match="split is 'ood'; class_split 'random' of omniglot leaves no class for it"):
        Omniglot(data_dir=real_data(), class_split="random").pool("ood")


def test_real_images_are_ink_on_paper_in_the_contracts_shapes():
    family = Omniglot(ways=20, shots=5, queries=3, data_dir=real_data())
    assert family.problem.image_shape == (1, 28, 28)
    assert family.problem.ways == 20
    episode = family.episode(2, "test", generator=seeded())
    assert episode.support.x.shape == (2, 100, 1, 28, 28)
    assert episode.query.x.shape == (2, 60, 1, 28, 28)
    assert 0 <= float(episode.support.x.min()) < 0.05 < float(episode.support.x.mean()) < 0.12
    assert float(episode.support.x.max()) == 1
    dark = Omniglot(ways=20, shots=5, queries=3, ink="dark", data_dir=real_data()).episode(
        2, "test", generator=seeded()
    )
    assert torch.equal(1 - dark.support.x, episode.support.x) or torch.allclose(1 - dark.support.x, episode.support.x)
    fewer = family.episode(2, "test", shots=1, queries=1, generator=seeded())
    assert fewer.support.x.shape[1] == fewer.query.x.shape[1] == 20


def test_the_filter_is_the_one_that_is_named():
    folder = Path(real_data()) / "omniglot"
    name = "images_background/Alphabet_of_the_Magi/character01/0709_01.png"
    with zipfile.ZipFile(folder / "images_background.zip") as archive:
        content = archive.read(name)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.mode == "1"
        nearest = 255 - 255 * np.asarray(picture.resize((28, 28), Image.Resampling.LANCZOS)).astype(np.uint8)
        lanczos = 255 - np.asarray(picture.convert("L").resize((28, 28), Image.Resampling.LANCZOS))
    found = {}
    for resize in ("nearest", "lanczos"):
        found[resize] = omniglot._decode(content, 28, resize)
        assert found[resize].shape == (1, 28, 28)
    assert np.array_equal(found["nearest"][0], nearest)  # one bit a pixel: whatever filter is named
    assert np.array_equal(found["lanczos"][0], lanczos)
    assert set(np.unique(found["nearest"])) == {0, 255}
    assert len(np.unique(found["lanczos"])) > 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ways": 1}, "ways is 1; must be at least 2"),
        ({"shots": 0}, "shots is 0; must be at least 1"),
        ({"queries": 0}, "queries is 0; must be at least 1"),
        ({"shots": 6}, r"shots \+ test_queries is 6 \+ 15 = 21; a class of omniglot has 20 images"),
        ({"train_shots": 10, "queries": 11}, r"train_shots \+ queries is 10 \+ 11 = 21; a class of omniglot has 20"),
        ({"size": 0}, "size is 0; must be from 1 to 105 pixels"),
        (
            {"random_sizes": (1600, 100, 0)},
            r"random_sizes is \(1600, 100, 0\); must be numbers that sum to at most 1623",
        ),
        ({"ways": 4, "sampler": "meta_dataset"}, "ways is 4; the sampler meta_dataset needs at least 5"),
    ],
)
def test_bad_fields_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Omniglot(**settings)


def test_training_may_have_shots_that_leave_no_images_for_the_queries_of_evaluation():
    training = Omniglot(ways=5, train_ways=20, train_shots=10, queries=10).training
    assert (training.ways, training.shots, training.queries) == (20, 10, 10)


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="split is 'dev'; omniglot has train, val, test and ood"):
        Omniglot().pool("dev")  # type: ignore[arg-type]


def test_missing_data_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("METARL_DATA", str(tmp_path))
    with pytest.raises(DataError) as error:
        Omniglot().episode(1, "train", generator=seeded())
    assert str(error.value) == (
        "Omniglot (images_background.zip and images_evaluation.zip of github.com/brendenlake/omniglot) not found: put "
        f"images_background.zip or images_background into {tmp_path}/omniglot, or name another folder in data_dir or "
        "METARL_DATA"
    )

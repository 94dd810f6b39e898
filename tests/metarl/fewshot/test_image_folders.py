"""Images on the disk: archives, class folders and published splits are read, checked, kept and refused."""

import hashlib
import io
import math
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarl.fewshot.episode import FewShotEpisode, FewShotFamily, num_ways
from metarl.fewshot.images import omniglot, photos
from metarl.fewshot.images.class_set import channel_statistics
from metarl.fewshot.images.data import DataError, decoded, split_lines
from metarl.fewshot.images.photos import CIFARFS, FC100, ImageFolder, MiniImageNet, TieredImageNet
from metarl.fewshot.images.pixels import square_pixels
from metarl.fewshot.methods.lstm import LSTMConfig
from metarl.fewshot.methods.prototypical import PrototypicalConfig
from metarl.fewshot.methods.reptile import ReptileConfig, mini_batches
from metarl.nets.conv import ConvConfig
from metarl.records import Examples
from metarl.trainer import TrainConfig, Trainer

SPLITS = ("train", "val", "test")


@pytest.fixture(autouse=True)
def kept(tmp_path_factory, monkeypatch) -> Path:
    """A home of its own for what is decoded."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.delenv("METARL_DATA", raising=False)
    return home / "metarl" / "decoded"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def class_folders(root: Path, names, images: int = 2) -> Path:
    """A folder for each name, with images of one colour that tells the class and the image."""
    for number, name in enumerate(names):
        for image in range(images):
            plain(root / name / f"{image}.png", (number % 256, image, 7))
    return root


def colours(family, split) -> dict[str, list[list[int]]]:
    """The colour of every image of a split, by class."""
    pool = family.pool(split)
    source, found = pool.source, {}
    for index in pool.classes.tolist():
        start = int(source.starts[index])
        found[source.names[index]] = source.images[start : start + int(source.counts[index]), :, 0, 0].tolist()
    return found


# Omniglot's files


def strokes(number: int) -> bytes:
    picture = Image.new("1", (105, 105), 1)
    picture.paste(0, (10, 5 * number, 90, 5 * number + 9))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


FILES = {
    f"images_{part}/{alphabet}/character{character:02}/0000_{person:02}.png": strokes(person + 3 * character)
    for part, alphabet in (("background", "Greek"), ("background", "Latin"), ("evaluation", "Runes"))
    for character in (1, 2)
    for person in (1, 2)
}


def two_archives(folder: Path, files: dict[str, bytes]) -> Path:
    for part in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            archive.writestr(f"{part}/", "")
            for name in reversed(files):  # the order in the archive does not matter
                if name.startswith(part):
                    archive.writestr(name, files[name])
            archive.writestr(f"__MACOSX/{part}/._Greek.png", b"not an image")
    return folder


@pytest.fixture
def small_omniglot(monkeypatch) -> None:
    monkeypatch.setattr(omniglot, "PARTS", {"images_background": 8, "images_evaluation": 4})
    digest = hashlib.sha256(b"".join(name.encode() + FILES[name] for name in sorted(FILES)))
    monkeypatch.setattr(omniglot, "DIGEST", digest.hexdigest())


@pytest.mark.usefixtures("small_omniglot")
def test_archives_and_unpacked_folders_are_the_same_omniglot(tmp_path):
    packed, unpacked = tmp_path / "packed", tmp_path / "unpacked"
    packed.mkdir()
    for name, content in FILES.items():
        (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
        (unpacked / name).write_bytes(content)
    from_zip = omniglot.omniglot_classes(two_archives(packed, FILES), 28, "lanczos", "bright")
    assert from_zip.names == (
        *("Greek/character01", "Greek/character02", "Latin/character01", "Latin/character02"),
        *("Runes/character01", "Runes/character02"),
    )
    assert from_zip.groups == ("Greek", "Greek", "Latin", "Latin", "Runes", "Runes")
    assert from_zip.counts.tolist() == [2] * 6
    from_folder = list(omniglot._images(unpacked, 28, "lanczos"))
    assert np.array_equal(np.stack(from_folder), from_zip.images.numpy())
    dark = omniglot.omniglot_classes(packed, 28, "lanczos", "dark")
    assert torch.equal(255 - dark.images, from_zip.images)
    with Image.open(io.BytesIO(FILES["images_background/Latin/character02/0000_01.png"])) as picture:
        expected = 255 - np.asarray(picture.convert("L").resize((28, 28), Image.Resampling.LANCZOS))
    assert np.array_equal(from_zip.images[6, 0].numpy(), expected)
    assert expected[0, 0] == 0 < expected.max()


@pytest.mark.usefixtures("small_omniglot")
def test_images_that_are_not_the_official_ones_are_refused(tmp_path, kept):
    def message(files: dict[str, bytes], name: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        with pytest.raises(DataError) as error:
            omniglot.omniglot_classes(two_archives(folder, files), 28, "lanczos", "bright")
        return str(error.value).replace(str(tmp_path), "")

    first, *others = FILES
    changed = message({**FILES, first: strokes(0)}, "changed")
    assert changed == "Omniglot in /changed is not the official one: fetch its two archives again"
    renamed = message({**{name: FILES[name] for name in others}, first.replace("Greek", "Geek"): FILES[first]}, "name")
    assert renamed == "Omniglot in /name is not the official one: fetch its two archives again"
    fewer = message({name: FILES[name] for name in others}, "fewer")
    assert fewer == "/fewer/images_background.zip holds 7 images of Omniglot; must hold 8"
    assert message({**FILES, first: b"no image"}, "broken").startswith(
        "Omniglot in /broken is damaged: cannot identify"
    )
    assert not list(kept.glob("*"))  # nor is anything of it kept


@pytest.mark.usefixtures("small_omniglot")
def test_damaged_archives_are_refused(tmp_path):
    two_archives(tmp_path, FILES)
    archive = tmp_path / "images_evaluation.zip"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"images_evaluation\.zip cannot be read: File is not a zip file"):
        omniglot.omniglot_classes(tmp_path, 28, "lanczos", "bright")
    at = whole.index(b"IDAT") + 8
    archive.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    with pytest.raises(DataError, match="is damaged: Bad CRC-32 for file"):
        omniglot.omniglot_classes(tmp_path, 28, "lanczos", "bright")
    archive.unlink()
    with pytest.raises(DataError, match="images_evaluation holds 0 images of Omniglot; must hold 4"):
        omniglot.omniglot_classes(tmp_path, 28, "lanczos", "bright")


# What is kept


def test_images_are_decoded_once_and_again_when_the_kept_file_is_damaged(kept):
    decodings = []

    def decode():
        decodings.append(1)
        for value in range(3):
            yield np.full((1, 2, 2), value, dtype=np.uint8)

    def read(settings=None):
        return decoded("squares", settings or {"size": 2}, (3, 1, 2, 2), decode)

    first = read()
    assert first[:, 0, 0, 0].tolist() == [0, 1, 2]
    first.zero_()  # a private copy: what is kept stays as it was
    assert read()[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert len(decodings) == 1
    read({"size": 3})
    assert len(decodings) == 2
    files = sorted(kept.iterdir())
    assert len(files) == 2
    for damage in (b"", b"nothing", files[0].read_bytes()[:-1]):
        for file in files:
            file.write_bytes(damage)
        before = len(decodings)
        assert read()[:, 0, 0, 0].tolist() == [0, 1, 2]
        assert len(decodings) == before + 1
        read()
        assert len(decodings) == before + 1
    assert sorted(kept.iterdir()) == files  # no scratch files


def test_what_cannot_be_kept_is_held_in_memory(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # no folder can be made in a file
    images = decoded("squares", {}, (1, 1, 2, 2), lambda: iter([np.full((1, 2, 2), 9, dtype=np.uint8)]))
    assert images.tolist() == [[[[9, 9], [9, 9]]]]


def test_a_decoding_that_fails_leaves_nothing(kept):
    def decode():
        yield np.zeros((1, 2, 2), dtype=np.uint8)
        raise DataError("no")

    with pytest.raises(DataError):
        decoded("squares", {}, (2, 1, 2, 2), decode)
    assert not list(kept.iterdir())


def test_a_changed_file_is_read_again(tmp_path):
    class_folders(tmp_path, [f"class{number}" for number in range(10)])
    family = ImageFolder(size=4, split_shares=(1, 0, 0), data_dir=str(tmp_path))
    assert colours(family, "train")["class3"] == [[3, 0, 7], [3, 1, 7]]
    photos._pool.cache_clear()
    file = tmp_path / "class3" / "1.png"
    plain(file, (9, 9, 9))
    os.utime(file, ns=(1, 1))
    assert colours(family, "train")["class3"] == [[3, 0, 7], [9, 9, 9]]


# Published splits


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("omniglot_vinyals", (1028, 172, 423)),
        ("mini_imagenet", (64, 16, 20)),
        ("tiered_imagenet", (351, 97, 160)),
        ("cifar_fs", (64, 16, 20)),
        ("fc100", (12, 4, 4)),
    ],
)
def test_published_splits_have_their_sizes_and_share_nothing(name, sizes):
    parts = [split_lines(f"{name}_{split}.txt") for split in SPLITS]
    assert tuple(map(len, parts)) == sizes
    assert len({line for part in parts for line in part}) == sum(sizes)
    if name == "tiered_imagenet":
        groups = [{line.split("/")[0] for line in part} for part in parts]
        assert tuple(map(len, groups)) == (20, 6, 8)
        assert len(set.union(*groups)) == 34


def all_lines(name: str) -> list[str]:
    return [line for split in SPLITS for line in split_lines(f"{name}_{split}.txt")]


@pytest.mark.parametrize("layout", ["folders", "split folders", "flat files"])
def test_mini_imagenet_is_found_in_every_usual_layout(tmp_path, layout):
    root = tmp_path / "mini_imagenet"
    names = all_lines("mini_imagenet")
    for split in SPLITS:
        for name in split_lines(f"mini_imagenet_{split}.txt"):
            for image in range(2):
                place = {
                    "folders": f"{name}/{image}.jpg",
                    "split folders": f"{split}/{name}/{name}_{image}.JPEG",
                    "flat files": f"images/{name}0000000{image}.jpg",
                }[layout]
                plain(root / place, (names.index(name), 0, 0))
    family = MiniImageNet(size=4, shots=1, queries=1, images_per_class=2, data_dir=str(tmp_path))
    assert isinstance(family, FewShotFamily)
    for split in SPLITS:
        assert list(colours(family, split)) == split_lines(f"mini_imagenet_{split}.txt")
    episode = family.episode(3, "val", generator=seeded())
    assert episode.support.x.shape == (3, 5, 3, 4, 4)
    number = (episode.support.x[:, :, 0, 0, 0] * 255).round()
    assert ((number >= 62) & (number <= 81)).all()  # JPEG is not exact
    with pytest.raises(ValueError, match="split is 'ood'; mini_imagenet has train, val and test"):
        family.pool("ood")


def test_missing_classes_and_images_are_named(tmp_path):
    names = split_lines("mini_imagenet_val.txt")
    class_folders(tmp_path, names)

    def message(**settings) -> str:
        photos._pool.cache_clear()
        with pytest.raises(DataError) as error:
            MiniImageNet(data_dir=str(tmp_path), **settings).pool("val")
        return str(error.value).replace(str(tmp_path), "ROOT")

    assert message() == f"class {names[0]} has 2 images in ROOT/{names[0]}, not 600"
    class_folders(tmp_path / "again", names[3:4])
    expected = f"class {names[3]} is in ROOT/again/{names[3]} and in ROOT/{names[3]}; one of them must go"
    assert message(images_per_class=2) == expected
    for file in (tmp_path / names[5]).iterdir():
        file.unlink()
    assert message() == f"ROOT lacks 1 of 16 classes, such as {names[5]}"


def test_missing_data_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("METARL_DATA", str(tmp_path))
    with pytest.raises(DataError) as error:
        TieredImageNet().pool("train")
    assert str(error.value) == (
        "tieredImageNet (folders of images that are named n01530575, ...) not found: put them into "
        f"{tmp_path}/tiered_imagenet, or name another folder in data_dir or METARL_DATA"
    )
    with pytest.raises(DataError, match=r"put them into /nowhere/image_folder$"):
        ImageFolder(data_dir="/nowhere").pool("train")


def test_tiered_imagenet_knows_its_superclasses(tmp_path):
    pairs = [line.split("/") for line in all_lines("tiered_imagenet")]
    class_folders(tmp_path, [name for _, name in pairs], images=1)
    family = TieredImageNet(size=2, data_dir=str(tmp_path))
    groups = []
    for split, size in zip(SPLITS, (351, 97, 160), strict=True):
        source = family.pool(split).source
        assert len(source.names) == size
        assert [f"{group}/{name}" for group, name in zip(source.groups, source.names, strict=True)] == split_lines(
            f"tiered_imagenet_{split}.txt"
        )
        groups.append(set(source.groups))
    assert len(set.union(*groups)) == sum(map(len, groups)) == 34


# CIFAR-100


def binary_cifar(folder: Path) -> Path:
    """Two images of each class in each of the two files, their planes full of class, superclass and file."""
    folder.mkdir(parents=True)
    pairs = sorted(line.split("/") for line in all_lines("cifar_fs"))
    coarse, fine = sorted({group for group, _ in pairs}), sorted(name for _, name in pairs)
    for number, file in enumerate(("train.bin", "test.bin")):
        records = bytearray()
        for group, name in pairs * 2:
            first, second = fine.index(name), coarse.index(group)
            records += bytes([second, first]) + b"".join(bytes([value]) * 1024 for value in (first, second, number))
        (folder / file).write_bytes(records)
    for kind, names in (("coarse", coarse), ("fine", fine)):
        (folder / f"{kind}_label_names.txt").write_text("\n".join(names) + "\n")
    return folder


def test_cifar_fs_and_fc100_are_read_from_the_binary_version(tmp_path):
    binary_cifar(tmp_path / "cifar100" / "cifar-100-binary")
    superclass = {name: group for group, name in (line.split("/") for line in all_lines("cifar_fs"))}
    coarse, fine = sorted(set(superclass.values())), sorted(superclass)
    cifar_fs, fc100 = (make(images_per_class=4, data_dir=str(tmp_path)) for make in (CIFARFS, FC100))
    for family, sizes in ((cifar_fs, (64, 16, 20)), (fc100, (60, 20, 20))):
        seen: list[str] = []
        for split, size in zip(SPLITS, sizes, strict=True):
            found = colours(family, split)
            assert len(found) == size
            seen += found
            for name, values in found.items():
                first, second = fine.index(name), coarse.index(superclass[name])
                assert values == [[first, second, 0]] * 2 + [[first, second, 1]] * 2
        assert sorted(seen) == fine
        assert family.episode(1, "test", queries=2, generator=seeded()).query.x.shape == (1, 10, 3, 32, 32)
    assert {superclass[name] for name in colours(fc100, "test")} == set(split_lines("fc100_test.txt"))


def test_a_cifar_with_too_few_images_is_refused(tmp_path):
    folder = binary_cifar(tmp_path / "cifar-100-binary")
    with pytest.raises(DataError, match=r"class dolphin has 4 images in .*, not 600"):
        CIFARFS(data_dir=str(tmp_path)).pool("train")
    names = (folder / "fine_label_names.txt").read_text().replace("dolphin", "delfin")
    (folder / "fine_label_names.txt").write_text(names)
    photos._binary.cache_clear()
    with pytest.raises(DataError, match=r"class dolphin has 0 images in .*, not one or more"):
        CIFARFS(images_per_class=None, data_dir=str(tmp_path)).pool("train")


def test_cifar_is_read_from_class_folders_too(tmp_path):
    root = class_folders(tmp_path / "fc100", [f"data/{line}" for line in all_lines("cifar_fs")])
    family = FC100(size=8, images_per_class=2, data_dir=str(tmp_path))
    assert family.pool("val").source.image_shape == (3, 8, 8)
    assert len(family.pool("val")) == 20
    plain(root / "data" / "shark" / "whale_shark.png", (9, 9, 9))  # not of the class whale
    assert CIFARFS(size=8, images_per_class=2, data_dir=str(root)).pool("test").source.names == tuple(
        line.split("/")[1] for line in split_lines("cifar_fs_test.txt")
    )


def test_a_cut_cifar_file_is_refused(tmp_path):
    folder = binary_cifar(tmp_path / "cifar-100-binary")
    (folder / "test.bin").write_bytes(b"12345")
    with pytest.raises(DataError, match=r"test\.bin has 5 bytes; a file of CIFAR-100's binary version has a multiple"):
        CIFARFS(data_dir=str(tmp_path)).pool("train")


# A folder of one's own


def test_class_folders_are_dealt_out_by_share_and_seed(tmp_path):
    class_folders(tmp_path, [f"animal/class{number}" for number in range(15)])
    class_folders(tmp_path, [f"plant/class{number}" for number in range(10)])
    (tmp_path / "plant" / "class0" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    plain(tmp_path / ".hidden" / "0.png", (0, 0, 0))
    parts = [set(colours(ImageFolder(size=2, data_dir=str(tmp_path)), split)) for split in SPLITS]
    assert [len(part) for part in parts] == [16, 4, 5]
    assert len(set.union(*parts)) == 25
    assert "animal/class14" in set.union(*parts)
    again = set(colours(ImageFolder(size=2, split_seed=1, data_dir=str(tmp_path)), "test"))
    assert again != parts[2]
    source = ImageFolder(size=2, data_dir=str(tmp_path)).pool("train").source
    assert set(source.groups) == {"animal", "plant"}
    with pytest.raises(ValueError, match=r"split is 'ood'; .* has no class for it"):
        ImageFolder(size=2, data_dir=str(tmp_path)).pool("ood")


def test_split_folders_are_taken_as_they_are_and_share_no_class(tmp_path):
    for split, names in (("train", "abcdef"), ("valid", "ghijk"), ("test", "lmnop"), ("ood", "qrstu")):
        class_folders(tmp_path / split, names, images=3)
    family = ImageFolder(size=4, queries=1, data_dir=str(tmp_path))
    assert ["".join(colours(family, split)) for split in (*SPLITS, "ood")] == ["abcdef", "ghijk", "lmnop", "qrstu"]
    first, second = (family.episode(2, "train", shots=2, generator=seeded(0)) for _ in range(2))
    assert torch.equal(first.support.x, second.support.x)
    class_folders(tmp_path / "test", "a")
    photos._pool.cache_clear()
    with pytest.raises(DataError, match=r"class a of .* is in train and in test; splits share no class"):
        family.pool("test")


def test_a_broken_image_is_named(tmp_path):
    class_folders(tmp_path / "train", "abcde")
    (tmp_path / "train" / "c" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"train/c/0\.png cannot be read as an image: cannot identify"):
        ImageFolder(data_dir=str(tmp_path)).pool("train")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size is 0; must be at least 1 pixel"),
        ({"split_shares": (0.5, 0.5, 0.5)}, r"split_shares is \(0.5, 0.5, 0.5\); must be numbers from 0"),
        ({"channels": 1, "normalisation": "imagenet"}, "normalisation is 'imagenet'; images with channels 1 have"),
        ({"test_queries": 0}, "test_queries is 0; must be at least 1"),
    ],
)
def test_bad_fields_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder(**settings)


# Pixels


def test_what_is_not_square_is_stretched_or_cut_to_its_middle():
    picture = Image.new("RGB", (6, 2), (255, 0, 0))
    picture.paste((0, 0, 255), (2, 0, 4, 2))  # blue in the middle third
    settings = {"channels": 3, "size": 2, "resize": "box"}
    cut = square_pixels(picture, fit="crop", **settings)
    assert cut.shape == (3, 2, 2)
    assert (cut == np.array([0, 0, 255])[:, None, None]).all()
    stretched = square_pixels(picture, fit="stretch", **settings)
    assert (stretched == np.array([170, 0, 85])[:, None, None]).all()
    grey = square_pixels(picture, channels=1, size=2, resize="box", fit="crop")
    assert grey.shape == (1, 2, 2)
    assert (grey == 29).all()  # 0.114 * 255


def test_normalised_images_of_training_have_mean_zero_and_variance_one(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        for image in range(4):
            path = tmp_path / "train" / f"{number}" / f"{image}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 200, (4, 4, 3), dtype=np.uint8)).save(path)
    settings = {"ways": 6, "queries": 1, "size": 4, "data_dir": str(tmp_path)}
    family = ImageFolder(shots=3, normalisation="train", **settings)
    episode = family.episode(1, "train", generator=seeded())
    x = torch.cat([episode.support.x, episode.query.x], 1)  # every image once
    torch.testing.assert_close(x.mean((0, 1, 3, 4)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.var((0, 1, 3, 4), unbiased=False), torch.ones(3))
    unit = ImageFolder(shots=3, **settings)
    assert float(unit.episode(1, "train", generator=seeded()).support.x.min()) >= 0
    mean, std = channel_statistics(unit.pool("train"))
    images = unit.pool("train").source.images / 255
    torch.testing.assert_close(mean, images.mean((0, 2, 3)))
    torch.testing.assert_close(std, images.std((0, 2, 3), unbiased=False))
    imagenet = ImageFolder(shots=3, normalisation="imagenet", **settings).episode(1, "train", generator=seeded())
    expected = (
        unit.episode(1, "train", generator=seeded()).support.x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    )
    torch.testing.assert_close(imagenet.support.x, expected / torch.tensor([0.229, 0.224, 0.225])[:, None, None])


# Numbers that vary, as those of the user's own images do


def uneven_folders(root: Path) -> ImageFolder:
    """Eight classes in each split, of 4 to 11 images."""
    for split in SPLITS:
        for number in range(8):
            class_folders(root / split, [f"{split}{number}"], images=4 + number)
    return ImageFolder(
        ways=8, queries=2, test_queries=2, sampler="meta_dataset", size=4, channels=1, data_dir=str(root)
    )


CONV = ConvConfig(filters=4, num_blocks=1, normalisation="running")
ABSORBING = {"prototypical": PrototypicalConfig(conv=CONV), "lstm": LSTMConfig(conv=CONV, hidden_size=8)}


@pytest.mark.parametrize("name", ABSORBING)
def test_where_shots_vary_the_whole_support_is_absorbed_at_once(name, tmp_path):
    family = uneven_folders(tmp_path)
    trainer = Trainer(family, ABSORBING[name], TrainConfig(num_iterations=1, num_tasks=3), agent_name=name, seed=0)
    assert math.isfinite(trainer.iterate()["train/loss"])
    evaluation = trainer.evaluate(num_tasks=4)
    assert len(evaluation.points) == 2
    assert evaluation.facts["ways"] == "up to 8"
    assert evaluation.facts["shots"] == "varied"
    assert evaluation.facts["queries"] == "up to 2"
    episode = family.episode(1, "test", queries=2, generator=seeded(3))
    support = replace(episode.support, valid=None)
    assert support.y.shape[1] > num_ways(episode)
    adaptation = trainer.agent.adaptation.eval()
    whole = adaptation.predict(adaptation.adapt(adaptation.prior(1), support), episode.query.x)
    torch.testing.assert_close(trainer.agent.predictions(episode, 1)[1], whole)


@pytest.mark.parametrize("test_batch", [None, 3])
def test_where_shots_vary_the_last_mini_batch_of_reptile_is_filled_up(test_batch, tmp_path):
    family, train = uneven_folders(tmp_path), TrainConfig(num_iterations=4, num_tasks=3, num_points=2)
    config = ReptileConfig(conv=CONV, inner_batch=6, test_batch=test_batch, inner_optimizer="adam")
    trainer = Trainer(family, config, train, agent_name="reptile", seed=0)
    sizes = {family.training.episode(3, "train", generator=seeded(seed)).support.x.shape[1] % 6 for seed in range(4)}
    assert sizes - {0}  # not all of them divide
    for _ in range(4):
        assert math.isfinite(trainer.iterate()["train/query_accuracy"])
    assert len(trainer.evaluate(num_tasks=4).points) == 3


def test_examples_that_fill_a_mini_batch_up_teach_nothing():
    x, y = torch.randn(1, 4, 1, 8, 8, generator=seeded()), torch.tensor([[0, 1, 0, 1]])
    valid = torch.ones(1, 4, dtype=torch.bool)
    episode = FewShotEpisode(Examples(x[:, :2], y[:, :2], valid[:, :2]), Examples(x[:, 2:], y[:, 2:], valid[:, 2:]))
    first, last = mini_batches(episode, 3)
    assert first.valid is not None and bool(first.valid.all())  # noqa: PT018, for the type
    assert last.valid is not None
    assert last.valid.tolist() == [[True, False, False]]
    torch.testing.assert_close(last.x, x[:, [3, 0, 1]])  # images of the task, of which statistics are taken


def test_a_curve_over_shots_is_refused_where_their_number_varies_before_anything_is_trained(tmp_path):
    family, one = uneven_folders(tmp_path), TrainConfig(num_iterations=1, num_tasks=3, num_points=2)
    with pytest.raises(ValueError, match="num_points is 2; must be 1, because tasks have different"):
        Trainer(family, ABSORBING["prototypical"], one, agent_name="prototypical", seed=0)
    reptile = ReptileConfig(conv=CONV)
    Trainer(family, reptile, one, agent_name="reptile", seed=0)  # it counts steps


def test_a_curve_that_is_longer_than_a_class_is_refused_before_anything_is_trained(tmp_path):
    family = replace(uneven_folders(tmp_path), sampler="fixed", ways=5)
    curve = TrainConfig(num_iterations=1, num_tasks=3, num_points=10)
    with pytest.raises(ValueError, match=r"shots \+ queries is 10 \+ 2 = 12; class test\d has \d+ images"):
        Trainer(family, ABSORBING["prototypical"], curve, agent_name="prototypical", seed=0)

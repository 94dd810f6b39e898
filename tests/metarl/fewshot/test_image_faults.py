"""Everything that is wrong with a folder of images is said at once, before anything is trained."""

import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.cli.main import main
from metarl.errors import UserError
from metarl.fewshot.images import cifar, omniglot
from metarl.fewshot.images.data import DataError, FaultyDataError
from metarl.fewshot.images.folders import Form
from metarl.fewshot.images.photos import ImageFolder
from metarl.fewshot.methods.prototypical import PrototypicalConfig
from metarl.trainer import TrainConfig, Trainer


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four classes to train on and three to test on, of four images each."""
    random = np.random.default_rng(0)
    for name in [f"train/a{number}" for number in range(4)] + [f"test/b{number}" for number in range(3)]:
        (tmp_path / name).mkdir(parents=True)
        for image in range(4):
            Image.fromarray(random.integers(0, 255, (9, 9), np.uint8)).save(tmp_path / name / f"{image}.png")
    return tmp_path


def family(folder: Path, **settings) -> ImageFolder:
    sizes = {"ways": 2, "shots": 1, "queries": 2, "test_queries": 2, "size": 8, "channels": 1}
    return ImageFolder(**{**sizes, "data_dir": str(folder), **settings})


def said(folder: Path, **settings) -> str:
    with pytest.raises(UserError) as error:
        family(folder, **settings).check_data()
    message = str(error.value)
    assert "\n" not in message
    return message.replace(str(folder), "DATA")


def bomb(path: Path, side: int) -> None:
    """A PNG of a few kilobytes that claims to be a square of so many pixels a side."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))


def frames(path: Path) -> None:
    pictures = [Image.new("L", (9, 9), value) for value in (0, 99, 200)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])


def test_a_folder_in_order_is_read(folder):
    Image.new("L", (9, 9), 7).save(folder / "train/a0/picture.GIF")
    (folder / "test/b0/notes.txt").write_text("seen in May")
    (folder / "train/__MACOSX").mkdir()
    os.rename(folder / "train/a1", folder.parent / "elsewhere")
    os.symlink(folder.parent / "elsewhere", folder / "train/a1")
    family(folder).check_data()
    assert family(folder).image_counts("train") == {"a0": 5, "a1": 4, "a2": 4, "a3": 4}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "train/a0/x.heic").touch(), r"DATA/train/a0/x\.heic is of a kind that is not read"),
        (lambda f: (f / "test/b0/x").touch(), r"DATA/test/b0/x is of a kind that is not read"),
        (lambda f: (f / "train/none").mkdir(), "DATA/train/none has no images"),
        (lambda f: (f / "test/group/none").mkdir(parents=True), "DATA/test/group/none has no images"),
        (lambda f: (f / "Test").mkdir(), "DATA/Test is none of the splits train, val"),
        (lambda f: os.rename(f / "train/a0/0.png", f / "train/0.png"), r"DATA/train/0\.png is in no folder of a class"),
        (lambda f: frames(f / "test/b0/x.tif"), r"DATA/test/b0/x\.tif has 3 frames; must have one"),
        (lambda f: frames(f / "train/a0/x.gif"), r"DATA/train/a0/x\.gif has 3 frames; must have one"),
        (lambda f: (f / "train/a0/0.png").write_bytes(b""), r"a0/0\.png cannot be read as an image: cannot identify"),
        (
            lambda f: bomb(f / "train/a0/x.png", 9900),
            r"a0/x\.png cannot be read as an image: Image size \(98010000 pix",
        ),
        (lambda f: bomb(f / "test/b0/x.png", 30000), r"b0/x\.png cannot be read as an image: Image size \(900000000 "),
        (lambda f: os.symlink("/gone/x.png", f / "train/a0/x.png"), r"x\.png is a link to /gone/x\.png, which is not"),
        (lambda f: os.symlink("x.png", f / "train/a0/x.png"), r"x\.png is a link to x\.png, which is not there"),
        (lambda f: os.symlink(".", f / "train/a0/again"), "DATA/train/a0/again is a link to a folder that it lies in"),
        (lambda f: os.symlink("/", f / "train/all"), "DATA/train/all is a link to a folder that it lies in"),
        (lambda f: os.mkfifo(f / "train/a0/pipe.png"), r"DATA/train/a0/pipe\.png is neither a file nor a folder"),
    ],
)
def test_each_fault_is_one_line(folder, spoil: Callable[[Path], object], message):
    spoil(folder)
    assert re.search(message, said(folder))


def test_links_that_lead_to_each_other_end(folder):
    os.symlink("../b1", folder / "test/b0/other")
    os.symlink("../b0", folder / "test/b1/other")
    assert "DATA/test/b0/other/other is a link to a folder that it lies in" in said(folder)


def test_faults_of_all_splits_and_kinds_are_in_one_message(folder):
    for image in (1, 2, 3):
        (folder / f"train/a3/{image}.png").unlink()
    for image in (2, 3):
        (folder / f"test/b2/{image}.png").unlink()
    (folder / "val/c").mkdir(parents=True)
    Image.new("L", (4, 4)).save(folder / "val/c/0.png")
    (folder / "test/b0/0.png").write_bytes(b"no image")
    (folder / "train/a0/x.heic").touch()
    message = said(folder)
    assert message.startswith("5 faults in the data: ")
    for part in (
        "in split train, shots + queries is 1 + 2 = 3 images of a class; class a3 has 1",
        "in split val, shots + queries is 1 + 2 = 3 images of a class; class c has 1",
        "in split test, shots + queries is 1 + 2 = 3 images of a class; class b2 has 2",
        "DATA/test/b0/0.png cannot be read as an image",
        "DATA/train/a0/x.heic is of a kind",
    ):
        assert part in message


def test_very_many_faults_are_counted(folder):
    for number in range(30):
        (folder / f"train/empty{number:02}").mkdir()
    assert said(folder).startswith("30 faults in the data: DATA/train/empty00 has no images; ")
    assert said(folder).endswith("DATA/train/empty09 has no images; and 20 more")


def test_training_has_shots_and_queries_of_its_own(folder):
    family(folder, shots=3, test_queries=1, train_shots=1, queries=3).check_data()
    assert "in split train, shots + queries is 2 + 3 = 5" in said(folder, train_shots=2, queries=3)
    assert "in split test, shots + queries is 3 + 2 = 5" in said(folder, shots=3, train_shots=1)
    family(folder, ways=5, sampler="meta_dataset", shots=100).check_data()


def test_a_class_that_chance_might_not_draw_is_found_when_the_trainer_is_made(folder):
    (folder / "train/a3/3.png").unlink()
    (folder / "train/a3/2.png").unlink()
    with pytest.raises(FaultyDataError, match="class a3 has 2"):
        Trainer(
            family(folder), PrototypicalConfig(), TrainConfig(num_iterations=1, num_tasks=1), agent_name="p", seed=0
        )
    with pytest.raises(ValueError, match="class a3 has 2 images"):
        family(folder).episode(1, "train", generator=torch.Generator().manual_seed(0))


def test_train_makes_no_run_directory_for_a_faulty_folder(folder, tmp_path, monkeypatch, capsys):
    (folder / "test/b0/x.heic").touch()
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from experiments.experiment import Experiment\n"
        "from metarl.fewshot.images.photos import ImageFolder\n"
        "from metarl.fewshot.methods.prototypical import PrototypicalConfig\n"
        "from metarl.trainer import TrainConfig\n"
        f"family = ImageFolder(ways=2, queries=1, test_queries=1, size=16, data_dir={str(folder)!r})\n"
        "experiment = Experiment(family, PrototypicalConfig(), TrainConfig(num_iterations=1, num_tasks=1))\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["train", str(recipe), "--run-dir", "run"])
    assert stop.value.code == 2
    assert "x.heic is of a kind that is not read" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_all_deep_images_of_a_folder_have_one_white(folder):
    for split, most in (("train/a0", 300), ("test/b0", 4000)):
        Image.fromarray(np.full((9, 9), most, np.uint16)).save(folder / split / "deep.png")
    pool = family(folder).pool("train")
    start = int(pool.source.starts[pool.source.names.index("a0")])
    assert int(pool.source.images[start + 4].max()) == round(300 / 4095 * 255)


# Archives and binary files


def archive(path: Path, *, content: bytes = b"x", flag: int = 0) -> Path:
    path.mkdir(exist_ok=True)
    for part, number in omniglot.PARTS.items():
        with zipfile.ZipFile(path / f"{part}.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for image in range(number):
                file.writestr(f"{part}/Greek/character01/{image:04}_01.png", content)
        raw = bytearray((path / f"{part}.zip").read_bytes())
        at = raw.find(b"PK\x01\x02")
        raw[at + 8] |= flag
        (path / f"{part}.zip").write_bytes(bytes(raw))
    return path


def picture(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flag": 1}, r"images_background\.zip is encrypted"),
        ({"content": bytes(10_000_000)}, r"images_background\.zip is not Omniglot's: .*_01\.png has 10,000,000 bytes"),
        ({"content": picture(2000)}, r"is damaged: an image has 2000 x 2000 pixels; must have 105 x 105"),
        ({"content": b"no image"}, "is damaged: cannot identify"),
    ],
)
def test_archives_that_are_not_omniglot_are_refused_in_one_line(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(omniglot, "PARTS", {"images_background": 2, "images_evaluation": 1})
    with pytest.raises(DataError, match=message):
        omniglot.omniglot_classes(archive(tmp_path / "data", **options), 28, "lanczos", "bright")


def test_pipes_in_place_of_data_are_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(omniglot, "PARTS", {"images_background": 2, "images_evaluation": 1})
    os.mkfifo(tmp_path / "images_background.zip")
    with pytest.raises(DataError, match="holds 0 images of Omniglot"):
        omniglot.omniglot_classes(tmp_path, 28, "lanczos", "bright")
    record = bytes(2 + 3 * 32 * 32)
    for name in cifar.FILES:
        (tmp_path / name).write_bytes(record)
    os.mkfifo(tmp_path / "fine_label_names.txt")
    with pytest.raises(DataError, match=r"fine_label_names\.txt is not there, or not a file"):
        cifar.read_binary(tmp_path, Form(3, 8, "lanczos", "stretch"))

"""Seeing it: images, captions, videos on disk and in TensorBoard, and the play command."""

import io
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.rl2 import RL2Config
from envs.catalog import FAMILIES, make
from envs.locomotion.markers import task_markers
from envs.simulators.rendering import Arrow, Ball
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation, PointTasks, Semicircle, Wind
from experiments.cli import session
from experiments.cli.recording import Moment, WatchedEnv, caption, play, record, visible_env
from experiments.cli.task_arguments import with_fields
from experiments.cli.video import MAX_SMALL_FRAMES, AnimatedImage, Mp4, captioned
from metarl.errors import UserError
from metarl.protocols import Renders
from metarl.records import Record
from metarl.run.directory import Run
from tests.experiments.command import finished_run, run

RECIPE = '''
"""RL2 on a tiny grid."""
from agents.rl2 import RL2Config
from envs.torch_families.gridworld import GridNavi
from experiments.experiment.definition import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=GridNavi(size=3, horizon=4, num_episodes=2),
    agent=RL2Config(hidden_size=8, head_sizes=(8,)),
    train=TrainConfig(num_iterations=3, num_tasks=4, eval_every=0, eval_tasks=5),
)
'''

GOAL_GREEN, AGENT_BLUE = (46, 158, 91), (44, 98, 200)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_agent(family: Any) -> Any:
    config = RL2Config(hidden_size=8, head_sizes=(8,))
    return config.make(family.observation_space, family.action_space, num_iterations=1, generator=generator())


def frames(path: Path) -> tuple[float, np.ndarray]:
    """A video's frames a second, and its frames [T, 560, 480, 3]."""
    counted: Any = imageio_ffmpeg.count_frames_and_secs(str(path))
    number, seconds = counted
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    return number / seconds, np.frombuffer(raw.stdout, np.uint8).reshape(number, 560, 480, 3)


# Images


UNSEEN = ("bernoulli_bandit", "gaussian_bandit", "tabular_mdp")
SEEN = [  # the robots draw themselves in one and the same way
    pytest.param(name, marks=[pytest.mark.slow] if "locomotion" in where and name != "half_cheetah_vel" else [])
    for name, where in FAMILIES.items()
    if name not in UNSEEN
]


@pytest.mark.parametrize("name", SEEN)
def test_every_family_but_bandits_and_tables_can_be_seen(name):
    try:
        env = visible_env(make(name))
    except UserError as error:
        if "MuJoCo cannot render here" in str(error):
            pytest.skip(str(error))
        raise
    image = env.render()
    assert image.shape == (480, 480, 3)
    assert image.dtype == np.uint8
    assert image.std() > 1
    assert env.seconds_per_step > 0
    assert isinstance(env, Renders)


def test_what_cannot_be_seen_says_what_can():
    with pytest.raises(
        UserError, match=r"bernoulli_bandit cannot be rendered; those that can are grid_navi, .*half_cheetah_vel"
    ):
        visible_env(BernoulliBandit())


def test_a_grid_shows_goal_agent_and_the_last_cell_of_an_episode():
    family = GridNavi(size=5, horizon=4)
    env = family.make_env(2, generator())
    env.reset(family.sample(2, "train", generator()).map(lambda goal: torch.full_like(goal, 4 * 5 + 0)))
    assert at(env.render(1), 4, 0) == GOAL_GREEN
    assert at(env.render(1), 0, 0) == AGENT_BLUE
    for _ in range(3):
        env.step(torch.tensor([4, 1]))  # stay; right
    step = env.step(torch.tensor([4, 1]))
    assert bool(step.episode_end.all())
    assert at(env.render(1), 4, 0) == AGENT_BLUE  # although the next episode has begun
    assert at(env.render(0), 0, 0) == AGENT_BLUE
    env.step(torch.tensor([4, 4]))
    assert at(env.render(1), 0, 0) == AGENT_BLUE
    assert at(env.render(1), 2, 0) != at(env.render(1), 0, 0)  # the way of the episode before is gone


def at(image: np.ndarray, x: int, y: int) -> tuple[int, ...]:
    """The colour in the middle of a cell of the 5 x 5 grid."""
    pixels = 480 / 5.5
    return tuple(image[round(480 - (y + 0.75) * pixels), round((x + 0.75) * pixels)].tolist())


@pytest.mark.parametrize("family", [PointNavigation(), Semicircle(), Wind()])
def test_a_point_leaves_a_trail_and_a_stray_point_stays_in_the_image(family):
    env = family.make_env(1, generator())
    env.reset(PointTasks(torch.tensor([[0.0, 0.4]]), torch.tensor([[0.05, 0.0]])))
    start = env.render()
    assert tuple(start[240, 240].tolist()) == AGENT_BLUE
    for _ in range(10):
        env.step(torch.tensor([[0.1, -0.1]]))
    later = env.render()
    assert (later != start).any()
    assert (later == np.array(AGENT_BLUE)).all(-1).sum() > 100  # 1.5 away, beyond the view at the start


@dataclass(frozen=True)
class Velocities(Record):
    velocity: torch.Tensor


@dataclass(frozen=True)
class Directions(Record):
    direction: torch.Tensor


@dataclass(frozen=True)
class Goals(Record):
    goal: torch.Tensor


def test_arrows_show_what_is_asked_for_and_what_is():
    def arrows(task: Any, motion: list[float]) -> list[Any]:
        markers: Any = task_markers(task[0], [5.0, 1.0, 0.5], [*motion, 9.0])
        assert [marker.place for marker in markers] == [(5.0, 1.0, 1.25), (5.0, 1.0, pytest.approx(1.12))]
        return [pytest.approx(list(marker.vector)) for marker in markers]

    velocity, heading = Velocities(torch.tensor([2.0])), Directions(torch.tensor([[0.0, -1.0]]))
    assert arrows(velocity, [1.0, 0.5]) == [[0.7, 0, 0], [0.35, 0.175, 0]]
    assert arrows(velocity, [8.0, 0.0]) == [[0.35, 0, 0], [1.4, 0, 0]]  # none is more than twice 0.7 m long
    assert arrows(Velocities(torch.tensor([0.0])), [0.0, 0.0]) == [[0, 0, 0], [0, 0, 0]]
    assert arrows(heading, [0.5, 0.0]) == [[0, -0.7, 0], [0.35, 0, 0]]
    assert arrows(Directions(torch.tensor([-1.0])), [-1.0, 0.0]) == [[-0.7, 0, 0], [-0.7, 0, 0]]
    ball, arrow = task_markers(Goals(torch.tensor([[5.0, 4.0]]))[0], [5.0, 1.0, 0.5], [0.0, 0.0, 0.0])
    assert ball == Ball((5.0, 4.0, 0.1))
    assert isinstance(arrow, Arrow)
    assert list(arrow.vector) == pytest.approx([0, 0.7, 0])


def test_a_cheetah_is_drawn_where_its_last_step_led_it():
    family = make("half_cheetah_vel", horizon=3)
    env: Any = family.make_env(2, generator())
    env.reset(family.sample(2, "train", generator()))
    for _ in range(2):
        env.step(torch.full((2, 6), 0.5))
    step = env.step(torch.full((2, 6), 0.5))
    assert bool(step.truncated.all())
    _, data = env.copy_row(1)
    led_to = torch.tensor(np.concatenate([data.qpos[1:], data.qvel]), dtype=torch.float32)
    assert torch.equal(led_to, step.next_obs[1])
    assert not torch.equal(led_to, step.obs[1])
    env.close()


# Films


def test_captions_say_task_episode_and_return(tmp_path):
    family = GridNavi(size=3, horizon=4)
    env, moments = visible_env(family), []
    task = with_fields(family.sample(1, "train", generator()), ["goal=8"], "grid_navi")
    returns = play(env, small_agent(family), task, 2, moments.append)
    assert [(moment.episode, moment.step) for moment in moments] == [
        (1, 0), *((1, step) for step in range(1, 5)), *((2, step) for step in range(1, 5))
    ]  # fmt: skip
    assert [moment.episode_end for moment in moments] == [False, *[False, False, False, True] * 2]
    assert moments[4].episode_return == pytest.approx(returns[0])
    assert moments[8].episode_return == pytest.approx(returns[1])
    assert moments[8].earlier_returns == pytest.approx(returns[:1])
    lines = caption("a title", moments[8], 2, 4)
    assert lines[0] == "a title"
    assert lines[1] == f"episode 2 of 2    step 4 of 4    return {returns[1]:.1f}"
    assert lines[2] == f"episode 1: {returns[0]:.1f}"


def test_captions_say_what_is_measured_and_that_an_episode_has_ended_early():
    moment = Moment(1, 7, 2.0, (), True, True, (("velocity_error", 0.25),))
    assert caption("half_cheetah_vel   velocity 1.5", moment, 2, 200) == [
        "half_cheetah_vel   velocity 1.5   now: velocity error 0.25",
        "episode 1 of 2    step 7 of 200    ended early    return 2.0",
        "",
    ]


def test_a_moment_has_what_the_family_measures():
    family, moments = make("half_cheetah_vel", horizon=2), []
    watched = WatchedEnv(family.make_env(1, generator()), torch.device("cpu"), moments.append)
    watched.reset(family.sample(1, "train", generator()))
    step = watched.step(torch.zeros(1, 6))
    assert step.metrics is not None
    assert [value for _, value in moments[1].measured] == pytest.approx(step.metrics[0].tolist())


def test_what_an_accelerator_steps_after_the_end_is_not_shown():
    family, moments = GridNavi(size=3, horizon=4), []
    watched = WatchedEnv(family.make_env(1, generator()), torch.device("cpu"), moments.append)
    watched.reset(family.sample(1, "train", generator()))
    for active in (True, True, False):
        watched.step(torch.tensor([4]), torch.tensor([active]))
    assert [moment.step for moment in moments] == [0, 1, 2]


def test_a_long_caption_ends_within_the_image():
    image = np.zeros((480, 480, 3), np.uint8)
    long, short = captioned(image, ["task " * 100]), captioned(image, ["task"])
    assert long.shape == (560, 480, 3)
    edge = long[:30, -10:]
    assert (edge == edge[0, 0]).all()
    assert (long[:30] != short[:30]).any()
    assert not long[80:].any()


def test_a_video_shows_every_step_and_the_agent_meets_the_task_as_always(tmp_path):
    family = PointNavigation(horizon=6)
    agent, task = small_agent(family), family.sample(1, "test", generator())
    before = {name: value.clone() for name, value in agent.net.state_dict().items()}
    made = record(family, agent, task, 2, tmp_path / "videos" / "a.mp4", seed=3)
    again = record(family, agent, task, 2, tmp_path / "b.mp4", seed=3)
    assert made.returns == again.returns
    assert record(family, agent, task, 2, tmp_path / "c.mp4", seed=4).returns != made.returns
    fps, pixels = frames(made.path)
    assert fps == pytest.approx(10)  # 0.1 s a step
    assert len(pixels) == 1 + 2 * (6 + 8)  # the start, six steps an episode, 0.8 s at each end
    assert (pixels[0] != pixels[5]).any()
    assert all(torch.equal(before[name], value) for name, value in agent.net.state_dict().items())
    assert sorted(path.name for path in tmp_path.rglob("*.mp4")) == ["a.mp4", "b.mp4", "c.mp4"]


def test_an_interrupted_video_leaves_no_file(tmp_path):
    def interrupted() -> None:
        with Mp4(tmp_path / "a.mp4", 10) as mp4:
            mp4.add(np.zeros((64, 64, 3), np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*a\.mp4"), Mp4(tmp_path / "file" / "a.mp4", 10) as mp4:
        mp4.add(np.zeros((64, 64, 3), np.uint8))


def test_an_animated_image_keeps_its_speed_and_its_size():
    image = AnimatedImage(20.0)
    for index in range(1000):
        image.add(np.full((560, 480, 3), index % 250, np.uint8))
    gif: Any = Image.open(io.BytesIO(image.encoded()))
    assert gif.size == image.size == (240, 280)
    durations = []
    for index in range(gif.n_frames):
        gif.seek(index)
        durations.append(gif.info["duration"])
    assert len(durations) <= MAX_SMALL_FRAMES
    assert sum(durations) == pytest.approx(1000 / 20 * 1000, rel=0.02)


def test_tensorboard_gives_the_video_back(tmp_path):
    family = GridNavi(size=3, horizon=2)
    run = Run.create_at(tmp_path / "run", {}, [])
    made = record(family, small_agent(family), family.sample(1, "test", generator()), 1, run.videos / "a.mp4")
    run.log_animation("meta_test/video", made.animated_image, made.image_size, 123)
    events = EventAccumulator(str(run.videos)).Reload()
    [image] = events.Images("meta_test/video")
    assert image.step == 123
    assert (image.width, image.height) == (240, 280)
    assert image.encoded_image_string == made.animated_image
    gif: Any = Image.open(io.BytesIO(image.encoded_image_string))
    assert gif.n_frames >= 2


# Tasks by hand


def test_fields_of_a_task_are_set_by_words():
    cheetah, point = make("half_cheetah_rand_params"), PointNavigation()
    task = with_fields(cheetah.sample(1, "train", generator()), ["body_mass=2", "dof_damping=1,2,3,4,5,6"], "cheetah")
    values: Any = task
    assert values.body_mass.tolist() == [[2.0] * 7]
    assert values.dof_damping.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert values.geom_friction.shape == (1, 9, 3)
    moved: Any = with_fields(point.sample(1, "train", generator()), ["goal=0.5,-0.25"], "point_navigation")
    assert moved.goal.tolist() == [[0.5, -0.25]]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("gaol=1,2", "a task of point_navigation has no field 'gaol': did you mean goal?"),
        ("goal", "--task goal: a field and its value are wanted, such as goal="),
        ("goal=1,2,3", "--task goal=1,2,3: goal takes one number, or 2 with commas between"),
        ("goal=north", "--task goal=north: goal takes one number, or 2 with commas between"),
        ("goal=nan,0", "--task goal=nan,0: goal takes one number, or 2 with commas between"),
    ],
)
def test_a_wrong_word_is_named(word, message):
    with pytest.raises(UserError, match="^" + message.replace("?", r"\?")):
        with_fields(PointNavigation().sample(1, "train", generator()), [word], "point_navigation")


def test_a_whole_number_field_takes_whole_numbers():
    with pytest.raises(UserError, match="goal takes integers: one number"):
        with_fields(GridNavi().sample(1, "train", generator()), ["goal=1.5"], "grid_navi")


# The commands


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return finished_run(RECIPE, tmp_path_factory.mktemp("finished"))


@pytest.fixture
def trained(finished, tmp_path, monkeypatch, capsys) -> str:
    """A finished training, of which each test has a copy beside the recipe."""
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE)
    capsys.readouterr()  # what the training has printed
    return str(shutil.copytree(finished, "plain"))


def test_play_writes_a_video_and_prints_the_returns(trained, capsys):
    status, output, _ = run(capsys, "play", trained, "--task", "goal=8", "--episodes", "3", "--video", "out.mp4")
    assert status == 0
    assert output.count(": return ") == 3
    assert len(frames(Path("out.mp4"))[1]) == 1 + 3 * (4 + 3)
    assert EventAccumulator(f"{trained}/videos").Reload().Images("play/test")
    status, output, _ = run(capsys, "play", trained, "--split", "ood", "--seed", "1")
    assert status == 0
    assert "outside the range of training" in output
    assert Path(trained, "videos", "ood_s1.mp4").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--task", "gaol=3"), "has no field 'gaol': did you mean goal?"),
        (("--video", "out.avi"), "--video is 'out.avi'; must end in .mp4"),
        (("--episodes", "0"), "--episodes is 0; must be at least 1"),
        (("--seed", "-1"), "--seed is -1; must be in [0, 2^62 - 1]"),
        (("--viewer", "--video", "a.mp4"), "exclude each other"),
    ],
)
def test_a_mistake_is_one_line(trained, capsys, words, message):
    status, _, errors = run(capsys, "play", trained, *words)
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1


def test_the_viewer_needs_a_display(trained, capsys, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    status, _, errors = run(capsys, "play", trained, "--viewer")
    assert (status, errors.count("\n")) == (2, 1)
    assert "--viewer needs a display, and there is none here" in errors
    monkeypatch.setitem(os.environ, "DISPLAY", ":0")
    status, _, errors = run(capsys, "play", trained, "--viewer")
    assert (status, errors.count("\n")) == (2, 1)
    assert "grid_navi is none" in errors


def test_recording_does_not_disturb_the_training(trained, capsys):
    assert run(capsys, "train", "recipe.py", "--run-dir", "filmed", "--video-every", "2")[0] == 0
    assert [path.name for path in Path("filmed/videos").glob("*.mp4")] == ["iteration_000002.mp4"]
    plain, filmed = (Run(Path(name)).load("latest") for name in (trained, "filmed"))
    for state in (plain, filmed):
        del state["seconds"]
    assert_same(plain, filmed)
    status, _, errors = run(capsys, "train", "recipe.py", "--run-dir", "x", "--video-every", "-1")
    assert status == 2
    assert "--video-every is -1" in errors
    assert run(capsys, "resume", "filmed", "--num-iterations", "4", "--video-every", "2")[0] == 0
    assert Path("filmed/videos/iteration_000004.mp4").is_file()


def test_a_video_that_fails_does_not_end_the_training(trained, capsys, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise UserError("no space left for videos")

    monkeypatch.setattr(session, "record", refuse)
    status, output, errors = run(capsys, "train", "recipe.py", "--run-dir", "unfilmed", "--video-every", "1")
    assert status == 0
    assert "95 % interval" in output
    assert errors.count("metarl: no space left for videos; training continues without further videos") == 1
    plain, unfilmed = (Run(Path(name)).load("latest") for name in (trained, "unfilmed"))
    for state in (plain, unfilmed):
        del state["seconds"]
    assert_same(plain, unfilmed)


def test_a_family_that_cannot_be_seen_stops_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, errors = run(capsys, "train", "bernoulli_bandit/rl2", "--run-dir", "x", "--video-every", "1")
    assert (status, errors.count("\n")) == (2, 1)
    assert "bernoulli_bandit cannot be rendered" in errors
    assert list(tmp_path.iterdir()) == []


def assert_same(a: Any, b: Any) -> None:
    """Two states of plain Python and tensors are equal bit for bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b

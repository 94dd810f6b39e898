"""Show an agent adapting to one task, episode by episode, as a video: metarl play RUN [--task NAME=VALUE ...].

RUN is a run's directory, the archive of a trained agent, or the name of one that comes with MetaRL, e.g. grid_navi/rl2
(metarl list trained).
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from experiments.cli.arguments import Checkpoint, check_seed, parse
from experiments.experiment.code_choice import CodeChoice
from metarl.errors import UserError

if TYPE_CHECKING:
    from experiments.cli.recording import Moment
    from metarl.run.directory import Run
    from metarl.trainer import Trainer

_Code = Annotated[CodeChoice, tyro.conf.arg(name="")]  # whose flags have no prefix


@dataclass(frozen=True)
class Arguments:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]  # the run
    task: tyro.conf.UseAppendAction[tuple[str, ...]] = ()  # a field, as velocity=1.5 or goal=0.5,0; others are drawn
    split: Literal["train", "test", "ood"] = "test"  # the split to draw the task from; ood: outside the training range
    episodes: int | None = None  # the number of episodes, or steps of adaptation; None: as in training
    video: Path | None = None  # the mp4 file to write; None: RUN/videos/<split>_s<seed>.mp4
    viewer: bool = False  # whether to open MuJoCo's viewer instead, on a machine with a display
    checkpoint: Checkpoint = "latest"  # the checkpoint to play
    deterministic: bool = False  # whether to act by the policy's mode
    seed: int = 0  # the seed of the task and of all randomness; one seed gives one video
    code: _Code = field(default_factory=CodeChoice)  # the user's code that the run is read with


def main(argv: list[str]) -> None:
    arguments = parse(Arguments, argv, prog="metarl play", description=__doc__ or "")
    check_seed(arguments.seed)
    if arguments.episodes is not None and arguments.episodes < 1:
        raise UserError(f"--episodes is {arguments.episodes}; must be at least 1")
    if arguments.video is not None and arguments.video.suffix != ".mp4":
        raise UserError(f"--video is {str(arguments.video)!r}; must end in .mp4")
    if arguments.viewer and arguments.video is not None:
        raise UserError("--viewer and --video exclude each other; leave one of them out")
    import torch

    from envs.external import CrashedTooOften
    from experiments.cli.task_arguments import with_fields
    from experiments.experiment.definition import restored
    from experiments.experiment.opening import open_run
    from experiments.experiment.reading import read

    run = open_run(arguments.run)
    experiment = replace(read(run, arguments.code).experiment, device="cpu")  # one row is fastest there
    if not hasattr(experiment.family, "make_env"):
        raise UserError(f"{experiment.family.name} cannot be played: its tasks are functions, and nothing acts in them")
    trainer = restored(experiment, run, arguments.checkpoint, to_train=False)
    try:
        task = trainer.family.sample(1, arguments.split, torch.Generator().manual_seed(arguments.seed))
        task = with_fields(task, arguments.task, trainer.family.name)
    except ValueError as error:  # such as a split that the family does not declare
        raise UserError(str(error)) from error
    in_training_range = getattr(trainer.family, "in_training_range", None)
    if in_training_range is not None and not bool(in_training_range(task)):
        print("This task lies outside the range of training.")
    num_episodes = trainer.num_points if arguments.episodes is None else arguments.episodes
    show = _view if arguments.viewer else _record
    try:
        returns = show(arguments, run, trainer, task, num_episodes)
    except (ValueError, FloatingPointError, CrashedTooOften) as error:  # a task that cannot be, a robot of one's own
        raise UserError(str(error)) from error
    for index, value in enumerate(returns, start=1):
        print(f"Episode {index}: return {value:.4g}")


def _record(arguments: Arguments, run: Run, trainer: Trainer, task: Any, num_episodes: int) -> tuple[float, ...]:
    from experiments.cli.recording import record
    from metarl.run.log_writers import tensorboard_command

    path = arguments.video or run.videos / f"{arguments.split}_s{arguments.seed}.mp4"
    settings = {"seed": arguments.seed, "deterministic": arguments.deterministic}
    made = record(trainer.family, trainer.agent, task, num_episodes, path, **settings)
    run.log_animation(f"play/{arguments.split}", made.animated_image, made.image_size, trainer.num_samples)
    print(f"Video:       {made.path}")
    print(f"TensorBoard: {tensorboard_command(run.results)} (images, play/{arguments.split})")
    return made.returns


def _view(arguments: Arguments, run: Run, trainer: Trainer, task: Any, num_episodes: int) -> tuple[float, ...]:
    """Show the trial in MuJoCo's viewer at the speed of life; closing the window lets the rest pass unseen."""
    import torch

    from envs.simulators import has_display
    from experiments.cli.recording import describe, play
    from metarl.rl.rollouts import rows_per_task

    if not has_display():
        raise UserError("--viewer needs a display, and there is none here; without it a video is written")
    generator = torch.Generator().manual_seed(arguments.seed)
    env: Any = trainer.family.make_env(rows_per_task(trainer.agent), generator)
    if not hasattr(env, "copy_row"):
        raise UserError(f"--viewer shows MuJoCo's simulations, and {trainer.family.name} is none; leave it out")
    import mujoco

    from envs.simulators.rendering import add_markers, moving_body

    env.reset(task)
    model, data = env.copy_row(0)
    generator.manual_seed(arguments.seed)  # so that the trial is the one that a video shows
    with _window(model, data) as viewer:
        print(f"{trainer.family.name}: {describe(task)}", flush=True)
        viewer.cam.type = mujoco.mjtCamera.mjCAMERA_TRACKING  # pyright: ignore[reportAttributeAccessIssue]
        viewer.cam.trackbodyid = moving_body(model)
        due = time.monotonic()

        def watch(moment: Moment) -> None:
            nonlocal due
            if viewer.is_running():
                _, now = env.copy_row(0)
                with viewer.lock():
                    data.qpos[:], data.qvel[:] = now.qpos, now.qvel
                    mujoco.mj_forward(model, data)  # pyright: ignore[reportAttributeAccessIssue]
                    viewer.user_scn.ngeom = 0
                    add_markers(viewer.user_scn, env.markers(0, model, data))
                viewer.sync()
                due = max(due + env.seconds_per_step, time.monotonic() - 1)
                time.sleep(max(0.0, due - time.monotonic()))
            if moment.episode_end:
                print(f"episode {moment.episode} of {num_episodes}: return {moment.episode_return:.4g}", flush=True)

        settings = {"seed": arguments.seed, "deterministic": arguments.deterministic}
        return play(env, trainer.agent, task, num_episodes, watch, **settings)


@contextmanager
def _window(model: Any, data: Any) -> Iterator[Any]:
    """MuJoCo's passive viewer; leaves it with its thread at an end, without which the program would end in a crash.

    Raises:
        UserError: when no window can be opened.
    """
    import glfw
    import mujoco.viewer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what GLFW says of its failure
        if not glfw.init():  # the viewer's thread would die of it, and leave us waiting
            raise UserError("--viewer cannot open a window on this display; without it a video is written")
    before = set(threading.enumerate())
    try:
        viewer = mujoco.viewer.launch_passive(model, data, show_left_ui=False, show_right_ui=False)
    except RuntimeError as error:  # on macOS, from another program than mjpython
        raise UserError(f"--viewer cannot open a window: {error}") from error
    with viewer:
        yield viewer
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=5)

"""Make what a family needs beside MetaRL: metarl setup metaworld [--folder DIR]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.cli.arguments import parse
from metarl.errors import UserError, shell_command


@dataclass(frozen=True)
class Arguments:
    family: Annotated[Literal["metaworld"], tyro.conf.Positional]  # the family that has an interpreter of its own
    folder: Path | None = None  # the folder of its virtual environment; None: metarl/metaworld in the user's cache


def main(argv: list[str]) -> None:
    arguments = parse(Arguments, argv, prog="metarl setup", description=__doc__ or "")

    from envs.external.metaworld.interpreter import VARIABLE, default_folder, make_interpreter
    from envs.external.metaworld.process import MetaworldProcess
    from envs.external.workers import WorkerDied

    folder = default_folder() if arguments.folder is None else arguments.folder.expanduser().absolute()
    python = make_interpreter(folder)
    try:
        process = MetaworldProcess(python)
    except WorkerDied as death:
        raise UserError(f"the interpreter in {folder} does not work: {death}") from death
    process.stop()
    print(f"metaworld {process.versions['metaworld']} with mujoco {process.versions['mujoco']}: {python}")
    if folder != default_folder():
        print(f"Use it: export {shell_command(f'{VARIABLE}={python}')}")
    print("Train:  metarl train metaworld/rl2")

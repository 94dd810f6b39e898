"""Write the beginning of a recipe: metarl new robot robot.xml [--out recipe.py]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.cli.arguments import parse
from metarl.errors import UserError, shell_command


@dataclass(frozen=True)
class Arguments:
    kind: Annotated[Literal["robot"], tyro.conf.Positional]  # the kind of recipe
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]  # the robot's MJCF or URDF file
    out: Path | None = None  # the recipe to write; None: in the working directory, with the robot's name


def main(argv: list[str]) -> None:
    arguments = parse(Arguments, argv, prog="metarl new", description=__doc__ or "")
    if not arguments.file.is_file():
        raise UserError(f"there is no file at {arguments.file}")
    out = Path(arguments.file.with_suffix(".py").name) if arguments.out is None else arguments.out
    if out.suffix != ".py":
        raise UserError(f"--out is {str(out)!r}; must end in .py")

    from experiments.cli.robot_recipe import robot_recipe

    text = robot_recipe(arguments.file, out)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UserError(f"{out} exists; choose another name with --out") from error
    print(f"Recipe: {out}")
    print(f"Check:  {shell_command('metarl', 'check', out)}")
    print(f"Train:  {shell_command('metarl', 'train', out)}")

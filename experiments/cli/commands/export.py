"""Export a run's learner to ONNX, state in and state out, and prove it: metarl export RUN [--out DIR] [--opset N].

RUN is a run's directory, the archive of a trained agent, or the name of one that comes with MetaRL, e.g. grid_navi/rl2
(metarl list trained). The files are kept only if they do what the learner does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from experiments.cli.arguments import Checkpoint, parse
from experiments.experiment.code_choice import CodeChoice
from metarl.errors import UserError, shell_command

_Code = Annotated[CodeChoice, tyro.conf.arg(name="")]  # whose flags have no prefix


@dataclass(frozen=True)
class Arguments:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]  # the run
    checkpoint: Checkpoint = "best"  # the checkpoint to export; an archive has only one
    out: Path | None = None  # the folder to write into; None: exported/FAMILY_AGENT_sSEED in the working directory
    opset: int = 18  # the version of ONNX's operators, at least 18
    code: _Code = field(default_factory=CodeChoice)  # the user's code that the run is read with


def main(argv: list[str]) -> None:
    arguments = parse(Arguments, argv, prog="metarl export", description=__doc__ or "")
    if arguments.opset < 18:
        raise UserError(f"--opset is {arguments.opset}; must be at least 18")
    from experiments.experiment.definition import restored
    from experiments.experiment.opening import open_run
    from experiments.experiment.reading import read
    from experiments.exporting.export import export
    from experiments.exporting.metadata import curve_of

    run = open_run(arguments.run)
    experiment = replace(read(run, arguments.code).experiment, device="cpu")
    trainer = restored(experiment, run, run.checkpoint(arguments.checkpoint), to_train=False)
    name = f"{experiment.family.name}_{experiment.agent_name}_s{experiment.seed}"
    out = Path("exported") / name if arguments.out is None else arguments.out
    parts = export(trainer, out, opset=arguments.opset, curve=curve_of(run))
    for part in parts:
        print(f"ONNX:     {part.onnx} ({part.onnx.stat().st_size / 1e3:,.0f} kB)")
        print(f"Program:  {part.program} (torch.export)")
        print(f"Metadata: {part.metadata}")
        print(f"Parity:   {part.parity}")
    if hasattr(experiment.family, "make_env"):
        print(f"Try:      {shell_command('metarl', 'evaluate', arguments.run, '--through', parts[0].onnx)}")

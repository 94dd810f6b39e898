"""What a name or a path of a run stands for: a directory, an archive, or one of the trained agents of MetaRL."""

from __future__ import annotations

from pathlib import Path

from experiments.experiment.names import trained_agents
from metarl.errors import UserError
from metarl.run.archive import PackedRun
from metarl.run.directory import Run


def open_run(where: str | Path) -> Run:
    """The run in a directory or an archive; or else the trained agent of this name that comes with MetaRL.

    Raises:
        UserError: when there is none; names the trained agents.
    """
    trained = trained_agents()
    name = str(where)
    if Path(where).exists() or not (name in trained or name.count("/") == 1):
        return Run.open(where)
    if name not in trained:
        raise UserError(
            f"there is no run at {where}: no such directory; trained agents that come with MetaRL: {', '.join(trained)}"
        )
    return PackedRun(trained[name], name)

"""The `metarl` command: finds the subcommand's module and turns every user error into one line."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import NoReturn

from experiments.cli.encoding import show_in_any_encoding
from experiments.experiment.names import describe, in_columns, known
from metarl._packages import require_own_packages
from metarl.errors import UserError

# The modules of commands/.
COMMANDS = (
    "list",
    "train",
    "launch",
    "sweep",
    "resume",
    "evaluate",
    "probe",
    "diagnose",
    "portfolio",
    "compare",
    "report",
    "play",
    "pack",
    "new",
    "check",
    "export",
    "histories",
    "baselines",
    "benchmark",
    "doctor",
    "setup",
)

_NEED_TORCH = (
    "train",
    "resume",
    "evaluate",
    "probe",
    "diagnose",
    "play",
    "pack",
    "export",
    "histories",
)  # loading it takes most of the time until they start


def main(argv: list[str] | None = None) -> None:
    """Run one command line and exit with its status: 0, 2 after a user error, 128 + n after signal n."""
    argv = sys.argv[1:] if argv is None else argv
    show_in_any_encoding()
    # Before torch is imported: our tensors are small, and OpenMP threads that spin while they wait for one another take
    # the processor from the physics and from other runs; at two threads on a busy machine that costs a factor of three.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        require_own_packages()
    except ImportError as error:
        _fail(error)
    try:
        status = _run(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        sys.exit(status)
    except UserError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("metarl: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output, such as `head`, has left
        _discard_output()
        sys.exit(141)
    except OSError as error:  # of a full disk that our output goes to, or a terminal that has gone
        _discard_output()
        _fail(error)


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"metarl {version('metarl')}")
        return 0
    command = known("command", argv[0], COMMANDS)
    if command in _NEED_TORCH and len(argv) > 1:
        _load_torch()
    return importlib.import_module(f"experiments.cli.commands.{command}").main(argv[1:]) or 0


def _load_torch() -> None:
    """Import torch; say so meanwhile on a terminal, in a line that is gone afterwards."""
    if not sys.stderr or not sys.stderr.isatty():
        return
    print("Loading PyTorch ...", end="", file=sys.stderr, flush=True)
    importlib.import_module("torch")
    print("\r" + " " * 19 + "\r", end="", file=sys.stderr, flush=True)


def _help() -> str:
    lines = in_columns({name: describe(f"experiments.cli.commands.{name}") for name in COMMANDS})
    return "\n".join(
        [
            "usage: metarl COMMAND [ARGUMENTS]",
            "",
            "Meta-reinforcement learning: train agents that learn to learn, and see them adapt.",
            "",
            *lines,
            "",
            "Try: metarl train grid_navi/rl2. More on a command: metarl COMMAND --help",
        ]
    )


def _discard_output() -> None:
    """What is left of our output goes nowhere, or the last flush would complain of it again."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: Exception) -> NoReturn:
    message = " ".join(str(error).split())
    with contextlib.suppress(OSError):  # of a full disk that our errors go to
        if message:
            print(f"metarl: {message}", file=sys.stderr)
    sys.exit(getattr(error, "exit_status", 2))

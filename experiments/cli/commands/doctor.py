"""Check this installation: versions, devices, rendering, the speed of the simulator, and Meta-World's interpreter."""

from __future__ import annotations

import importlib
import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from experiments.cli.arguments import parse
from metarl.errors import UserError

_NUM_ROWS = 256


@dataclass(frozen=True)
class Arguments:
    """No arguments."""


def main(argv: list[str]) -> int:
    parse(Arguments, argv, prog="metarl doctor", description=__doc__ or "")
    problems = 0
    checks = {
        "versions": _versions,
        "devices": _devices,
        "rendering": _rendering,
        "speed": _speed,
        "metaworld": _metaworld,
    }
    for name, check in checks.items():
        try:
            answer = check()
        except Exception as error:  # whatever is broken is what the doctor is asked for
            answer, problems = f"FAILED: {type(error).__name__}: {error}", problems + 1
        for index, line in enumerate(answer.splitlines()):
            print(f"{name if index == 0 else '':<12}{line}", flush=True)
    print("All is well." if not problems else f"{problems} of these failed.")
    return 1 if problems else 0


def _versions() -> str:
    from metarl.run.provenance import versions

    found = {"python": platform.python_version(), **versions()}
    missing = [name for name, version in found.items() if version is None]
    if missing:
        raise RuntimeError(f"not installed: {', '.join(missing)}")
    return "\n".join(f"{name} {version}" for name, version in found.items())


def _devices() -> str:
    import torch

    cpu = f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} torch threads"
    gpus = [f"cuda:{index}: {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    return "\n".join([cpu, *(gpus or ["cuda: none that torch can use"]), f"simulating on a GPU: {_gpu_engine()}"])


def _gpu_engine() -> str:
    """The optional package that simulates there; its absence is no fault."""
    try:
        return f"mujoco-warp {version('mujoco-warp')}, warp-lang {version('warp-lang')}"
    except PackageNotFoundError:
        return "mujoco-warp is not installed; it comes with pip install 'metarl[gpu]'"


def _rendering() -> str:
    importlib.import_module("envs.simulators")  # chooses how MuJoCo renders, before MuJoCo is imported
    mujoco: Any = importlib.import_module("mujoco")
    backend = os.environ.get("MUJOCO_GL", "MuJoCo's default")
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    data = mujoco.MjData(model)
    try:
        with mujoco.Renderer(model, 32, 32) as renderer:
            renderer.update_scene(data)
            pixels = renderer.render()
    except Exception as error:  # each backend raises its own kind; training needs none of them
        return f"{backend}: images cannot be rendered ({_first_line(error)}); training does not need them"
    return f"{backend}: a {pixels.shape[1]}x{pixels.shape[0]} image was rendered"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _speed() -> str:
    import torch

    from envs.catalog import make

    generator = torch.Generator().manual_seed(0)
    family = make("half_cheetah_vel")
    env = family.make_env(_NUM_ROWS, generator)
    env.reset(family.sample(_NUM_ROWS, "train", generator))
    size = env.action_space.shape or ()
    action = torch.rand(_NUM_ROWS, *size, generator=generator) * 2 - 1
    env.step(action)
    steps, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < 1:
        env.step(action)
        steps += _NUM_ROWS
    return f"half_cheetah_vel: {steps / seconds:,.0f} env-steps/s in {_NUM_ROWS} rows, constant actions, no policy"


def _metaworld() -> str:
    """The interpreter that runs Meta-World; its absence is no fault, but one that does not work is."""
    from envs.external.metaworld.interpreter import find_python
    from envs.external.metaworld.process import MetaworldProcess

    try:
        python = find_python()
    except UserError as error:
        return str(error)
    process = MetaworldProcess(python)
    process.stop()
    packages = ", ".join(f"{name} {process.versions[name]}" for name in ("metaworld", "mujoco", "python"))
    return f"{packages} in {python}"

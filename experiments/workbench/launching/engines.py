"""What executes runs: processes of this machine, Slurm through submitit, or Ray.

All of them execute the same `worker.train` on the same run directories.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

from experiments.workbench.launching import worker
from experiments.workbench.launching.standing import OUTPUT
from metarl.errors import UserError
from metarl.run.files import open_to_append, reason

EngineName = Literal["local", "slurm", "ray"]
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # variables that pin a process's threads
_PACKAGES = Path(__file__).resolve().parents[3]  # the folder that holds our packages
_DAY = 24 * 60  # minutes
_TRIES = 1000  # how often Slurm may stop a run at its time limit before the run counts as failed
_RETRIES = 3  # of a run whose Ray worker was killed


class Task(Protocol):
    """A run that was given to an engine."""

    def poll(self) -> int | None:
        """The exit status once it has ended; negative for the signal that ended it."""
        ...

    def stop(self) -> None:
        """Ask it to save and stop."""
        ...

    def kill(self) -> None:
        """End it now, without saving."""
        ...

    @property
    def failure(self) -> str | None:
        """What the engine itself has to say of its end."""
        ...


class Engine(Protocol):
    """Starts runs, each in a process of its own."""

    def start(self, run: Path) -> Task: ...

    def close(self) -> None: ...


class LocalEngine:
    """Processes of this machine."""

    def __init__(self, threads: int, gpus: int = 0, program: str = worker.__name__) -> None:
        """threads: of each process. gpus: to take in turns; 0: as they are. program: the module that trains a run."""
        self._threads, self._gpus, self._program = threads, gpus, program
        self._tasks: list[_Process] = []

    def start(self, run: Path) -> Task:
        path = os.pathsep.join(filter(None, [str(_PACKAGES), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(self._threads)), "PYTHONPATH": path}
        self._tasks = [task for task in self._tasks if task.poll() is None]
        gpu = None
        if self._gpus:
            gpu = min(range(self._gpus), key=[task.gpu for task in self._tasks].count)
            environment["CUDA_VISIBLE_DEVICES"] = _visible_gpus(self._gpus)[gpu]
        words = [sys.executable, "-P", "-m", self._program, str(run)]
        with _output_of(run) as output:
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the launcher, which stops its runs itself
            )
        task = _Process(process, gpu)
        self._tasks.append(task)
        return task

    def close(self) -> None:
        pass


def _output_of(run: Path) -> BinaryIO:
    """The file of what a run prints.

    Raises:
        UserError: when it cannot be written, or is a symbolic link, which may lead anywhere.
    """
    try:
        return os.fdopen(open_to_append(run / OUTPUT), "ab")
    except OSError as error:
        what = "must be a file of the run's own" if (run / OUTPUT).is_symlink() else reason(error)
        raise UserError(f"cannot write {run / OUTPUT}: {what}") from error


class _Process:
    failure = None

    def __init__(self, process: subprocess.Popen[bytes], gpu: int | None) -> None:
        self._process, self.gpu = process, gpu

    def poll(self) -> int | None:
        status = self._process.poll()
        if status is not None and self._process.stdin is not None:
            self._process.stdin.close()
        return status

    def stop(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class SlurmEngine:
    """Jobs of a Slurm cluster; partition, account and the like come from sbatch's own variables: SBATCH_PARTITION..."""

    def __init__(self, threads: int, gpus: int = 0, cluster: str = "slurm") -> None:
        """
        Raises:
            UserError: when submitit is not installed, or there is no Slurm.
        """
        self._submitit = _extra("submitit", "slurm")
        if cluster == "slurm" and shutil.which("srun") is None:
            raise UserError("--executor slurm finds no Slurm on this machine: there is no srun")
        self._cluster, self._threads, self._gpus = cluster, threads, min(gpus, 1)

    def start(self, run: Path) -> Task:
        folder = run / "submitit"
        job = self._submitted_before(folder)
        if job is None:
            try:
                executor = self._submitit.AutoExecutor(folder, self._cluster, slurm_max_num_timeout=_TRIES)
                executor.update_parameters(
                    name="metarl",
                    cpus_per_task=self._threads,
                    gpus_per_node=self._gpus or None,
                    timeout_min=_DAY,
                    slurm_setup=[f"export {name}={self._threads}" for name in _THREADS],
                )
                job = executor.submit(
                    worker.Training(), str(run.resolve()), str(Path.cwd()), str(run.resolve() / OUTPUT)
                )
            except (RuntimeError, OSError, self._submitit.core.utils.FailedJobError) as error:
                raise UserError(f"slurm does not take the run: {_last_line(error)}") from error
        return _SlurmJob(job)

    def _submitted_before(self, folder: Path) -> Any:
        """The job of an earlier launch that is still waiting or running; None where there is none."""
        for file in folder.glob("*_submitted.pkl"):
            job = self._submitit.SlurmJob(folder, file.name.removesuffix("_submitted.pkl"))
            if not job.done(force_check=True):
                return job
        return None

    def close(self) -> None:
        pass


class _SlurmJob:
    failure: str | None = None

    def __init__(self, job: Any) -> None:
        self._job = job

    def poll(self) -> int | None:
        if not self._job.done():
            return None
        try:
            return self._job.result()
        except Exception as error:  # whatever ended the job, and whatever it raised
            self.failure = _last_line(error)
            return 1

    def stop(self) -> None:
        self._job.cancel(check=False)

    kill = stop


class RayEngine:
    """Tasks of a Ray cluster: the one that RAY_ADDRESS names, or a new one on this machine."""

    def __init__(self, threads: int, gpus: int = 0) -> None:
        """
        Raises:
            UserError: when Ray is not installed, or there is no cluster to be had.
        """
        self._ray = _extra("ray", "ray")
        try:
            self._ray.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR")
        except (RuntimeError, ConnectionError, OSError) as error:
            raise UserError(f"ray does not start: {_last_line(error)}") from error
        cpus = self._ray.cluster_resources().get("CPU", 0)
        if threads > cpus:
            raise UserError(f"--threads-per-run is {threads}; the Ray cluster has {cpus:g} processors")
        # Ray pins the threads of a task to its num_cpus; with max_calls each task has a process of its own.
        options = {"num_cpus": threads, "num_gpus": min(gpus, 1), "max_calls": 1, "max_retries": _RETRIES}
        self._train = self._ray.remote(**options)(worker.train)

    def start(self, run: Path) -> Task:
        run = run.resolve()
        return _RayTask(self._ray, self._train.remote(str(run), str(Path.cwd()), str(run / OUTPUT)))

    def close(self) -> None:
        self._ray.shutdown()


class _RayTask:
    failure: str | None = None

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def poll(self) -> int | None:
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return self._ray.get(self._reference)
        except self._ray.exceptions.RayError as error:
            self.failure = _last_line(error)
            return 1

    def stop(self) -> None:
        self._ray.cancel(self._reference)

    def kill(self) -> None:
        self._ray.cancel(self._reference, force=True)


ENGINES: dict[str, type[LocalEngine | SlurmEngine | RayEngine]] = {
    "local": LocalEngine,
    "slurm": SlurmEngine,
    "ray": RayEngine,
}


def _extra(package: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"--executor {extra} needs {package}: pip install 'metarl[{extra}]' ({error})") from error


def _visible_gpus(number: int) -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(index) for index in range(number)]


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]

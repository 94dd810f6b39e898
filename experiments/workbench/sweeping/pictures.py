"""Pictures of a sweep, by Optuna: which fields matter, the score along each, and over pairs of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from optuna.trial import TrialState

from experiments.workbench.sweeping.study import Study
from metarl.errors import RunError
from metarl.run.files import reason

_FEWEST = 4  # finished trials that importance needs
_MOST_IN_CONTOUR = 3  # fields, the most important ones
_FEW_DECADES = 200.0  # from end to end of a logarithmic axis that has room for more numbers than the powers of ten
_TITLES = {
    "importance": "Importance of the fields (PED-ANOVA)",
    "slice": "Finished trials along each field",
    "contour": "Interpolation between finished trials",
}


def importance_of(study: Study) -> dict[str, float]:
    """How much of the score each field explains, the most important first, by PED-ANOVA; empty for too few trials.

    Watanabe, Bansal, Hutter. PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary subspaces
    (2023). Fields that only some of the trials have are left out, as are those of one value.
    """
    finished = study.trials(TrialState.COMPLETE)
    if len(finished) < _FEWEST:
        return {}
    shared = set.intersection(*(set(trial.params) for trial in finished))
    varied = sorted(name for name in shared if len({trial.params[name] for trial in finished}) > 1)
    if not varied:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Optuna calls experimental
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return dict(optuna.importance.get_param_importances(study.optuna, evaluator=evaluator, params=varied))


def draw_sweep(study: Study, importance: dict[str, float], value: str) -> list[Path]:
    """Draw the importance of fields, slices along each and contours over the most important ones; returns the files.

    importance: as of `importance_of`. value: what the objective is called.

    Raises:
        RunError: when the disk refuses them.
    """
    names = list(importance)
    drawn: list[Path] = []
    for kind in ("importance", "slice", "contour"):
        if not names or (kind == "contour" and len(names) < 2):
            continue
        path = study.folder / f"{kind}.png"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Optuna calls experimental, and of layouts
            figure = _figure(kind, study.optuna, names, value)
            try:
                figure.savefig(path, dpi=120, bbox_inches="tight")
            except OSError as error:
                raise RunError(f"cannot write {path}: {reason(error)}") from error
            finally:
                pyplot.close(figure)
        drawn.append(path)
    return drawn


def _figure(kind: str, study: optuna.Study, names: list[str], value: str) -> Any:
    from optuna.visualization import matplotlib as plots

    if kind == "importance":
        axes = plots.plot_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), params=names, target_name=value
        )
        size = (7.0, 1.5 + 0.5 * len(names))
    elif kind == "slice":
        axes = plots.plot_slice(study, params=names, target_name=value)
        size = (1.0 + 3.5 * len(names), 4.0)
    else:
        axes = plots.plot_contour(study, params=names[:_MOST_IN_CONTOUR], target_name=value)
        size = (8.0, 6.0) if len(names) == 2 else (13.0, 11.0)
    panels = [axes] if isinstance(axes, Axes) else list(axes.flat)
    for each in panels:
        for axis, (low, high) in ((each.xaxis, each.get_xlim()), (each.yaxis, each.get_ylim())):
            if axis.get_scale() == "log":
                axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low <= _FEW_DECADES else (1,)))
                axis.set_major_formatter(FormatStrFormatter("%g"))
                axis.set_minor_formatter(NullFormatter())
    figure: Any = panels[0].figure
    figure.set_size_inches(*size)
    if len(panels) > 1:
        figure.suptitle(_TITLES[kind], y=0.97 if kind == "slice" else 0.92)
    else:
        panels[0].set_title(_TITLES[kind])
    return figure

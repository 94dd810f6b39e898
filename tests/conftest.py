"""Settings of the whole suite."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# The tensors of the tests are tiny: a second thread only waits, and on a busy machine it waits long.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _a_signing_key_of_the_tests_own(tmp_path_factory: pytest.TempPathFactory):
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture(autouse=True, scope="session")
def _pngs_are_drawn_once_and_small():
    """Without their layout and a first pass that draws nothing: figures took half of a short training's time."""
    savefig = Figure.savefig

    def draw(self: Figure, to: Any, **settings: Any) -> None:
        if settings.get("format") != "png":
            savefig(self, to, **settings)
            return
        self.set_layout_engine("none")
        self.set_dpi(40)
        FigureCanvasAgg(self).print_png(to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", draw)
        yield


STAND_IN = Path(__file__).parent / "envs" / "external" / "stand_in"


@pytest.fixture(autouse=True, scope="session")
def _an_interpreter_with_a_stand_in_for_metaworld(tmp_path_factory: pytest.TempPathFactory):
    """An "interpreter" that is this one, with the stand-in on its path."""
    python = tmp_path_factory.mktemp("metaworld") / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{STAND_IN}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    os.environ["METARL_METAWORLD_PYTHON"] = str(python)

"""Running exported files: ONNX through onnxruntime on one thread, and torch.export programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.exporting.graphs import METADATA, imported_for_export
from metarl.errors import UserError


class OnnxFile:
    """A graph in an ONNX file.

    Raises:
        UserError: when it cannot be read, or was not exported from here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        runtime = imported_for_export("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        try:
            self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # whatever onnxruntime raises
            raise UserError(f"{path} cannot be read as ONNX: {' '.join(str(error).split())}") from error
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA)
        if text is None:
            raise UserError(f"{path} has no metadata of MetaRL; must be a file that metarl export has written")
        self.metadata: dict[str, Any] = json.loads(text)
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name."""
        found = self.session.run(self.outputs, {name: value.numpy() for name, value in inputs.items()})
        return {name: torch.from_numpy(value) for name, value in zip(self.outputs, found, strict=True)}


class ProgramFile:
    """A graph in a torch.export file, whose outputs have these names."""

    def __init__(self, path: Path, outputs: tuple[str, ...]) -> None:
        self.module, self.outputs = torch.export.load(path).module(), outputs

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name."""
        with torch.no_grad():
            return dict(zip(self.outputs, self.module(*inputs.values()), strict=True))

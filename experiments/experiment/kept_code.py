"""Importing the copies of a user's modules that a run keeps, and nothing else that lies in their folders."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

from metarl._packages import OUR_PACKAGES
from metarl.run.kept_files import KeptRecord


class KeptModules(MetaPathFinder):
    """Finds the modules of one record by their names; the first in `sys.meta_path` while they are imported."""

    def __init__(self, kept: KeptRecord) -> None:
        """Read and check all copies.

        Raises:
            RunError: when a copy is missing, or does not match its hash.
        """
        files = {file.module: file for file in kept.record.files if file.module is not None}
        self._loaders = {name: _Loader(kept.content_of(file), kept.copy_of(file)) for name, file in files.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._loaders)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of a kept module, or of a package of such modules that has no file of its own."""
        loader = self._loaders.get(fullname)
        if loader is not None:
            spec = ModuleSpec(fullname, loader, origin=str(loader.path), is_package=loader.is_package(fullname))
            spec.has_location = True  # its __file__, by which recipes find their other files
            return spec
        is_parent = any(name.startswith(f"{fullname}.") for name in self._loaders)
        if is_parent and fullname.split(".")[0] not in OUR_PACKAGES:
            return ModuleSpec(fullname, None, is_package=True)
        return None


class _Loader(InspectLoader):
    """Makes a module from content that was checked, never from a compiled file that lies near it."""

    def __init__(self, content: bytes, path: Path) -> None:
        self._content, self.path = content, path.resolve()

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self._content)

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._content, str(self.path), "exec", dont_inherit=True)

    def is_package(self, fullname: str) -> bool:
        return self.path.name == "__init__.py"

"""The files of a robot: its MJCF or URDF file, what this includes, and meshes, textures and height fields."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from envs.simulators.urdf import is_urdf, meshes_of

_FOLDERS = ("meshdir", "texturedir", "assetdir")  # attributes of <compiler>


def files_of(mjcf: Path) -> tuple[Path, ...]:
    """Those of the files that an MJCF or URDF file names which exist, itself first, as absolute paths."""
    mjcf = mjcf.absolute()
    if is_urdf(mjcf):
        try:
            return tuple(dict.fromkeys([mjcf, *meshes_of(mjcf)]))
        except (OSError, ValueError):
            return (mjcf,)  # whoever loads it says what is wrong with it
    trees = _with_includes(mjcf)
    asset_folders = {
        element.get(name, "") for tree in trees.values() for element in tree.iter("compiler") for name in _FOLDERS
    }
    homes = [home / folder for home in dict.fromkeys(path.parent for path in trees) for folder in ("", *asset_folders)]
    found = dict.fromkeys([mjcf, *trees])
    for name in dict.fromkeys(name for tree in trees.values() for name in _file_names(tree)):
        found |= dict.fromkeys(home / name for home in homes if (home / name).is_file())
    return tuple(found)


def _with_includes(mjcf: Path) -> dict[Path, ElementTree.Element]:
    """The parsed files: this one, those that it includes or attaches, and so on; found from its folder or their own."""
    trees: dict[Path, ElementTree.Element] = {}
    waiting = [mjcf]
    while waiting:
        path = waiting.pop()
        try:
            trees[path] = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError, ValueError, LookupError):
            continue  # of another format, such as a binary model
        for element in (*trees[path].iter("include"), *trees[path].iter("model")):
            for folder in (mjcf.parent, path.parent):
                file = folder / element.get("file", "")
                if file.is_file() and file not in trees:
                    waiting.append(file)
    return trees


def _file_names(tree: ElementTree.Element) -> Iterator[str]:
    """The values of all attributes that name a file, such as file and fileright."""
    for element in tree.iter():
        for attribute, value in element.attrib.items():
            if attribute.startswith("file") and value:
                yield value

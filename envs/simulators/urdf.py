"""URDF files, with or without MuJoCo's own element, as text that MuJoCo's compiler reads wherever its meshes lie.

MuJoCo takes the robot's tree, inertias, limits and shapes from a URDF file. It does not look for the packages that
meshes are named by ("package://robot/meshes/arm.stl"), and reads meshes as STL, OBJ and MSH only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

_READABLE = (".stl", ".obj", ".msh")  # mesh files that MuJoCo reads
_XACRO = "http://www.ros.org/wiki/xacro"


def is_urdf(path: Path) -> bool:
    """Whether a file is a robot's description in URDF."""
    if path.suffix == ".urdf":
        return True
    try:
        return next(ElementTree.iterparse(path, events=["start"]))[1].tag == "robot"
    except (OSError, ElementTree.ParseError, StopIteration, ValueError, LookupError):
        return False


def readable_urdf(path: Path) -> str:
    """The text of a URDF file with its meshes as absolute paths, without visual meshes that MuJoCo cannot read.

    Raises:
        ValueError: for a file that cannot be parsed, a xacro file, or a collision mesh that is not there or of another
            format.
    """
    robot = _parsed(path)
    for link in robot.iter("link"):
        for kind in ("visual", "collision"):
            for shape in link.findall(kind):
                problem = _with_file(shape, robot, path)
                if problem and kind == "collision":
                    raise ValueError(f"the collision mesh of link {link.get('name')!r} {problem}")
                if problem:
                    link.remove(shape)
    extension = robot.find("mujoco")
    extension = ElementTree.SubElement(robot, "mujoco") if extension is None else extension
    compiler = extension.find("compiler")
    compiler = ElementTree.SubElement(extension, "compiler") if compiler is None else compiler
    compiler.set("strippath", "false")
    return ElementTree.tostring(robot, encoding="unicode")


def meshes_of(path: Path) -> Iterator[Path]:
    """The mesh files that a URDF file names and that MuJoCo reads, as absolute paths."""
    robot = _parsed(path)
    for mesh in robot.iter("mesh"):
        file = _found(mesh.get("filename", ""), robot, path)
        if file is not None:
            yield file


def _parsed(path: Path) -> Element:
    try:
        robot = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"not a URDF file: {error}") from error
    if path.suffix == ".xacro" or any(element.tag.startswith(f"{{{_XACRO}}}") for element in robot.iter()):
        raise ValueError("a xacro file; must be URDF: expand it first, with the command xacro")
    if robot.tag != "robot":
        raise ValueError(f"its root is <{robot.tag}>; must be <robot>, as in URDF")
    return robot


def _with_file(shape: Element, robot: Element, path: Path) -> str:
    """Name the file of a shape's mesh as an absolute path; what is wrong with it, or "" if nothing is."""
    for mesh in shape.iter("mesh"):
        name = mesh.get("filename", "")
        file = _found(name, robot, path)
        if file is None:
            is_readable = Path(name).suffix.lower() in _READABLE
            return f"is {name!r}; {'there is no such file' if is_readable else 'must be STL, OBJ or MSH'}"
        mesh.set("filename", str(file))
    return ""


def _found(name: str, robot: Element, path: Path) -> Path | None:
    """The file that a mesh's name means, or one beside it of another format that MuJoCo reads; None: there is none."""
    folders = [element.get("meshdir", "") for element in robot.iter("compiler")]
    for candidate in _candidates(name, path.absolute(), folders):
        if candidate.suffix.lower() in _READABLE and candidate.is_file():
            return candidate
        for suffix in _READABLE:
            if candidate.with_suffix(suffix).is_file():
                return candidate.with_suffix(suffix)
    return None


def _candidates(name: str, path: Path, folders: list[str]) -> Iterator[Path]:
    """Where a mesh may lie: from the file's folder and its mesh folders, or from a package around it."""
    scheme, separator, rest = name.partition("://")
    if not separator or scheme == "file":
        name = rest or name
        for folder in (path.parent, *(path.parent / folder for folder in folders)):
            yield folder / name
            yield folder / Path(name).name
        return
    package, _, inside = rest.partition("/")
    for parent in path.parents:
        yield parent / package / inside
        yield parent / inside

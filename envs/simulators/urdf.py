"""URDF files, with or without MuJoCo's own element, as text that MuJoCo's compiler reads wherever its meshes lie.

MuJoCo takes the robot's tree, inertias, limits and shapes from a URDF file. It does not look for the packages that
meshes are named by ("package://robot/meshes/arm.stl"), reads them as binary STL, OBJ and MSH only, and refuses
inertias that no body can have, of which many files have some.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from envs.simulators.inertias import possible_inertia
from envs.simulators.mesh_files import COLLADA, READABLE, converted, converts_collada

logger = logging.getLogger(__name__)

_LEAST_MASS, _LEAST_INERTIA = "1e-4", "1e-7"  # of links that move, kg and kg m²; files have links without any
_INERTIA = {"ixx": (0, 0), "iyy": (1, 1), "izz": (2, 2), "ixy": (0, 1), "ixz": (0, 2), "iyz": (1, 2)}
_XACRO = "http://www.ros.org/wiki/xacro"


def is_urdf(path: Path) -> bool:
    """Whether a file is a robot's description in URDF."""
    if path.suffix == ".urdf":
        return True
    try:
        return next(ElementTree.iterparse(path, events=["start"]))[1].tag == "robot"
    except (OSError, ElementTree.ParseError, StopIteration, ValueError, LookupError):
        return False


def readable_urdf(path: Path) -> tuple[str, dict[str, bytes]]:
    """The text of a URDF file as MuJoCo reads it, and the content of meshes that are not read from their files.

    Meshes are named by absolute paths. Visual meshes that MuJoCo cannot read are left out, and impossible inertias are
    replaced by the nearest possible ones, with a warning. Links that are only there to join others have a least mass.
    Position servos need an integrator that takes their damping implicitly. What a file itself says about the least mass
    and the integrator stands.

    Raises:
        ValueError: for a file that cannot be parsed, a xacro file, or a collision mesh that is not there or of another
            format.
    """
    robot, meshes = _parsed(path), dict[str, bytes]()
    _make_inertias_possible(robot, path)
    extension = _element(robot, "mujoco")
    compiler, option = _element(extension, "compiler"), _element(extension, "option")
    shows = compiler.get("discardvisual") == "false"
    for link in robot.iter("link"):
        if not shows and link.find("inertial") is not None:  # MuJoCo would read the visual shapes only to discard them
            for shape in link.findall("visual"):
                link.remove(shape)
        for kind in ("visual", "collision"):
            for shape in link.findall(kind):
                problem = _with_file(shape, robot, path, meshes)
                if problem and kind == "collision":
                    raise ValueError(f"the collision mesh of link {link.get('name')!r} {problem}")
                if problem:
                    link.remove(shape)
    compiler.set("strippath", "false")
    for element, name, value in (
        (compiler, "boundmass", _LEAST_MASS),
        (compiler, "boundinertia", _LEAST_INERTIA),
        (option, "integrator", "implicitfast"),
    ):
        element.set(name, element.get(name, value))
    return ElementTree.tostring(robot, encoding="unicode"), meshes


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


def _element(parent: Element, name: str) -> Element:
    """A part of an element, which is made if there is none."""
    found = parent.find(name)
    return ElementTree.SubElement(parent, name) if found is None else found


def _make_inertias_possible(robot: Element, path: Path) -> None:
    """Replace the inertias that no body can have, and warn of that."""
    replaced = []
    for link in robot.iter("link"):
        for element in link.iterfind("inertial/inertia"):
            inertia = np.zeros((3, 3))
            for name, (row, column) in _INERTIA.items():
                inertia[row, column] = inertia[column, row] = float(element.get(name, 0))
            try:
                possible = possible_inertia(inertia)
            except ValueError:
                continue  # MuJoCo says so, if the link moves
            if possible is not None:
                replaced.append(repr(link.get("name")))
                for name, place in _INERTIA.items():
                    element.set(name, repr(float(possible[place])))
    if replaced:
        _warn(f"{path.name}: no body has the inertias of {', '.join(replaced)}; the nearest possible ones are taken")


@cache
def _warn(text: str) -> None:
    """Warn once; a file is read again whenever a family is made."""
    logger.warning(text)


def _with_file(shape: Element, robot: Element, path: Path, meshes: dict[str, bytes]) -> str:
    """Name the file of a shape's mesh as an absolute path; what is wrong with it, or "" if nothing is.

    The content of a file that MuJoCo does not read as it is is put into `meshes`, by that path.
    """
    for mesh in shape.iter("mesh"):
        name = mesh.get("filename", "")
        file = _found(name, robot, path)
        if file is None:
            suffix = Path(name).suffix.lower()
            if suffix == COLLADA and not converts_collada():
                return f"is {name!r}; must be STL, OBJ or MSH, or install metarl[collada]"
            return f"is {name!r}; {'there is no such file' if suffix in _readable() else 'must be STL, OBJ or MSH'}"
        content = converted(file)
        read = file if content is None else file.with_suffix(".stl")
        mesh.set("filename", str(read))
        if content is not None:
            meshes[str(read)] = content
    return ""


def _found(name: str, robot: Element, path: Path) -> Path | None:
    """The file that a mesh's name means, or one beside it of another format that MuJoCo reads; None: there is none."""
    folders = [element.get("meshdir", "") for element in robot.iter("compiler")]
    for candidate in _candidates(name, path.absolute(), folders):
        if candidate.suffix.lower() in READABLE and candidate.is_file():
            return candidate
        for suffix in _readable():
            if candidate.with_suffix(suffix).is_file():
                return candidate.with_suffix(suffix)
        if candidate.suffix.lower() in _readable() and candidate.is_file():  # .DAE
            return candidate
    return None


def _readable() -> tuple[str, ...]:
    """The formats of meshes that can be read here, the best first."""
    return (*READABLE, COLLADA) if converts_collada() else READABLE


def _candidates(name: str, path: Path, folders: list[str]) -> Iterator[Path]:
    """Where a mesh may lie: seen from the file's folder and its mesh folders, or from a package around it."""
    scheme, separator, rest = name.partition("://")
    if not separator or scheme == "file":
        name = rest or name
        for folder in (path.parent, *(path.parent / folder for folder in folders)):
            yield folder / name
            yield folder / Path(name).name
        return
    parts = rest.split("/")  # the package, and the way from its folder
    for start in range(len(parts)):  # what is copied from a package has only the end of that way
        for parent in path.parents:
            yield parent.joinpath(*parts[start:])

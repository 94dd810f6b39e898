"""The files of a robot are found wherever MuJoCo finds them."""

from pathlib import Path

import pytest

from envs.simulators.mjcf_files import files_of

INCLUDED = "<mujoco><asset>{asset}</asset></mujoco>"
CASES = {  # by what they show: the elements of robot.xml, and the files that are to be found
    "nothing else": ("", []),
    "a mesh beside it": ('<asset><mesh file="a.stl"/></asset>', ["a.stl"]),
    "a mesh in the mesh folder": ('<compiler meshdir="m"/><asset><mesh file="a.stl"/></asset>', ["m/a.stl"]),
    "a texture in the folder of assets": (
        '<compiler assetdir="t"/><asset><texture file="a.png"/></asset>',
        ["t/a.png"],
    ),
    "the sides of a cube": ('<asset><texture fileright="r.png" fileleft="l.png"/></asset>', ["r.png", "l.png"]),
    "a height field": ('<asset><hfield file="h.png"/></asset>', ["h.png"]),
    "an attached model": ('<asset><model file="arm/arm.xml"/></asset>', ["arm/arm.xml", "arm/hand.obj"]),
    "an included file": ('<include file="parts/one.xml"/>', ["parts/one.xml", "parts/two.xml", "two.stl"]),
    "a circle of included files": ('<include file="circle.xml"/>', ["circle.xml"]),
    "a file that is not there": ('<asset><mesh file="absent.stl"/></asset>', []),
}
OTHERS = {
    "arm/arm.xml": INCLUDED.format(asset='<mesh file="hand.obj"/>'),
    "parts/one.xml": '<mujoco><include file="two.xml"/></mujoco>',
    "parts/two.xml": INCLUDED.format(asset='<mesh file="two.stl"/>'),
    "circle.xml": '<mujoco><include file="robot.xml"/><include file="circle.xml"/></mujoco>',
}


@pytest.mark.parametrize("case", CASES)
def test_files_are_found(tmp_path: Path, case: str):
    elements, expected = CASES[case]
    (tmp_path / "robot.xml").write_text(f"<mujoco>{elements}</mujoco>")
    for name in expected:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(OTHERS.get(name, ""))
    found = files_of(tmp_path / "robot.xml")
    assert found[0] == tmp_path / "robot.xml"
    assert {file.relative_to(tmp_path).as_posix() for file in found} == {"robot.xml", *expected}


@pytest.mark.parametrize("content", [b"", b"<mujoco", b"MJB\0\xff", b"<?xml version='1.0' encoding='none'?><a/>"])
def test_what_is_not_mjcf_is_alone(tmp_path: Path, content: bytes):
    (tmp_path / "robot.xml").write_bytes(content)
    assert files_of(tmp_path / "robot.xml") == (tmp_path / "robot.xml",)

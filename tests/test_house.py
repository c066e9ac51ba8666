"""How the package is laid out: the picture in CONTRIBUTING.md, and imports that point one way."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "gdtorch"
PICTURE = (ROOT / "CONTRIBUTING.md").read_text()
# In the order in which they may import one another.
ROOMS = re.findall(r"^ {6}(\w+)(?:\.py|/) ", PICTURE, re.MULTILINE)
FOLDERS_OF_LOCKSTEP = re.findall(r"^ {8}(\w+)/ ", PICTURE, re.MULTILINE)
APART = {"lockstep", "board", "questions", "ensemble"}


def imported(file: Path, within: Path = PACKAGE) -> set[str]:
    """The rooms that a file imports from, whenever it runs."""
    here = file.relative_to(within).parts
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == len(here):
            names = [node.module] if node.module else [name.name for name in node.names]
            rooms |= {name.partition(".")[0] for name in names}
    return rooms


@cache
def rooms() -> dict[str, set[str]]:
    """Room → the rooms that it imports from."""
    found: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in {"__init__", "__main__"}:
            found.setdefault(room, set()).update(imported(file))
    return found


def test_every_room_is_in_the_picture():
    assert set(ROOMS) == set(rooms())
    assert len(list(PACKAGE.glob("*.py"))) <= 14


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    allowed = set(ROOMS[: ROOMS.index(room)])
    if room in APART:
        allowed -= APART
    assert rooms()[room] <= allowed


def test_a_folder_is_entered_by_its_door():
    """What others may use of these, their `__init__.py` hands on."""
    for file in PACKAGE.rglob("*.py"):
        here = file.relative_to(PACKAGE).parts
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == len(here) and node.module:
                room, _, inner = node.module.partition(".")
                assert not (inner and room in {*APART, "optimizers"}), (file, inner)


def test_the_folders_of_lockstep_are_in_the_picture():
    inside = {
        file.name for file in (PACKAGE / "lockstep").iterdir() if (file / "__init__.py").exists()
    }
    assert set(FOLDERS_OF_LOCKSTEP) == inside


@pytest.mark.parametrize("folder", FOLDERS_OF_LOCKSTEP)
def test_imports_within_lockstep_point_one_way(folder):
    lockstep = PACKAGE / "lockstep"
    later = FOLDERS_OF_LOCKSTEP[FOLDERS_OF_LOCKSTEP.index(folder) + 1 :]
    for file in (lockstep / folder).glob("*.py"):
        assert not imported(file, lockstep) & {*later, "trajectory"}, file

"""lockstep where theirs is on another device than mine, as on a GPU; see `other_device`."""

import json
import subprocess
import sys

import pytest
from across_devices import CASES
from conftest import ROOT

QUICK = ["NumPy, no difference", "momentum", "other rows"]
ALONE = "dropout in both"  # whose report speaks of the two devices


def reports(names):
    """Name → the report with both on the CPU, and with theirs on another device."""
    command = [sys.executable, str(ROOT / "tests" / "across_devices.py"), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "names",
    [QUICK, pytest.param(sorted(CASES.keys() - {*QUICK, ALONE}), marks=pytest.mark.slow)],
    ids=["some", "more"],
)
def test_another_device_changes_no_report(names):
    for name, (here, there) in reports(names).items():
        assert here == there, name
        assert here[0].startswith("cause: ")


@pytest.mark.slow
def test_two_devices_draw_different_random_numbers():
    here, there = reports([ALONE])[ALONE]
    assert here[0] == there[0] == "cause: random numbers"
    assert "on cpu, theirs on elsewhere:0" in there[2]
    assert "on one device" in there[3]

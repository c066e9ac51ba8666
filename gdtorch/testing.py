"""lockstep in tests of your own: an assertion whose message is the report."""

from __future__ import annotations

__all__ = ["assert_lockstep"]

from collections.abc import Mapping

from .lockstep import Trajectory, lockstep


def assert_lockstep(
    mine: Trajectory,
    theirs: Trajectory,
    steps: int = 50,
    *,
    rows: int | None = None,
    rename: Mapping[str, str] | None = None,
    lr: float | None = None,
) -> None:
    """Assert that two programs take the same steps, but for rounding.

    The arguments are those of `gdtorch.lockstep`. docs/testing.md has examples.

    Raises:
        AssertionError: they do not; the message is the report, with the line to change.
        ValueError: the two cannot be compared at all.

    Example:
        >>> from gdtorch.testing import assert_lockstep
        >>> assert_lockstep([{"w": 2.0}, {"w": 1.2}], [{"w": 2.0}, {"w": 1.2}])
        >>> assert_lockstep([{"w": 2.0}, {"w": 2.8}], [{"w": 2.0}, {"w": 1.2}])
        Traceback (most recent call last):
            ...
        AssertionError: cause: sign
        ...
    """
    __tracebackhide__ = True  # pytest shows the caller's line and the report alone
    report = lockstep(mine, theirs, steps, rows=rows, rename=rename, lr=lr)
    if not report:
        raise AssertionError(str(report))

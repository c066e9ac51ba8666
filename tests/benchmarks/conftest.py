"""Benchmarks: ratios measured side by side in one run, printed as one table at its end."""

import statistics
import time

import pytest

ROWS = []
SECONDS = []


@pytest.fixture
def ratio():
    """Time two calls turn by turn; the ratio of their medians goes into the table."""

    def measure(what, mine, theirs, *, aim, rounds, calls=1):
        seconds = {mine: [], theirs: []}
        for call in (mine, theirs):
            call()  # what is done once only
        for _ in range(rounds):
            for call, measured in seconds.items():
                start = time.perf_counter()
                for _ in range(calls):
                    call()
                measured.append((time.perf_counter() - start) / calls)
        a, b = (statistics.median(measured) for measured in seconds.values())
        ROWS.append((what, a, b, a / b, aim))
        assert a / b <= aim, f"{what}: {a / b:.2f}, aim {aim:.2f}"

    return measure


@pytest.fixture
def within():
    """Time a call, the median of three; its seconds go into a table of their own."""

    def measure(what, call, *, aim):
        measured = []
        for _ in range(3):
            start = time.perf_counter()
            call()
            measured.append(time.perf_counter() - start)
        SECONDS.append((what, statistics.median(measured), aim))
        assert statistics.median(measured) <= aim, what

    return measure


def pytest_xdist_auto_num_workers():
    return 0  # what is timed has the machine to itself


def pytest_terminal_summary(terminalreporter):
    header = ("medians, mine : theirs", "mine", "theirs", "ratio", "aim")
    cells = [
        (what, f"{a * 1e6:.0f} µs", f"{b * 1e6:.0f} µs", f"{measured:.2f}", f"{aim:.2f}")
        for what, a, b, measured, aim in ROWS
    ]
    terminalreporter.write_line("")
    for what, *numbers in (header, *cells):
        terminalreporter.write_line(f"{what:66}" + "".join(f"{n:>12}" for n in numbers))
    for what, seconds, aim in SECONDS:
        terminalreporter.write_line(f"{what:66}{seconds:>10.2f} s{'aim':>12}{aim:>10.0f} s")

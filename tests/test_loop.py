"""The main loop: what it ticks, and what it does with signals."""

import signal

import pytest

from gdtorch import SGD, Board, Lockstep, SigmoidNet, load_table
from gdtorch.cli import Interrupts
from gdtorch.loop import run

NUMBERS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def test_each_step_is_ticked_once_and_the_initial_weights_are_none(tmp_path):
    table, net, ticks = load_table("post"), SigmoidNet().double(), []
    trainer = SGD(net, table.learned, lr=1.0)
    board = Board(tmp_path, net, [trainer], table, {"lr": 1.0}, steps=3)
    lockstep = Lockstep({"sgd": trainer}, reference="sgd")
    ending = run(lockstep, board, steps=3, tick=ticks.append)
    board.close()
    assert (ending.step, ending.status) == (3, 0)
    assert ticks == [1, 1, 1]


@pytest.fixture
def handlers():
    """Puts back the handlers that a test changes."""
    saved = [signal.getsignal(number) for number in NUMBERS]
    yield
    for number, handler in zip(NUMBERS, saved, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_once_deferred_the_first_signal_is_noted_and_the_handlers_return():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(number) for number in NUMBERS]
    interrupts = Interrupts()
    interrupts.defer()
    signal.raise_signal(signal.SIGINT)
    assert interrupts.received == signal.SIGINT
    interrupts.restore()
    assert [signal.getsignal(number) for number in NUMBERS] == before


@pytest.mark.usefixtures("handlers")
def test_the_second_signal_of_a_kind_is_final(monkeypatch):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ended = []
    monkeypatch.setattr("os._exit", ended.append)
    interrupts = Interrupts()
    interrupts.defer()
    signal.raise_signal(signal.SIGINT)
    assert not ended
    signal.raise_signal(signal.SIGINT)
    interrupts.restore()
    assert ended == [130]


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_was_ignored_stays_ignored():
    """As in a shell's background job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts = Interrupts()
    interrupts.defer()
    signal.raise_signal(signal.SIGINT)
    interrupts.restore()
    assert interrupts.received is None

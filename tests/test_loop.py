"""The main loop: what it ticks, and what it does with signals."""

import signal

import pytest

from gdtorch import SGD, Board, Lockstep, SigmoidNet, load_table
from gdtorch.loop import Interrupts, run


def test_each_step_is_ticked_once_and_the_initial_weights_are_none(tmp_path):
    table, net, ticks = load_table("post"), SigmoidNet().double(), []
    trainer = SGD(net, table.learned, lr=1.0)
    board = Board(tmp_path, net, [trainer], table, {"lr": 1.0}, steps=3)
    ending = run(Lockstep({"sgd": trainer}, reference="sgd"), board, steps=3, tick=ticks.append)
    board.close()
    assert (ending.step, ending.status) == (3, 0)
    assert ticks == [1, 1, 1]


@pytest.fixture
def handlers():
    """Puts back the handlers that a test changes."""
    numbers = signal.SIGINT, signal.SIGTERM
    saved = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, saved, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_the_first_signal_is_noted_the_second_is_final_and_the_handlers_return():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with Interrupts():
        pass
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_was_ignored_stays_ignored():
    """As in a shell's background job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
    assert interrupts.received is None

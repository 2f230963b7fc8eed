"""Ctrl-C and SIGTERM."""

import signal

import pytest

from pixeldit_core.training import interrupts
from pixeldit_core.training.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_to_stop_and_handlers_return(number):
    former = signal.getsignal(number)
    with Interrupts() as active:
        assert active.asked is None
        signal.raise_signal(number)
        assert active.asked == number
    assert signal.getsignal(number) is former


def test_a_second_interrupt_is_immediate_but_an_echo_of_the_first_is_not(monkeypatch):
    with Interrupts() as asked:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # as launchers do
        assert asked.asked == signal.SIGINT
        monkeypatch.setattr(interrupts, "_ONE_WISH", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

"""Ctrl-C and SIGTERM."""

import os
import signal

import pytest

from pixeldit_core.training.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_to_stop_and_handlers_return(number):
    former = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert interrupts.asked is None
        os.kill(os.getpid(), number)
        assert interrupts.asked == number
    assert signal.getsignal(number) is former


def test_a_second_interrupt_is_immediate():
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)

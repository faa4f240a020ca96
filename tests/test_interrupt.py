import os
import signal

import pytest

from training.interrupt import stop_on_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_the_run_to_stop_and_says_so(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with stop_on_interrupt() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
    assert "stopping at the end of this round; interrupt again to stop at once" in capfd.readouterr().err


def test_the_second_interrupt_stops_at_once() -> None:
    with stop_on_interrupt() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_as_before_when_the_run_ends() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    with stop_on_interrupt():
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before
    with pytest.raises(ValueError, match="broken"), stop_on_interrupt():
        raise ValueError("broken")
    assert [signal.getsignal(number) for number in numbers] == before

"""The flag by which a signal handler knows whether the work at hand can be stopped in good order."""

from __future__ import annotations

import threading

import pytest

from l2l.run.interrupts import interruptible, is_interruptible


def stop_inside() -> None:
    with interruptible():
        assert is_interruptible()
        raise KeyboardInterrupt


def test_blocks_nest_and_end_with_an_exception() -> None:
    assert not is_interruptible()
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            stop_inside()
        assert is_interruptible()
    assert not is_interruptible()


def test_other_threads_do_not_count() -> None:
    answers: list[bool] = []
    with interruptible():
        thread = threading.Thread(target=lambda: answers.append(is_interruptible()))
        thread.start()
        thread.join()
    assert answers == [False]

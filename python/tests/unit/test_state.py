"""The rules by which a server is started again, on a clock of the test's own."""

from __future__ import annotations

from mlxcel import Restart
from mlxcel._state import Attempts


def test_the_pause_doubles_up_to_its_cap() -> None:
    attempts = Attempts(Restart(limit=10, window=1000, stable=10, backoff=1, max_backoff=5))
    assert [attempts.pause(now, 0.0) for now in range(5)] == [1, 2, 4, 5, 5]


def test_too_many_in_the_window_are_given_up_even_if_each_was_stable() -> None:
    attempts = Attempts(Restart(limit=3, window=60, stable=10))
    assert [attempts.pause(now, 15.0) is None for now in (0, 15, 30, 45)] == [False, False, False, True]


def test_old_ones_leave_the_window() -> None:
    attempts = Attempts(Restart(limit=3, window=60, stable=10))
    assert [attempts.pause(now, 30.0) is None for now in (0, 30, 60, 90, 120)] == [False] * 5


def test_one_that_never_gets_ready_is_given_up_however_long_it_takes() -> None:
    attempts = Attempts(Restart(limit=3, window=60, stable=10))
    assert [attempts.pause(now, 0.0) is None for now in (0, 300, 600, 900)] == [False, False, False, True]


def test_a_stable_time_forgives() -> None:
    attempts = Attempts(Restart(limit=3, window=60, stable=10, backoff=1, max_backoff=100))
    assert attempts.pause(0, 0.0) == 1
    assert attempts.pause(1, 0.0) == 2
    assert attempts.pause(1000, 11.0) == 1


def test_a_long_row_does_not_overflow() -> None:
    attempts = Attempts(Restart(limit=5000, window=0.5, stable=10, backoff=1, max_backoff=7))
    assert {attempts.pause(float(now), 0.0) for now in range(3000)} == {1, 2, 4, 7}

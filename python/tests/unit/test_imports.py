"""The first import of a large module: no collections meanwhile, and everything as before afterwards."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from mlxcel._imports import without_collections

if TYPE_CHECKING:
    from collections.abc import Iterator

ABSENT = "a_module_that_nobody_imports"


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    assert gc.isenabled()
    yield
    gc.enable()
    gc.unfreeze()


def test_what_is_made_meanwhile_is_old_afterwards() -> None:
    with without_collections(ABSENT):
        assert not gc.isenabled()
        made: list[object] = [[]]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert any(thing is made for thing in gc.get_objects(generation=2))


def test_a_failed_import_leaves_the_collector_on() -> None:
    with pytest.raises(ImportError), without_collections(ABSENT):
        raise ImportError
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    with without_collections(ABSENT):
        pass
    assert not gc.isenabled()


def test_objects_that_somebody_froze_stay_frozen() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    with without_collections(ABSENT):
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen > 0


def test_nothing_happens_for_a_module_that_is_there() -> None:
    with without_collections("gc"):
        assert gc.isenabled()

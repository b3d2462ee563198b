"""One server for all tests of an SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from served import AddTool, Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serve() as started:
        yield started


@pytest.fixture
def add() -> AddTool:
    return AddTool()

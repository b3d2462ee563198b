"""The pytest plugin of `mlxcel.testing`. pytest loads it in every project, so it imports late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .testing import FixtureServer

__all__ = ["mlxcel_server"]


@pytest.fixture
def mlxcel_server() -> Iterator[FixtureServer]:
    """A server for `LLM(base_url=mlxcel_server.base_url)`; set its `script`, read its `requests`."""
    from .testing import FixtureServer

    with FixtureServer() as server:
        yield server

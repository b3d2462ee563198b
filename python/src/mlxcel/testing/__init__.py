"""For tests of code that uses mlxcel: a server that answers what the test says, and records its requests.

    def test_summary(mlxcel_server):
        mlxcel_server.script = ["A short text."]
        with LLM(base_url=mlxcel_server.base_url) as llm:
            assert summarise(llm, "a long text") == "A short text."
        assert mlxcel_server.requests[0].prompt == "Summarise: a long text"

The fixture comes with the package's pytest plugin; `FixtureServer` is the same as a context manager.
"""

from ._exchange import Exchange, Recorded
from ._replies import Fault, HangUp, Refuse, Reply, Stall
from ._server import FixtureServer

__all__ = ["Exchange", "Fault", "FixtureServer", "HangUp", "Recorded", "Refuse", "Reply", "Stall"]

"""Run language models on Apple's MLX.

    from mlxcel import LLM

    with LLM("mlxcel-tiny") as llm:
        print(llm.chat("What is 17 + 25?"))

Importing this package only defines names: each is loaded when first used, so
that the OpenAI SDK is imported while a model loads and not before.
"""

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from ._facts import Memory, Throughput
    from ._shared import SharedServer
    from ._state import Restart, ServerState, StateChange
    from ._timeout import Timeout
    from .async_llm import AsyncLLM
    from .errors import (
        MlxcelBinaryNotFoundError,
        MlxcelConfigError,
        MlxcelConnectionError,
        MlxcelCopyError,
        MlxcelError,
        MlxcelModelNotServedError,
        MlxcelResponseError,
        MlxcelServerCrashedError,
        MlxcelServerError,
        MlxcelStateError,
        MlxcelTimeoutError,
        MlxcelToolArgumentsError,
        MlxcelUnsupportedError,
    )
    from .llm import LLM
    from .results import Result, Timings, ToolCall, Usage
    from .server import ManagedServer
    from .streams import AsyncTextStream, TextStream

__all__ = [
    "LLM",
    "AsyncLLM",
    "AsyncTextStream",
    "ManagedServer",
    "Memory",
    "MlxcelBinaryNotFoundError",
    "MlxcelConfigError",
    "MlxcelConnectionError",
    "MlxcelCopyError",
    "MlxcelError",
    "MlxcelModelNotServedError",
    "MlxcelResponseError",
    "MlxcelServerCrashedError",
    "MlxcelServerError",
    "MlxcelStateError",
    "MlxcelTimeoutError",
    "MlxcelToolArgumentsError",
    "MlxcelUnsupportedError",
    "Restart",
    "Result",
    "ServerState",
    "SharedServer",
    "StateChange",
    "TextStream",
    "Throughput",
    "Timeout",
    "Timings",
    "ToolCall",
    "Usage",
    "__version__",
]

_HOME = {
    "LLM": "llm",
    "AsyncLLM": "async_llm",
    "AsyncTextStream": "streams",
    "ManagedServer": "server",
    "Memory": "_facts",
    "MlxcelBinaryNotFoundError": "errors",
    "MlxcelConfigError": "errors",
    "MlxcelConnectionError": "errors",
    "MlxcelCopyError": "errors",
    "MlxcelError": "errors",
    "MlxcelModelNotServedError": "errors",
    "MlxcelResponseError": "errors",
    "MlxcelServerCrashedError": "errors",
    "MlxcelServerError": "errors",
    "MlxcelStateError": "errors",
    "MlxcelTimeoutError": "errors",
    "MlxcelToolArgumentsError": "errors",
    "MlxcelUnsupportedError": "errors",
    "Restart": "_state",
    "Result": "results",
    "ServerState": "_state",
    "SharedServer": "_shared",
    "StateChange": "_state",
    "TextStream": "streams",
    "Timeout": "_timeout",
    "Throughput": "_facts",
    "Timings": "results",
    "ToolCall": "results",
    "Usage": "results",
}


def __getattr__(name: str) -> Any:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    from importlib import import_module

    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

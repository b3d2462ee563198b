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
    from ._structured import ResponseFormat
    from ._timeout import Timeout
    from .async_llm import AsyncLLM
    from .chat import AsyncChat, Chat
    from .chat_streams import AsyncChatStream, ChatStream
    from .errors import (
        MlxcelBatchError,
        MlxcelBinaryNotFoundError,
        MlxcelConfigError,
        MlxcelConnectionError,
        MlxcelCopyError,
        MlxcelError,
        MlxcelFormatError,
        MlxcelModelNotServedError,
        MlxcelRefusalError,
        MlxcelResponseError,
        MlxcelServerCrashedError,
        MlxcelServerError,
        MlxcelStateError,
        MlxcelTimeoutError,
        MlxcelToolArgumentsError,
        MlxcelToolStepsError,
        MlxcelTruncatedError,
        MlxcelUnsupportedError,
    )
    from .events import Event, Finish, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
    from .iterators import AsyncResultIterator, ResultIterator
    from .llm import LLM
    from .object_streams import AsyncObjectStream, ObjectStream
    from .parts import file_part, image_part
    from .results import Result, Timings, ToolCall, Usage
    from .server import ManagedServer
    from .streams import AsyncEventStream, AsyncTextStream, EventStream, TextStream
    from .tools import Tool, ToolEvent, ToolOutcome, ToolRun, ToolStart, ToolStep

__all__ = [
    "LLM",
    "AsyncChat",
    "AsyncChatStream",
    "AsyncEventStream",
    "AsyncLLM",
    "AsyncObjectStream",
    "AsyncResultIterator",
    "AsyncTextStream",
    "Chat",
    "ChatStream",
    "Event",
    "EventStream",
    "Finish",
    "ManagedServer",
    "Memory",
    "MlxcelBatchError",
    "MlxcelBinaryNotFoundError",
    "MlxcelConfigError",
    "MlxcelConnectionError",
    "MlxcelCopyError",
    "MlxcelError",
    "MlxcelFormatError",
    "MlxcelModelNotServedError",
    "MlxcelRefusalError",
    "MlxcelResponseError",
    "MlxcelServerCrashedError",
    "MlxcelServerError",
    "MlxcelStateError",
    "MlxcelTimeoutError",
    "MlxcelToolArgumentsError",
    "MlxcelToolStepsError",
    "MlxcelTruncatedError",
    "MlxcelUnsupportedError",
    "ObjectStream",
    "ReasoningDelta",
    "RefusalDelta",
    "ResponseFormat",
    "Restart",
    "Result",
    "ResultIterator",
    "ServerState",
    "SharedServer",
    "StateChange",
    "TextDelta",
    "TextStream",
    "Throughput",
    "Timeout",
    "Timings",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolEvent",
    "ToolOutcome",
    "ToolRun",
    "ToolStart",
    "ToolStep",
    "Usage",
    "__version__",
    "file_part",
    "image_part",
]

_HOME = {
    "AsyncChat": "chat",
    "AsyncChatStream": "chat_streams",
    "AsyncEventStream": "streams",
    "AsyncLLM": "async_llm",
    "AsyncObjectStream": "object_streams",
    "AsyncResultIterator": "iterators",
    "AsyncTextStream": "streams",
    "Chat": "chat",
    "ChatStream": "chat_streams",
    "Event": "events",
    "EventStream": "streams",
    "Finish": "events",
    "LLM": "llm",
    "ManagedServer": "server",
    "Memory": "_facts",
    "MlxcelBatchError": "errors",
    "MlxcelBinaryNotFoundError": "errors",
    "MlxcelConfigError": "errors",
    "MlxcelConnectionError": "errors",
    "MlxcelCopyError": "errors",
    "MlxcelError": "errors",
    "MlxcelFormatError": "errors",
    "MlxcelModelNotServedError": "errors",
    "MlxcelRefusalError": "errors",
    "MlxcelResponseError": "errors",
    "MlxcelServerCrashedError": "errors",
    "MlxcelServerError": "errors",
    "MlxcelStateError": "errors",
    "MlxcelTimeoutError": "errors",
    "MlxcelToolArgumentsError": "errors",
    "MlxcelToolStepsError": "errors",
    "MlxcelTruncatedError": "errors",
    "MlxcelUnsupportedError": "errors",
    "ObjectStream": "object_streams",
    "ReasoningDelta": "events",
    "RefusalDelta": "events",
    "ResponseFormat": "_structured",
    "Restart": "_state",
    "Result": "results",
    "ResultIterator": "iterators",
    "ServerState": "_state",
    "SharedServer": "_shared",
    "StateChange": "_state",
    "TextDelta": "events",
    "TextStream": "streams",
    "Throughput": "_facts",
    "Timeout": "_timeout",
    "Timings": "results",
    "Tool": "tools",
    "ToolCall": "results",
    "ToolCallDelta": "events",
    "ToolEvent": "tools",
    "ToolOutcome": "tools",
    "ToolRun": "tools",
    "ToolStart": "tools",
    "ToolStep": "tools",
    "Usage": "results",
    "file_part": "parts",
    "image_part": "parts",
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

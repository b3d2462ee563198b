"""One streamed request, and what its clock said."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROUTES = {"completions": "/completions", "chat": "/chat/completions"}


@dataclass
class Record:
    """A request's life. Times are seconds; `itl` are the waits between chunks that carried text."""

    ok: bool = False
    error: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    ttft: float = 0.0
    e2el: float = 0.0
    itl: list[float] = field(default_factory=list)
    text: str = ""

    @property
    def tpot(self) -> float | None:
        """Seconds a token after the first; None for a single token."""
        return (self.e2el - self.ttft) / (self.output_tokens - 1) if self.output_tokens > 1 else None


def body(endpoint: str, model: str, prompt: str, max_tokens: int, extra: dict[str, Any]) -> dict[str, Any]:
    content = (
        {"prompt": prompt}
        if endpoint == "completions"
        else {"messages": [{"role": "user", "content": prompt}]}
    )
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    return {"model": model, "max_tokens": max_tokens, "temperature": 0, **content, **stream, **extra}


async def send(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Record:
    """Streams one request. A refusal or a broken stream is a record that is not `ok`, never an exception."""
    record = Record()
    start = last = time.perf_counter()
    try:
        async with session.post(url, json=body) as response:
            if response.status != 200:
                record.error = f"{response.status} {(await response.text())[:200]}"
                return record
            done = False
            async for data in events(response):
                if data == b"[DONE]":
                    done = True
                    break
                chunk = json.loads(data)
                if "error" in chunk:
                    record.error = str(chunk["error"])[:200]
                    return record
                now = time.perf_counter()
                if usage := chunk.get("usage"):
                    record.prompt_tokens = usage["prompt_tokens"]
                    record.output_tokens = usage["completion_tokens"]
                    details = usage.get("prompt_tokens_details") or {}
                    record.cached_tokens = details.get("cached_tokens") or 0
                choices = chunk.get("choices")
                if not choices:
                    continue
                text = choices[0].get("text") or (choices[0].get("delta") or {}).get("content")
                if text:
                    if record.ttft:
                        record.itl.append(now - last)
                    else:
                        record.ttft = now - start
                    record.text += text
                    last = now
            record.e2el = last - start
            record.ok = done and bool(record.ttft)
            if not record.ok:
                record.error = "the stream ended early" if not done else "no text came"
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
        record.error = f"{type(error).__name__}: {error}"
    return record


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The `data:` lines of a stream of server-sent events."""
    rest = b""
    async for piece in response.content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()

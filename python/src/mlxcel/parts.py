"""Images and files as parts of a message, in the form of OpenAI's chat API. No network."""

from __future__ import annotations

import base64
import mimetypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import MlxcelConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Source", "Sources", "file_part", "image_part", "user_message"]

Source: TypeAlias = "str | os.PathLike[str] | bytes"
"""A URL (`http:`, `https:` or `data:`), a path, or the bytes themselves."""
Sources: TypeAlias = "Source | Iterable[Source]"
"""One, or several."""

_URLS = ("http://", "https://", "data:")
_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"%PDF-", "application/pdf"),
)


def image_part(source: Source, *, media_type: str | None = None, detail: str | None = None) -> dict[str, Any]:
    """An image for a message's `content`; one on the web is fetched by the server.

    The kind of an image is told by its first bytes or its path; `media_type` (`"image/png"`) says it where
    they do not, else it is a MlxcelConfigError. `detail` is OpenAI's (`"low"`, `"high"`).
    """
    image = {"url": _url(source, media_type, "image/")}
    if detail is not None:
        image["detail"] = detail
    return {"type": "image_url", "image_url": image}


def file_part(source: Source, *, name: str | None = None, media_type: str | None = None) -> dict[str, Any]:
    """A file for a message's `content`, such as a PDF; one on the web is sent as its URL.

    `name` is what the model is told, by default the path's; bytes need one.
    """
    if name is None:
        if isinstance(source, bytes):
            raise MlxcelConfigError("a file given as bytes needs a name: file_part(data, name='report.pdf')")
        where = os.fspath(source)
        name = "file" if where.startswith("data:") else where.partition("?")[0].rstrip("/").rsplit("/")[-1]
    if media_type is None and isinstance(source, bytes):
        media_type = mimetypes.guess_type(name)[0]
    return {"type": "file", "file": {"filename": name, "file_data": _url(source, media_type, "")}}


def user_message(text: str, images: Sources = (), files: Sources = ()) -> dict[str, Any]:
    """A message of the user with what comes with it."""
    parts = [*map(image_part, _listed(images)), *map(file_part, _listed(files))]
    return {"role": "user", "content": [{"type": "text", "text": text}, *parts] if parts else text}


def _listed(sources: Sources) -> Iterable[Source]:
    return [sources] if isinstance(sources, str | bytes | os.PathLike) else sources


def _url(source: Source, media_type: str | None, wanted: str) -> str:
    if isinstance(source, str) and source.startswith(_URLS):
        return source
    if isinstance(source, bytes):
        data, guessed = source, None
    else:
        data, guessed = Path(source).read_bytes(), mimetypes.guess_type(os.fspath(source))[0]
    kind = media_type or _kind(data) or guessed or ("" if wanted else "application/octet-stream")
    if not kind.startswith(wanted) or not kind:
        what = "these bytes are" if isinstance(source, bytes) else f"{os.fspath(source)!r} is"
        raise MlxcelConfigError(f"{what} no image that is known here: say media_type='image/…' if it is one")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _kind(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for beginning, kind in _BEGINNINGS if data.startswith(beginning)), None)

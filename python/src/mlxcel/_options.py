"""What constructor arguments mean together: pure rules, no I/O."""

from __future__ import annotations

import difflib
import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .errors import MlxcelConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "IDLE_TIMEOUT",
    "PRIVATE_ONLY",
    "SHUTDOWN_GRACE",
    "STARTUP_TIMEOUT",
    "Connect",
    "check_api_key",
    "check_mode",
    "check_share",
    "check_timeout",
    "named_options",
    "split_base_url",
]

STARTUP_TIMEOUT = 600.0
"""Seconds without progress after which a start is given up."""

SHUTDOWN_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""

IDLE_TIMEOUT = 300.0
"""Seconds that a shared server stays once nobody uses it."""

P = ParamSpec("P")
R = TypeVar("R")


def named_options(function: Callable[P, R]) -> Callable[P, R]:
    """Turn an unknown keyword of a constructor into a TypeError that names the nearest option there is."""
    known = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.POSITIONAL_ONLY and name != "self"
    ]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                raise TypeError(_unknown(type(args[0]).__name__, name, known))
        return function(*args, **kwargs)

    return checked


def _unknown(owner: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
    return f"{owner} has no option {name!r}; {hint} (a flag of the server itself goes into extra_args)"


_MANAGED_DEFAULTS: Mapping[str, object] = {
    "binary": None,
    "host": None,
    "port": None,
    "startup_timeout": STARTUP_TIMEOUT,
    "shutdown_grace": SHUTDOWN_GRACE,
    "ctx_size": None,
    "n_predict": None,
    "n_parallel": None,
    "alias": None,
    "warmup": None,
    "extra_args": (),
    "on_state": None,
    "progress": None,
    "share": False,
    "idle_timeout": IDLE_TIMEOUT,
}
"""Options that start a server, with their defaults; `restart` is the one more."""


def _is_given(name: str, value: object) -> bool:
    if name == "restart":
        from ._state import Restart  # which needs this module

        return value != Restart()
    return value != _MANAGED_DEFAULTS[name]


PRIVATE_ONLY: Mapping[str, object] = {
    "socket": None,
    "host": None,
    "port": None,
    "api_key": None,
    "shutdown_grace": SHUTDOWN_GRACE,
}
"""Options of a server that is not shared: one that is has a place and a key of its own, and ends itself."""


@dataclass(frozen=True)
class Connect:
    """A server that somebody else runs: its root (native routes) and `/v1` (OpenAI routes)."""

    root_url: str
    v1_url: str
    socket: str | None


def check_mode(
    model: str | None,
    *,
    base_url: str | None,
    socket: str | None,
    transport: object | None,
    http_client: object | None,
    http_client_url: str | None,
    managed: Mapping[str, object],
    extra_headers: Mapping[str, str] | None = None,
    verify: object = True,
) -> Connect | None:
    """None for managed mode, else where to connect. Contradictions raise MlxcelConfigError."""
    if model is not None:
        if not model or "\0" in model:
            raise MlxcelConfigError(f"the model is a path, a repo id or 'mlxcel-tiny', not {model!r}")
        for name, value in (
            ("base_url", base_url),
            ("transport", transport),
            ("http_client", http_client),
            ("extra_headers", extra_headers),
            ("verify", None if verify is True else verify),
        ):
            if value is not None:
                for_one = name in ("extra_headers", "verify")
                way, does = ("base_url", "is for") if for_one else (name, "connects to")
                raise MlxcelConfigError(
                    f"a model starts a server of its own, and {name} {does} one that runs: write "
                    f"LLM({model!r}) to start one, or LLM({way}=…) without the model to connect "
                    "(then name a served model per request: llm.chat(…, model=…))"
                )
        return None

    if all(value is None for value in (base_url, socket, transport, http_client)):
        raise MlxcelConfigError(
            "no model and no server: write LLM('mlxcel-tiny'), LLM('/path/to/model') or LLM('owner/name') "
            "to start a server, or LLM(base_url='http://host:port/v1') or LLM(socket='/path.sock') "
            "to connect to one"
        )
    given = [name for name, value in managed.items() if _is_given(name, value)]
    if given:
        raise MlxcelConfigError(
            f"{', '.join(given)} only mean something for a server that is started here: give a model "
            "as the first argument, or leave them out to connect"
        )
    ways = [
        name
        for name, value in (("socket", socket), ("transport", transport), ("http_client", http_client))
        if value is not None
    ]
    if len(ways) > 1:
        raise MlxcelConfigError(f"{' and '.join(ways)} are different ways to one server: give one of them")
    if socket is not None and base_url is not None:
        raise MlxcelConfigError("base_url and socket are different ways to one server: give one of them")
    root, v1 = split_base_url(base_url or http_client_url or "http://localhost")
    if verify is not True and (transport is not None or http_client is not None):
        raise MlxcelConfigError(
            "verify is for connections made here: set it on your transport or http_client"
        )
    if verify is not True and not root.startswith("https:"):
        raise MlxcelConfigError(f"verify is about certificates, and there are none at {socket or root}")
    return Connect(root, v1, socket)


def check_share(given: Mapping[str, object]) -> None:
    """Options that contradict `share` raise MlxcelConfigError."""
    if not given["share"]:
        if given["idle_timeout"] != IDLE_TIMEOUT:
            raise MlxcelConfigError(
                "idle_timeout is for a shared server (share=True); another one stops with its client"
            )
        return
    wrong = [name for name, default in PRIVATE_ONLY.items() if given[name] != default]
    if wrong:
        raise MlxcelConfigError(
            f"{', '.join(wrong)} cannot be chosen for a shared server: its users find it by model and "
            "options, and it ends itself; leave that out, or share=True"
        )


def split_base_url(url: str) -> tuple[str, str]:
    """The root and the `/v1` address of a server; `http://h:1` and `http://h:1/v1` mean the same.

    Another path is taken as it is, as the address of the OpenAI routes.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("http", "https") or not rest.strip("/"):
        raise MlxcelConfigError(
            f"base_url is a full address such as 'http://127.0.0.1:8080/v1', not {url!r}"
            + (" (a Unix socket goes into socket=)" if url.startswith(("/", "unix:")) else "")
        )
    url = url.rstrip("/")
    if "/" not in url.partition("://")[2]:
        return url, f"{url}/v1"
    return url.removesuffix("/v1"), url


def check_timeout(name: str, value: Any) -> float:
    """A number of seconds, above zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise MlxcelConfigError(f"{name} is a number of seconds above 0, not {value!r}")
    return float(value)


def check_api_key(key: str | None, name: str = "api_key") -> None:
    """A key travels in an HTTP header; the error does not repeat it."""
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise MlxcelConfigError(
            f"{name} is printable ASCII without spaces: does it end in the newline of its file?"
        )

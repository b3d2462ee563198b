"""Objects that own a process and therefore exist once."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex

from .errors import MlxcelCopyError

__all__ = ["Single"]


class Single:
    """Refuses `copy` and `pickle`: a copy could only stop the original's server, or outlive it."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        name = type(self).__name__
        raise MlxcelCopyError(
            f"a {name} belongs to the process and the variable it was made for and cannot be copied or "
            f"pickled: in another process connect to its server with LLM(socket=…, api_key=…) or "
            f"LLM(base_url=…, api_key=…), from {name}'s server.socket_path, base_url and api_key"
        )

    def __copy__(self) -> NoReturn:
        self.__reduce_ex__(2)

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__reduce_ex__(2)

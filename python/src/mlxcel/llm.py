"""`LLM`: a language model behind one object, blocking."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

from . import _requests, _responses
from ._accumulate import Accumulator
from ._client import ClientBase
from .errors import MlxcelStateError
from .streams import TextStream

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    import httpx2
    from openai import OpenAI
    from openai.types import Model

    from ._requests import Messages, Prompt
    from ._sdk import LocalOpenAI
    from .results import Result

__all__ = ["LLM"]


class LLM(ClientBase["httpx2.BaseTransport", "httpx2.Client"]):
    """A language model to talk to.

        with LLM("mlxcel-tiny") as llm:
            print(llm.chat("What is 17 + 25?"))

    With `model` (a folder, `owner/name` on the Hugging Face hub, or
    `mlxcel-tiny`) it starts a private server and stops it again; `socket` then
    names where that one listens. Without, it connects to a server that runs:
    at `base_url`, at the Unix socket `socket`, through an `httpx2` `transport`,
    or through a ready-made `http_client`, which stays the caller's to close.

    `timeout` is in seconds (or an `httpx2.Timeout`) and bounds each wait for
    the server; None lets a generation take its time. `binary`, `host`, `port`,
    `startup_timeout`, `shutdown_grace`, `ctx_size`, `n_predict`, `n_parallel`,
    `alias`, `warmup` and `extra_args` are for the server: see `ManagedServer`.

    Sampling parameters are keywords of each call: OpenAI's (`max_tokens`,
    `temperature`, `top_p`, `n`, `stop`, `seed`, `logprobs`, `response_format`,
    `tools`, …) and the server's own (`top_k`, `min_p`, `repetition_penalty`, …);
    names that are not known here travel too, and `extra_body` wins over all.
    `model=` names another served model; `timeout=` overrides the client's.

    Raises MlxcelConfigError for arguments that contradict each other and the
    errors of `ManagedServer` when the server does not start; HTTP and API
    errors are those of the `openai` package. May be used from many threads.
    """

    _client: LocalOpenAI | None = None
    _http: httpx2.Client | None = None

    def _begin(self) -> None:
        try:
            if self._server is not None:
                self._server.spawn()
            from . import _sdk, _transport  # takes a while: the server loads meanwhile

            if self._server is not None:
                self._server.wait_ready()
            self._adopt_served_model()
            endpoint = self._endpoint()
            timeout = _transport.to_timeout(self._timeout)
            http_client = self._http_client
            if http_client is None:
                http_client = self._http = _transport.http_client(endpoint, timeout, self._transport)
            self._client = _sdk.sync_client(endpoint, http_client, timeout)
            self._root_url = endpoint.root_url
        except BaseException:
            self.close()
            raise

    @property
    def model(self) -> str:
        """Id of the served model that requests go to; asked from the server once."""
        if self._model_id is None:
            self._model_id = _responses.model_ids(self.models())[0]
        return self._model_id

    @property
    def openai_client(self) -> OpenAI:
        """The OpenAI SDK's client on this server, for everything that is not wrapped here."""
        self._check_open()
        if self._client is None:
            raise MlxcelStateError("this LLM was never opened")
        return self._client

    def generate(self, prompt: Prompt, *, model: str | None = None, **params: Any) -> Result:
        """Continue a prompt (text, or token ids): `/v1/completions`."""
        arguments = _requests.completion(prompt, model or self.model, params, stream=False)
        with _responses.readable():
            reply = self.openai_client.completions.create(**arguments)
        return _responses.completion(reply, is_json=_responses.wants_json(params))

    def stream(self, prompt: Prompt, *, model: str | None = None, **params: Any) -> TextStream:
        """Continue a prompt and get the text as it is written."""
        arguments = _requests.completion(prompt, model or self.model, params, stream=True)
        source = self.openai_client.completions.create(**arguments)
        return TextStream(source, Accumulator(is_json=_responses.wants_json(params)))

    def chat(self, messages: Messages, *, model: str | None = None, **params: Any) -> Result:
        """Answer a conversation, or a string as the user's one message: `/v1/chat/completions`."""
        arguments = _requests.chat(messages, model or self.model, params, stream=False)
        with _responses.readable():
            reply = self.openai_client.chat.completions.create(**arguments)
        return _responses.chat(reply, is_json=_responses.wants_json(params))

    def chat_stream(self, messages: Messages, *, model: str | None = None, **params: Any) -> TextStream:
        """Answer a conversation and get the text as it is written."""
        arguments = _requests.chat(messages, model or self.model, params, stream=True)
        source = self.openai_client.chat.completions.create(**arguments)
        return TextStream(source, Accumulator(is_json=_responses.wants_json(params)))

    def models(self) -> list[Model]:
        """The models the server offers, as the SDK's objects."""
        with _responses.readable():
            body = self.openai_client.get("/models", cast_to=object)
        return _responses.models(body)

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Token ids of a text; `add_special` adds what the model wants around a prompt, such as BOS."""
        body = _requests.tokenize(text, add_special=add_special)
        return _responses.tokens_of(self._post("/tokenize", body))

    def detokenize(self, tokens: Iterable[int]) -> str:
        """The text of token ids."""
        return _responses.text_of(self._post("/detokenize", _requests.detokenize(tokens)))

    def close(self) -> None:
        """Close the connections and stop the server if it is ours. Safe to call again."""
        self._closed = True
        try:
            if self._http is not None:
                self._http.close()
        finally:
            if self._server is not None:
                self._server.stop()

    def _post(self, route: str, body: dict[str, Any]) -> object:
        # Through the SDK for its errors, its key and its timeouts; native routes lie outside /v1.
        with _responses.readable():
            return self.openai_client.post(f"{self._root_url}{route}", cast_to=object, body=body)

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            with contextlib.suppress(Exception):
                self.close()

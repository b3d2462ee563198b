"""A method for each of the server's routes but completions and chat, blocking."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from . import _native, _requests, _responses
from ._boundary import Explained, boundary
from ._client import ClientBase
from ._deadline import Deadline
from ._native import Call
from ._retry import queue_pause
from ._routes import NativeRoute, keeps_no_list, leaves_model_unchecked
from ._timeout import CLIENTS, to_httpx2
from .object_streams import ObjectStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import httpx2
    from openai import Stream
    from openai.types import Model
    from openai.types.responses import Response, ResponseStreamEvent

    from ._requests import Messages
    from ._sdk import LocalOpenAI
    from ._timeout import TimeoutArgument

__all__ = ["Routes"]


class Routes(ClientBase["httpx2.BaseTransport", "httpx2.Client"]):
    """The part of `LLM` that is one request and one reply each; its errors and key are `LLM`'s."""

    @boundary
    def models(self, *, timeout: TimeoutArgument = CLIENTS) -> list[Model]:
        """The models the server offers, as the SDK's objects: `GET /v1/models`."""
        return _responses.models(self._request(Call("GET", "/v1/models"), timeout))

    @boundary
    def retrieve_model(self, id: str, *, timeout: TimeoutArgument = CLIENTS) -> Model:  # noqa: A002
        """One model, by its id: `GET /v1/models/{id}`."""
        from openai.types import Model

        found: Model = self._request(_native.model(id), timeout, Model)
        return found

    @boundary
    def tokenize(
        self, text: str, *, add_special: bool = False, timeout: TimeoutArgument = CLIENTS
    ) -> list[int]:
        """Token ids of a text; `add_special` adds what the model wants around a prompt, such as BOS."""
        body = _requests.tokenize(text, add_special=add_special)
        return _responses.tokens_of(self._request(Call("POST", "/tokenize", body), timeout))

    @boundary
    def detokenize(self, tokens: Iterable[int], *, timeout: TimeoutArgument = CLIENTS) -> str:
        """The text of token ids."""
        call = Call("POST", "/detokenize", _requests.detokenize(tokens))
        return _responses.text_of(self._request(call, timeout))

    @boundary
    def apply_template(self, messages: Messages, *, timeout: TimeoutArgument = CLIENTS, **params: Any) -> str:
        """The prompt that `chat` would make of the messages, as text: `POST /apply-template`.

        Parameters are those of `chat`, such as `tools` (in OpenAI's form) or `chat_template_kwargs`.
        """
        call = _native.apply_template(messages, params)
        prompt: str = _native.field_of(self._request(call, timeout), call.path, "prompt", str)
        return prompt

    @boundary
    def health(self, *, timeout: TimeoutArgument = CLIENTS) -> dict[str, Any]:
        """Whether the server can answer; `openai.InternalServerError` (503) while it loads: `GET /health`."""
        return _native.dict_of(self._request(Call("GET", "/health"), timeout), "/health")

    @boundary
    def version(self, *, timeout: TimeoutArgument = CLIENTS) -> dict[str, Any]:
        """Versions of the server and of its MLX: `GET /version`."""
        return _native.dict_of(self._request(Call("GET", "/version"), timeout), "/version")

    @boundary
    def props(self, *, timeout: TimeoutArgument = CLIENTS) -> dict[str, Any]:
        """Everything about the server and its model: context, template, memory, throughput: `GET /props`."""
        return _native.dict_of(self._request(Call("GET", "/props"), timeout), "/props")

    @boundary
    def slots(self, *, timeout: TimeoutArgument = CLIENTS) -> list[dict[str, Any]]:
        """What each place of the batch is at: `GET /slots`."""
        return _native.list_of(self._request(Call("GET", "/slots"), timeout), "/slots")

    @boundary
    def metrics(self, *, timeout: TimeoutArgument = CLIENTS) -> str:
        """Counters and times in Prometheus' text format: `GET /metrics`."""
        return _native.text_of(self._request(Call("GET", "/metrics"), timeout, str), "/metrics")

    @boundary
    def openapi(self, *, timeout: TimeoutArgument = CLIENTS) -> dict[str, Any]:
        """The description of all routes: `GET /openapi.json`."""
        call = Call("GET", "/openapi.json")
        return _native.dict_of(self._request(call, timeout), call.path)

    @boundary
    def responses(
        self,
        input: str | Iterable[Any],  # noqa: A002 - OpenAI's name
        *,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> Response:
        """Answer in OpenAI's newer form; parameters are the body's: `POST /v1/responses`."""
        from openai.types.responses import Response

        call = _native.responses(input, params)
        answer: Response = self._request(call, timeout, Response, model=model)
        return answer

    @boundary
    def responses_stream(
        self,
        input: str | Iterable[Any],  # noqa: A002
        *,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> ObjectStream[ResponseStreamEvent]:
        """The same, as the SDK's events while it is written."""
        return self._event_stream(
            _native.responses(input, params, stream=True), timeout, "ResponseStreamEvent", model
        )

    @boundary
    def response_input_tokens(
        self,
        input: str | Iterable[Any],  # noqa: A002
        *,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> int:
        """How many tokens `responses` would read: `POST /v1/responses/input_tokens`."""
        call = _native.generating("/v1/responses/input_tokens", {"input": input}, params)
        reply = self._request(call, timeout, model=model)
        count: int = _native.field_of(reply, call.path, "input_tokens", int)
        return count

    @boundary
    def retrieve_response(self, id: str, *, timeout: TimeoutArgument = CLIENTS) -> Response:  # noqa: A002
        """A response that the server keeps: `GET /v1/responses/{id}`."""
        from openai.types.responses import Response

        answer: Response = self._request(Call("GET", _native.response(id)), timeout, Response)
        return answer

    @boundary
    def cancel_response(self, id: str, *, timeout: TimeoutArgument = CLIENTS) -> Response:  # noqa: A002
        """Stop a response that is made in the background: `POST /v1/responses/{id}/cancel`."""
        from openai.types.responses import Response

        call = Call("POST", _native.response(id, "cancel"))
        answer: Response = self._request(call, timeout, Response)
        return answer

    @boundary
    def delete_response(self, id: str, *, timeout: TimeoutArgument = CLIENTS) -> None:  # noqa: A002
        """Let the server forget a response: `DELETE /v1/responses/{id}`."""
        self._request(Call("DELETE", _native.response(id)), timeout)

    @boundary
    def response_input_items(
        self,
        id: str,  # noqa: A002
        *,
        limit: int | None = None,
        after: str | None = None,
        order: Literal["asc", "desc"] | None = None,
        timeout: TimeoutArgument = CLIENTS,
    ) -> dict[str, Any]:
        """A page of what a kept response was asked with: `GET /v1/responses/{id}/input_items`."""
        call = _native.input_items(id, limit=limit, after=after, order=order)
        return _native.dict_of(self._request(call, timeout), call.path)

    @boundary
    def messages(
        self,
        messages: Messages,
        *,
        max_tokens: int,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> dict[str, Any]:
        """Answer in Anthropic's form, as the JSON it is; parameters are the body's: `POST /v1/messages`."""
        call = _native.messages(messages, params, max_tokens=max_tokens)
        return _native.dict_of(self._request(call, timeout, model=model), call.path)

    @boundary
    def messages_stream(
        self,
        messages: Messages,
        *,
        max_tokens: int,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> ObjectStream[dict[str, Any]]:
        """The same, as Anthropic's events while it is written."""
        call = _native.messages(messages, params, max_tokens=max_tokens, stream=True)
        return self._event_stream(call, timeout, None, model)

    @boundary
    def count_message_tokens(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> int:
        """How many tokens `messages` would read: `POST /v1/messages/count_tokens`."""
        call = _native.count_tokens(messages, params)
        reply = self._request(call, timeout, model=model)
        count: int = _native.field_of(reply, call.path, "input_tokens", int)
        return count

    _http: httpx2.Client | None = None
    """The HTTP client that is ours to close."""

    def _opened(self) -> LocalOpenAI:
        raise NotImplementedError

    def _request(
        self, call: Call, timeout: TimeoutArgument, cast_to: Any = object, *, model: str | None = None
    ) -> Any:
        deadline = Deadline(self._limits(timeout))
        with Explained(deadline, self._where), deadline:
            return self._exchanged(call, deadline, cast_to, model)

    def _event_stream(
        self, call: Call, timeout: TimeoutArgument, kind: str | None, model: str | None
    ) -> ObjectStream[Any]:
        import openai

        deadline = Deadline(self._limits(timeout))
        event: Any = _native.event_type(kind)
        kind_of_stream = _native.stream_type(openai.Stream, event)
        with Explained(deadline, self._where), deadline:
            source: Stream[Any] = self._exchanged(
                call, deadline, event, model, stream=True, stream_cls=kind_of_stream
            )
            try:
                _responses.check_stream(source.response)
            except BaseException:
                source.close()
                raise
        return ObjectStream(source, deadline, self._where)

    def _exchanged(self, call: Call, deadline: Deadline, cast_to: Any, model: str | None, **more: Any) -> Any:
        client = self._opened()
        name = None
        if call.names_model:
            name = (call.body or {}).get("model") or self._model_for(model, deadline)
        arguments = call.arguments(self._root_url, name, cast_to, to_httpx2(deadline.timeout))
        send = getattr(client, call.method.lower())
        with NativeRoute(call.path, self._where, native=call.native):
            return self._patiently(partial(send, **arguments, **more), deadline)

    def _patiently(self, send: Callable[[], Any], deadline: Deadline) -> Any:
        """The reply, once the server has room for the request."""
        while True:
            try:
                return send()
            except Exception as error:
                pause = queue_pause(error)
                if pause is None:
                    raise
                time.sleep(deadline.pause(pause))

    def _model_for(self, wanted: str | None, deadline: Deadline) -> str:
        if (known := self._served.find(wanted)) is not None:
            return known
        try:
            reply = self._exchanged(Call("GET", "/v1/models"), deadline, object, None)
            listed = _responses.model_ids(_responses.models(reply))
        except Exception as error:
            if wanted is None or not leaves_model_unchecked(error):
                raise
            if keeps_no_list(error):
                self._served.learn([])
            return wanted
        self._served.learn(listed)
        return self._served.require(wanted)

"""What a client that is not ours sees: plain HTTP against the real binary and the built-in model."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from mlxcel import ManagedServer
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Post = Callable[..., httpx2.Response]

pytestmark = pytest.mark.e2e

PROMPT = "mlxcel is"


@pytest.fixture(scope="module")
def server(real_binary: Path) -> Iterator[ManagedServer]:
    with ManagedServer("mlxcel-tiny", binary=real_binary, n_parallel=2) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: ManagedServer) -> Iterator[httpx2.Client]:
    transport = httpx2.HTTPTransport(uds=server.socket_path)
    headers = {"Authorization": f"Bearer {server.api_key}"}
    with httpx2.Client(
        transport=transport, base_url="http://localhost", headers=headers, timeout=60, trust_env=False
    ) as client:
        yield client


def complete(http: httpx2.Client, **fields: Any) -> dict[str, Any]:
    body = {"prompt": PROMPT, "max_tokens": 16, "temperature": 0} | fields
    response = http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def text(http: httpx2.Client, **fields: Any) -> str:
    choice: str = complete(http, **fields)["choices"][0]["text"]
    return choice


def events(response: httpx2.Response) -> list[Any]:
    """The data of an event stream, which ends with [DONE]."""
    data = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(entry) for entry in data[:-1]]


def envelope(response: httpx2.Response, status: int) -> dict[str, Any]:
    """The error of a reply with this status, which has all of OpenAI's fields."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    error: dict[str, Any] = response.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["message"]
    return error


def busy(http: httpx2.Client) -> int:
    """How many requests run; asking takes no slot."""
    return int(http.get("/props").json()["busy_slots"])


# -- routes --------------------------------------------------------------------


def test_health_and_root_are_open_and_the_rest_is_not(server: ManagedServer) -> None:
    transport = httpx2.HTTPTransport(uds=server.socket_path)
    with httpx2.Client(transport=transport, base_url="http://localhost", trust_env=False) as stranger:
        assert stranger.get("/health").json() == {"status": "ok"}
        assert stranger.get("/").status_code == 200
        for method, route in [
            ("GET", "/v1/models"),
            ("GET", "/props"),
            ("POST", "/v1/completions"),
            ("POST", "/v1/chat/completions"),
            ("POST", "/tokenize"),
            ("POST", "/detokenize"),
        ]:
            error = envelope(stranger.request(method, route), 401)
            assert error["code"] == "invalid_api_key"
            wrong = {"Authorization": f"Bearer {server.api_key}x"}
            envelope(stranger.request(method, route, headers=wrong), 401)


def test_unknown_routes_methods_and_bodies_have_an_envelope(http: httpx2.Client) -> None:
    envelope(http.get("/nowhere"), 404)
    envelope(http.get("/v1/completions"), 405)
    envelope(http.post("/v1/completions", content=b"{not json"), 400)
    envelope(http.post("/v1/completions", content=b"[" * 100_000), 400)
    envelope(http.post("/v1/completions", content=b'{"prompt": "' + b"a" * 40_000_000 + b'"}'), 413)


def test_models_and_props(http: httpx2.Client) -> None:
    listing = http.get("/v1/models").json()
    assert listing["object"] == "list"
    (model,) = listing["data"]
    assert model["id"] == "mlxcel-tiny"
    assert model["object"] == "model"
    assert http.get(f"/v1/models/{model['id']}").json()["id"] == "mlxcel-tiny"
    envelope(http.get("/v1/models/another"), 404)
    props = http.get("/props").json()
    assert props["default_generation_settings"]["n_ctx"] == 8192
    assert props["total_slots"] == 2
    assert "im_start" in props["chat_template"]


def test_tokenize_round_trip(http: httpx2.Client) -> None:
    for content in ["", "Grüße, 世界 👋🏽", "<|im_end|>", "a" * 10_000]:
        tokens = http.post("/tokenize", json={"content": content, "add_special": False}).json()["tokens"]
        assert http.post("/detokenize", json={"tokens": tokens}).json()["content"] == content
    envelope(http.post("/detokenize", json={"tokens": [10**9]}), 400)
    envelope(http.post("/tokenize", json={"content": 5}), 400)


# -- what is asked for is done ---------------------------------------------------


def test_prompts_of_every_form_say_the_same(http: httpx2.Client) -> None:
    expected = text(http)
    ids = http.post("/tokenize", json={"content": PROMPT}).json()["tokens"]
    assert text(http, prompt=ids) == expected
    assert text(http, prompt=[PROMPT]) == expected
    both = complete(http, prompt=[ids, ids])["choices"]
    assert [choice["text"] for choice in both] == [expected, expected]
    assert [choice["index"] for choice in both] == [0, 1]


def test_a_stream_is_the_whole_in_pieces(http: httpx2.Client) -> None:
    body = {"prompt": PROMPT, "max_tokens": 24, "temperature": 0}
    whole = http.post("/v1/completions", json=body).json()
    streamed = http.post(
        "/v1/completions", json=body | {"stream": True, "stream_options": {"include_usage": True}}
    )
    assert streamed.headers["content-type"].startswith("text/event-stream")
    chunks = events(streamed)
    assert "".join(c["choices"][0]["text"] for c in chunks if c["choices"]) == whole["choices"][0]["text"]
    assert len(chunks) > 3
    finals = [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]]
    assert finals[-1] == whole["choices"][0]["finish_reason"]
    assert set(finals[:-1]) == {None}
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert whole["usage"]["completion_tokens"] <= 24
    assert len({c["id"] for c in chunks}) == 1


def test_a_chat_stream_starts_with_the_role(http: httpx2.Client) -> None:
    body = {"messages": [{"role": "user", "content": "What is 2 + 3?"}], "temperature": 0}
    whole = http.post("/v1/chat/completions", json=body).json()
    message = whole["choices"][0]["message"]
    assert message["role"] == "assistant"
    chunks = events(http.post("/v1/chat/completions", json=body | {"stream": True}))
    assert chunks[0]["object"] == "chat.completion.chunk"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    pieces = [c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]]
    assert "".join(pieces) == message["content"]
    assert not any("usage" in c and c["usage"] for c in chunks), "usage was not asked for"


def test_stop_strings_are_cut_and_never_leaked(http: httpx2.Client) -> None:
    whole = text(http, max_tokens=32)
    middle = whole[len(whole) // 2 :][:4]
    assert len(middle) == 4
    expected = whole[: whole.index(middle)]
    for stop in (middle, [middle], ["never comes", middle]):
        answer = complete(http, max_tokens=32, stop=stop)["choices"][0]
        assert answer["text"] == expected
        assert answer["finish_reason"] == "stop"
    body = {"prompt": PROMPT, "max_tokens": 32, "temperature": 0, "stop": middle, "stream": True}
    chunks = events(http.post("/v1/completions", json=body))
    assert "".join(c["choices"][0]["text"] for c in chunks) == expected


def test_seeds_choices_and_penalties_count(http: httpx2.Client) -> None:
    hot = {"temperature": 1.5, "max_tokens": 12}
    assert text(http, **hot, seed=1) == text(http, **hot, seed=1)
    assert len({text(http, **hot, seed=seed) for seed in range(6)}) > 1
    choices = complete(http, **hot, seed=1, n=3)["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert len({choice["text"] for choice in choices}) > 1
    assert choices[0]["text"] == text(http, **hot, seed=1)
    assert text(http, **hot, top_k=1) == text(http, max_tokens=12)
    assert text(http, **hot, top_p=1e-6) == text(http, max_tokens=12)
    assert text(http, **hot, min_p=1.0) == text(http, max_tokens=12)
    # A greedy model that may not end repeats itself, unless repeating costs.
    endless = {"max_tokens": 200, "logit_bias": no_end(http)}
    assert text(http, **endless, frequency_penalty=2) != text(http, **endless)
    assert text(http, **endless, presence_penalty=2) != text(http, **endless)
    assert text(http, **endless, repetition_penalty=1.5) != text(http, **endless)
    banned = http.post("/tokenize", json={"content": text(http)}).json()["tokens"][0]
    assert text(http, logit_bias={str(banned): -100}) != text(http)


def test_logprobs_are_those_of_the_chosen_tokens(http: httpx2.Client) -> None:
    legacy = complete(http, logprobs=3, max_tokens=5)["choices"][0]
    logprobs = legacy["logprobs"]
    assert "".join(logprobs["tokens"]) == legacy["text"]
    assert len(logprobs["token_logprobs"]) == len(logprobs["tokens"]) == len(logprobs["top_logprobs"])
    assert logprobs["text_offset"][0] in (0, len(PROMPT))
    for chosen, top in zip(logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        assert chosen <= 0
        assert max(top.values()) == pytest.approx(chosen), "greedy takes the likeliest"

    body = {
        "messages": [{"role": "user", "content": "Hello!"}],
        "temperature": 0,
        "max_tokens": 4,
        "logprobs": True,
        "top_logprobs": 2,
    }
    choice = http.post("/v1/chat/completions", json=body).json()["choices"][0]
    for entry in choice["logprobs"]["content"]:
        assert bytes(entry["bytes"]).decode(errors="replace") == entry["token"]
        assert len(entry["top_logprobs"]) == 2
        assert entry["top_logprobs"][0]["logprob"] == pytest.approx(entry["logprob"])


def test_max_tokens_without_logprobs_and_with_them(http: httpx2.Client) -> None:
    """A peer's last token before the limit differs when logprobs are off."""
    for limit in (1, 2, 7):
        assert text(http, max_tokens=limit) == text(http, max_tokens=limit, logprobs=1)
    answer = complete(http, max_tokens=3)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_structured_output_always_parses(http: httpx2.Client) -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "kind": {"enum": ["big", "small"]},
            "sizes": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
        },
        "required": ["city", "kind", "sizes"],
        "additionalProperties": False,
    }
    formats = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
    for seed in range(4):
        body = {
            "messages": [{"role": "user", "content": "Tell me about a city as JSON."}],
            "temperature": 1.2,
            "seed": seed,
            "max_tokens": 400,
            "response_format": formats,
        }
        choice = http.post("/v1/chat/completions", json=body).json()["choices"][0]
        assert choice["finish_reason"] == "stop"
        value = json.loads(choice["message"]["content"])
        assert set(value) == {"city", "kind", "sizes"}
        assert value["kind"] in {"big", "small"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"top_p": -0.1}, "top_p"),
        ({"min_p": 1.5}, "min_p"),
        ({"top_k": -5}, "top_k"),
        ({"n": 0}, "n"),
        ({"max_tokens": -3}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"presence_penalty": 9}, "presence_penalty"),
        ({"stop": 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 500}}, "logit_bias"),
        ({"logprobs": 50}, "logprobs"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [10**9]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"seed": "x"}, "seed"),
        ({"suffix": "end"}, "suffix"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"response_format": {"type": "poem"}}, "response_format"),
    ],
)
def test_a_wrong_field_is_named(http: httpx2.Client, fields: dict[str, Any], param: str) -> None:
    body = {"prompt": PROMPT, "max_tokens": 2} | fields
    error = envelope(http.post("/v1/completions", json=body), 400)
    assert (error["param"] or "").startswith(param), error
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        None,
        "hello",
        [{"role": "king", "content": "x"}],
        [{"role": "user"}],
        [{"content": "x"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
    ],
)
def test_wrong_messages_are_named(http: httpx2.Client, messages: Any) -> None:
    error = envelope(http.post("/v1/chat/completions", json={"messages": messages}), 400)
    assert (error["param"] or "").startswith("messages"), error


def test_a_prompt_beyond_the_context_is_told_both_numbers(http: httpx2.Client) -> None:
    response = http.post("/v1/completions", json={"prompt": [5] * 9000, "max_tokens": 1})
    error = envelope(response, 400)
    assert error["code"] == "context_length_exceeded"
    assert "9000" in error["message"]
    assert "8192" in error["message"]


def test_unknown_fields_are_named_in_a_header(http: httpx2.Client) -> None:
    body = {"prompt": PROMPT, "max_tokens": 1, "tempratur": 1, "user": "ada"}
    response = http.post("/v1/completions", json=body)
    assert response.status_code == 200
    assert response.headers["x-mlxcel-ignored"] == "tempratur"


def no_end(http: httpx2.Client) -> dict[str, float]:
    """A bias that keeps the model from ending by itself."""
    ends = ["<|im_end|>", "<|endoftext|>"]
    ids = [http.post("/tokenize", json={"content": end}).json()["tokens"] for end in ends]
    return {str(id_): -100 for (id_,) in ids}


def test_health_answers_while_the_slots_are_busy(http: httpx2.Client) -> None:
    body = {"prompt": PROMPT, "max_tokens": 1500, "temperature": 1, "logit_bias": no_end(http)}
    done: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: done.append(http.post("/v1/completions", json=body).status_code), daemon=True
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: busy(http) == 2)
    for _ in range(20):
        assert http.get("/health").status_code == 200
        assert busy(http) <= 2
    for thread in threads:
        thread.join(60)
    assert done == [200, 200, 200]


# -- start and end ------------------------------------------------------------------


def serve(binary: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [binary, "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **environment},
    )


def test_sigterm_lets_running_requests_finish_and_removes_the_socket(
    real_binary: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    process = serve(real_binary, "-m", "mlxcel-tiny", "--host", str(path), "--port", "0")
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["address"] == f"unix:{path}"
        transport = httpx2.HTTPTransport(uds=str(path))
        with httpx2.Client(transport=transport, base_url="http://localhost", timeout=60) as http:
            eventually(lambda: http.get("/health").status_code == 200)
            body = {
                "prompt": PROMPT,
                "max_tokens": 300,
                "stream": True,
                "temperature": 1,
                "logit_bias": no_end(http),
            }
            with http.stream("POST", "/v1/completions", json=body) as response:
                lines = response.iter_lines()
                next(lines)
                process.send_signal(signal.SIGTERM)
                rest = list(lines)
        assert rest[-2:] == ["data: [DONE]", ""] or rest[-1] == "data: [DONE]"
        assert process.wait(10) == 0
        assert not path.exists()
    finally:
        process.kill()
        process.communicate()


def test_a_key_from_a_file_and_none_in_the_log(real_binary: Path, tmp_path: Path) -> None:
    path, keys = tmp_path / "s.sock", tmp_path / "keys"
    keys.write_text("first-key-1\nsecond-key-2\n")
    process = serve(
        real_binary, "-m", "mlxcel-tiny", "--host", str(path), "--port", "0", "--api-key-file", str(keys)
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        transport = httpx2.HTTPTransport(uds=str(path))
        with httpx2.Client(transport=transport, base_url="http://localhost", timeout=60) as http:
            eventually(lambda: http.get("/health").status_code == 200)
            for key, status in [("first-key-1", 200), ("second-key-2", 200), ("first-key", 401)]:
                answer = http.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
                assert answer.status_code == status
        process.terminate()
        out, err = process.communicate(timeout=10)
        assert "key-1" not in out + err
    finally:
        process.kill()
        process.communicate()


def copy_of_tiny(real_binary: Path, folder: Path) -> Path:
    model = real_binary.resolve().parents[2] / "tiny-model" / "mlxcel-tiny"
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def damage(folder: Path, name: str, change: Callable[[bytes], bytes] | None) -> None:
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if change is not None:
        path.write_bytes(change(content))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("config.json", None, r"config\.json"),
        ("config.json", lambda c: c.replace(b'"llama"', b'"parrot"'), r"parrot.*llama"),
        ("config.json", lambda c: c[:-20], r"config\.json"),
        ("model.safetensors", None, r"safetensors"),
        ("model.safetensors", lambda c: c[:-1000], r"model\.safetensors"),
        (
            "model.safetensors",
            lambda c: c.replace(b"layers.0.mlp.up_proj", b"layers.0.mlp.xx_proj"),
            r"layers\.0\.mlp\.up_proj",
        ),
        (
            "config.json",
            lambda c: re.sub(rb'"intermediate_size": \d+', b'"intermediate_size": 96', c),
            r"mlp\.\w+_proj.*96",
        ),
        ("tokenizer.json", None, r"tokenizer\.json"),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why_in_one_line(
    real_binary: Path, tmp_path: Path, name: str, change: Callable[[bytes], bytes] | None, says: str
) -> None:
    folder = copy_of_tiny(real_binary, tmp_path / "model")
    damage(folder, name, change)
    process = serve(real_binary, "-m", str(folder), "--host", str(tmp_path / "s.sock"), "--port", "0")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    last = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(last) == 1, errors
    assert re.search(says, last[0]), last[0]
    assert "panicked" not in errors


def test_weights_that_cannot_fit_are_refused_before_loading(real_binary: Path, tmp_path: Path) -> None:
    """Two terabytes, of which the disk holds a header: what is read before the check would be seen."""
    folder = copy_of_tiny(real_binary, tmp_path / "model")
    vocab, hidden = 64_000_000, 8192
    end = 4 * vocab * hidden
    tensors = {
        "model.embed_tokens.weight": {"dtype": "F32", "shape": [vocab, hidden], "data_offsets": [0, end]},
        "model.norm.weight": {"dtype": "F32", "shape": [hidden], "data_offsets": [end, end + 4 * hidden]},
    }
    header = json.dumps(tensors).encode()
    damage(folder, "model.safetensors", lambda _: len(header).to_bytes(8, "little") + header)
    os.truncate(folder / "model.safetensors", 8 + len(header) + end + 4 * hidden)
    sizes = {"vocab_size": vocab, "hidden_size": hidden, "num_hidden_layers": 0}
    damage(folder, "config.json", lambda c: json.dumps(json.loads(c) | sizes).encode())
    process = serve(real_binary, "-m", str(folder), "--host", str(tmp_path / "s.sock"), "--port", "0")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"error: .*2097\.2 GB.* GB .*--force", errors), errors


def test_a_chat_without_a_template_suggests_completions(real_binary: Path, tmp_path: Path) -> None:
    folder = copy_of_tiny(real_binary, tmp_path / "model")
    damage(folder, "chat_template.jinja", None)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    damage(folder, "tokenizer_config.json", lambda _: json.dumps(settings).encode())
    with ManagedServer(str(folder), binary=real_binary) as server:
        transport = httpx2.HTTPTransport(uds=server.socket_path)
        headers = {"Authorization": f"Bearer {server.api_key}"}
        with httpx2.Client(
            transport=transport, base_url="http://localhost", headers=headers, trust_env=False
        ) as http:
            body = {"messages": [{"role": "user", "content": "x"}]}
            error = envelope(http.post("/v1/chat/completions", json=body), 400)
            assert "/v1/completions" in error["message"]
            answer = http.post("/v1/completions", json={"prompt": "x", "max_tokens": 1})
            assert answer.status_code == 200


def test_a_path_that_is_not_our_socket_is_left_alone(real_binary: Path, tmp_path: Path) -> None:
    path = tmp_path / "notes.sock"
    path.write_text("precious")
    process = serve(real_binary, "-m", "mlxcel-tiny", "--host", str(path), "--port", "0")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "error: " in errors
    assert str(path) in errors
    assert path.read_text() == "precious"


def test_a_log_that_nobody_reads_disturbs_nothing(real_binary: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    process = serve(real_binary, "-m", "mlxcel-tiny", "--host", str(path), "--port", "0")
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        process.stderr.close()
        transport = httpx2.HTTPTransport(uds=str(path))
        with httpx2.Client(transport=transport, base_url="http://localhost", timeout=60) as http:
            eventually(lambda: http.get("/health").status_code == 200)
            assert text(http)
            envelope(http.get("/nowhere"), 404)
        process.terminate()
        assert process.wait(10) == 0
        assert not path.exists()
    finally:
        process.kill()
        process.wait()


def test_the_bare_command_reads_llama_arg_variables(real_binary: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    process = serve(
        real_binary,
        LLAMA_ARG_MODEL="mlxcel-tiny",
        LLAMA_ARG_HOST=str(path),
        LLAMA_ARG_PORT="0",
        LLAMA_ARG_CTX_SIZE="512",
        LLAMA_ARG_ALIAS="small",
        LLAMA_API_KEY="k",
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        transport = httpx2.HTTPTransport(uds=str(path))
        headers = {"Authorization": "Bearer k"}
        with httpx2.Client(transport=transport, base_url="http://localhost", headers=headers) as http:
            eventually(lambda: http.get("/health").status_code == 200)
            assert http.get("/v1/models").json()["data"][0]["id"] == "small"
            assert http.get("/props").json()["default_generation_settings"]["n_ctx"] == 512
    finally:
        process.terminate()
        process.communicate()


def test_a_listener_is_up_before_the_model_is(real_binary: Path, tmp_path: Path) -> None:
    """A hub that accepts connections and says nothing holds the load for as long as the test wants."""
    path = tmp_path / "s.sock"
    with socket.create_server(("127.0.0.1", 0)) as silent_hub:
        process = serve(
            real_binary,
            "-m",
            "owner/name",
            "--host",
            str(path),
            "--port",
            "0",
            HF_ENDPOINT=f"http://127.0.0.1:{silent_hub.getsockname()[1]}",
            HF_HOME=str(tmp_path / "hub"),
        )
        try:
            assert process.stdout is not None
            process.stdout.readline()
            transport = httpx2.HTTPTransport(uds=str(path))
            with httpx2.Client(transport=transport, base_url="http://localhost") as http:
                health = http.get("/health")
                envelope(health, 503)
                assert health.json()["status"] == "loading"
                assert health.json()["stage"] == "finding"
                assert 0 <= health.json()["progress"] <= 1
                models = http.get("/v1/models")
                envelope(models, 503)
                assert int(models.headers["retry-after"]) > 0
                assert http.get("/").status_code == 200
            process.terminate()
            assert process.wait(10) == 0
            assert not path.exists()
        finally:
            process.kill()
            process.communicate()

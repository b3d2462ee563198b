"""How tokens are chosen, over HTTP with the real binary: samplers, seeds, choices, echo, logprobs."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from mlxcel import ManagedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

PROMPT = "mlxcel is"
HOT: dict[str, Any] = {"temperature": 2.0, "max_tokens": 12}


def start(binary: Path) -> ManagedServer:
    return ManagedServer("mlxcel-tiny", binary=binary, n_parallel=4)


def connect(server: ManagedServer) -> httpx2.Client:
    return httpx2.Client(
        transport=httpx2.HTTPTransport(uds=server.socket_path),
        base_url="http://localhost",
        headers={"Authorization": f"Bearer {server.api_key}"},
        timeout=60,
        trust_env=False,
    )


@pytest.fixture(scope="module")
def http(real_binary: Path) -> Iterator[httpx2.Client]:
    with start(real_binary) as server, connect(server) as client:
        yield client


def complete(http: httpx2.Client, **fields: Any) -> dict[str, Any]:
    body = {"prompt": PROMPT, "max_tokens": 16, "temperature": 0} | fields
    response = http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def texts(http: httpx2.Client, **fields: Any) -> list[str]:
    return [choice["text"] for choice in complete(http, **fields)["choices"]]


def chunks(http: httpx2.Client, **fields: Any) -> list[dict[str, Any]]:
    body = {"prompt": PROMPT, "max_tokens": 16, "temperature": 0, "stream": True} | fields
    lines = http.post("/v1/completions", json=body).text.splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(entry) for entry in data[:-1]]


def tokens(http: httpx2.Client, text: str) -> list[int]:
    ids: list[int] = http.post("/tokenize", json={"content": text}).json()["tokens"]
    return ids


def counts(usage: dict[str, Any]) -> tuple[int, int, int]:
    """Of the prompt, the outputs, and both; what was known of the prompt differs from time to time."""
    return usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]


# -- seeds -------------------------------------------------------------------------


def test_a_seed_means_the_same_alone_in_company_and_after_a_restart(real_binary: Path) -> None:
    def ask(http: httpx2.Client, seed: int) -> tuple[str, ...]:
        return tuple(texts(http, **HOT, seed=seed, n=2))

    with start(real_binary) as server, connect(server) as http:
        alone = [ask(http, seed) for seed in range(6)]
        with ThreadPoolExecutor(6) as pool:
            together = list(pool.map(lambda seed: ask(http, seed), range(6)))
    with start(real_binary) as server, connect(server) as http:
        later = [ask(http, seed) for seed in range(6)]
    assert alone == together == later
    assert len({text for pair in alone for text in pair}) > 6, "seeds and choices differ"


def test_choices_are_independent_of_how_many_there_are(http: httpx2.Client) -> None:
    five = texts(http, **HOT, seed=3, n=5)
    assert texts(http, **HOT, seed=3, n=2) == five[:2]
    assert texts(http, **HOT, seed=3) == five[:1]
    assert len(set(five)) > 1
    assert texts(http, **HOT, seed=4)[0] not in five, "a seed's choices are not the next seed's"


def test_without_a_seed_answers_differ(http: httpx2.Client) -> None:
    for free in ({}, {"seed": None}, {"seed": -1}):
        assert len({texts(http, **HOT, **free)[0] for _ in range(6)}) > 1


# -- samplers ----------------------------------------------------------------------


def test_filters_at_their_narrowest_are_greedy(http: httpx2.Client) -> None:
    greedy = texts(http, max_tokens=12)
    for narrow in ({"top_k": 1}, {"top_p": 0}, {"min_p": 1}):
        assert texts(http, **HOT, seed=1, **narrow) == greedy


def test_typical_xtc_and_dry_change_what_is_said(http: httpx2.Client) -> None:
    plain = [texts(http, **HOT, seed=seed)[0] for seed in range(4)]
    for sampler in ({"typical_p": 0.2}, {"xtc_probability": 1, "xtc_threshold": 0.05}):
        assert [texts(http, **HOT, seed=seed, **sampler)[0] for seed in range(4)] != plain
    off = {"typical_p": 1, "xtc_probability": 0, "dry_multiplier": 0, "min_p": 0, "top_k": 0}
    assert [texts(http, **HOT, seed=seed, **off)[0] for seed in range(4)] == plain


def longest_repetition(ids: list[int]) -> int:
    """The longest run of tokens that occurs twice, overlaps included."""
    best = 0
    for shift in range(1, len(ids)):
        run = 0
        for a, b in zip(ids, ids[shift:], strict=False):
            run = run + 1 if a == b else 0
            best = max(best, run)
    return best


def test_dry_breaks_the_loop_of_a_greedy_model_that_may_not_end(http: httpx2.Client) -> None:
    ends = {str(tokens(http, end)[0]): -100 for end in ("<|im_end|>", "<|endoftext|>")}
    endless = {"max_tokens": 200, "logit_bias": ends}
    looping = longest_repetition(tokens(http, texts(http, **endless)[0]))
    dry = {"dry_multiplier": 4.0, "dry_base": 2.0, "dry_allowed_length": 4, "dry_sequence_breakers": []}
    broken = longest_repetition(tokens(http, texts(http, **endless, **dry)[0]))
    assert looping > 30
    assert broken < 15


def test_llama_servers_names_are_the_same_samplers(http: httpx2.Client) -> None:
    loop = {"max_tokens": 60, "prompt": "one two three one two three one two"}
    assert texts(http, **loop, repeat_penalty=1.4) == texts(http, **loop, repetition_penalty=1.4)
    near = texts(http, **loop, repeat_penalty=1.4, repeat_last_n=4)
    assert near == texts(http, **loop, repetition_penalty=1.4, repetition_context_size=4)
    assert texts(http, **loop, repeat_penalty=1.4, repeat_last_n=0) == texts(http, **loop)
    assert texts(http, max_tokens=None, n_predict=5) == texts(http, max_tokens=5)


def test_the_models_own_defaults_can_be_overridden(real_binary: Path, tmp_path: Path) -> None:
    with start(real_binary) as server, connect(server) as http:
        folder = http.get("/props").json()["model_path"]
        greedy = texts(http, max_tokens=12)
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    config = {"do_sample": True, "temperature": 1.5, "top_k": 1, "typical_p": 0.9, "repetition_penalty": 1.1}
    (copy / "generation_config.json").write_text(json.dumps(config))
    with ManagedServer(str(copy), binary=real_binary) as server, connect(server) as http:
        params = http.get("/props").json()["default_generation_settings"]["params"]
        assert (params["temperature"], params["top_k"]) == (1.5, 1)
        assert params["typical_p"] == pytest.approx(0.9)
        asked = {"prompt": PROMPT, "max_tokens": 12, "repetition_penalty": 1}
        for extra in ({}, {"temperature": None}):
            choice = http.post("/v1/completions", json=asked | extra).json()["choices"][0]
            assert [choice["text"]] == greedy, "top_k 1 is the model's default"
        free = asked | {"top_k": 0, "typical_p": 1}
        answers = {http.post("/v1/completions", json=free | {"seed": seed}).text for seed in range(3)}
        assert len(answers) > 1


# -- several outputs ---------------------------------------------------------------


def test_choices_share_the_prompt_and_stream_interleaved(http: httpx2.Client) -> None:
    # Nobody else asks this, so that nothing of it is known beforehand.
    prompt = "Six answers share the computation of one question, which is"
    asked = {**HOT, "prompt": prompt, "seed": 5, "n": 6, "stop": ["never"]}
    whole = complete(http, **asked)
    prompt_tokens, completion_tokens, total_tokens = counts(whole["usage"])
    assert prompt_tokens == len(tokens(http, prompt))
    assert total_tokens == prompt_tokens + completion_tokens
    # A prompt whose last token were computed for each output would make six more of them.
    assert whole["timings"]["prompt_n"] <= prompt_tokens + 5, "computed once"

    streamed = [""] * 6
    order = []
    ends = []
    usage = None
    for chunk in chunks(http, **asked, stream_options={"include_usage": True}):
        if not chunk["choices"]:
            usage = chunk["usage"]
            continue
        (choice,) = chunk["choices"]
        streamed[choice["index"]] += choice["text"]
        order.append(choice["index"])
        if choice["finish_reason"]:
            ends.append(choice["index"])
    assert streamed == [choice["text"] for choice in whole["choices"]]
    assert sorted(ends) == list(range(6))
    assert order != sorted(order), "choices come side by side"
    assert usage is not None
    assert counts(usage) == counts(whole["usage"])


def test_every_prompt_has_its_choices(http: httpx2.Client) -> None:
    prompts = [PROMPT, "What is"]
    both = complete(http, **HOT, seed=2, n=2, prompt=prompts)["choices"]
    assert [choice["index"] for choice in both] == [0, 1, 2, 3]
    single = [texts(http, **HOT, seed=2, n=2, prompt=prompt) for prompt in prompts]
    assert [choice["text"] for choice in both] == single[0] + single[1]


def test_the_best_are_those_with_the_highest_logprob_per_token(http: httpx2.Client) -> None:
    asked = {**HOT, "seed": 8, "logprobs": 0}
    candidates = complete(http, **asked, n=6)["choices"]

    def mean(choice: dict[str, Any]) -> float:
        logprobs = choice["logprobs"]["token_logprobs"]
        return sum(logprobs) / len(logprobs) if logprobs else float("-inf")

    ranked = sorted(candidates, key=mean, reverse=True)
    best = complete(http, **asked, n=2, best_of=6)
    assert [choice["text"] for choice in best["choices"]] == [choice["text"] for choice in ranked[:2]]
    assert [choice["index"] for choice in best["choices"]] == [0, 1]
    everything = complete(http, **asked, n=6)
    assert counts(best["usage"]) == counts(everything["usage"]), "what is not shown counts too"
    del asked["logprobs"]
    (silent,) = complete(http, **asked, best_of=6)["choices"]
    assert silent["text"] == ranked[0]["text"]
    assert silent["logprobs"] is None


# -- the prompt --------------------------------------------------------------------


def test_an_echo_is_the_prompt_and_what_follows_it(http: httpx2.Client) -> None:
    after = texts(http)[0]
    assert texts(http, echo=True) == [PROMPT + after]
    assert texts(http, echo=True, prompt=tokens(http, PROMPT)) == [PROMPT + after]
    assert texts(http, echo=True, n=2) == [PROMPT + after] * 2
    # A stop string is looked for in the output only.
    assert texts(http, echo=True, stop="is")[0].startswith(PROMPT)
    streamed = chunks(http, echo=True)
    assert streamed[0]["choices"][0]["text"] == PROMPT
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == PROMPT + after


def test_a_prompt_alone_is_scored(http: httpx2.Client) -> None:
    prompt = "What is 17 + 25? Grüße, 世界"
    answer = complete(http, prompt=prompt, max_tokens=0, echo=True, logprobs=2)
    (choice,) = answer["choices"]
    assert choice["text"] == prompt
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 0
    logprobs = choice["logprobs"]
    assert len(logprobs["tokens"]) == answer["usage"]["prompt_tokens"]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    rest = zip(logprobs["token_logprobs"][1:], logprobs["top_logprobs"][1:], strict=True)
    for logprob, top in rest:
        assert logprob <= 0
        assert max(top.values()) >= logprob
    offsets = logprobs["text_offset"]
    assert offsets == sorted(offsets)
    assert offsets[-1] < len(prompt)
    for token, offset in zip(logprobs["tokens"], offsets, strict=True):
        assert token.startswith(("bytes:", "<")) or prompt.startswith(token, offset)


def test_a_prompts_logprobs_are_those_it_had_as_an_output(http: httpx2.Client) -> None:
    first = complete(http, logprobs=1, max_tokens=24)["choices"][0]
    ids = tokens(http, PROMPT)
    whole = ids + tokens(http, first["text"])
    if len(whole) != len(ids) + len(first["logprobs"]["tokens"]):
        pytest.skip("the output's tokens are not those of its text")
    scored = complete(http, prompt=whole, max_tokens=0, echo=True, logprobs=1)["choices"][0]["logprobs"]
    made = first["logprobs"]["token_logprobs"]
    assert scored["token_logprobs"][-len(made) :] == pytest.approx(made, abs=1e-3)


def test_nothing_can_be_asked_for(http: httpx2.Client) -> None:
    answer = complete(http, max_tokens=0)
    assert [choice["text"] for choice in answer["choices"]] == [""]
    assert answer["usage"]["completion_tokens"] == 0
    assert texts(http, max_tokens=0, echo=True) == [PROMPT]
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 0}
    assert http.post("/v1/chat/completions", json=chat).status_code == 400


def test_echoed_logprobs_stream_before_those_of_the_output(http: httpx2.Client) -> None:
    whole = complete(http, echo=True, logprobs=1)["choices"][0]
    streamed = chunks(http, echo=True, logprobs=1)
    parts = [chunk["choices"][0]["logprobs"] for chunk in streamed if chunk["choices"][0]["logprobs"]]
    for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
        assert [entry for part in parts for entry in part[name]] == whole["logprobs"][name]


# -- what cannot be ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"typical_p": 1.5}, "typical_p"),
        ({"typical_p": -0.1}, "typical_p"),
        ({"xtc_probability": 2}, "xtc_probability"),
        ({"xtc_threshold": -1}, "xtc_threshold"),
        ({"dry_multiplier": -1}, "dry_multiplier"),
        ({"dry_base": 0}, "dry_base"),
        ({"dry_allowed_length": -2}, "dry_allowed_length"),
        ({"dry_penalty_last_n": -2}, "dry_penalty_last_n"),
        ({"dry_sequence_breakers": "\n"}, "dry_sequence_breakers"),
        ({"dry_sequence_breakers": [1]}, "dry_sequence_breakers"),
        ({"dry_sequence_breakers": ["x"] * 100}, "dry_sequence_breakers"),
        ({"repeat_last_n": -7}, "repeat_last_n"),
        ({"repetition_context_size": 0}, "repetition_context_size"),
        ({"repeat_penalty": -1}, "repeat_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"n": -1}, "n"),
        ({"n": 10**9}, "n"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"best_of": 0}, "best_of"),
        ({"best_of": 4, "stream": True}, "best_of"),
        ({"echo": "yes"}, "echo"),
        ({"logprobs": -1}, "logprobs"),
        ({"seed": 2**64}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"mirostat": 2}, "mirostat"),
        ({"top_n_sigma": 1}, "top_n_sigma"),
    ],
)
def test_a_wrong_field_is_named(http: httpx2.Client, fields: dict[str, Any], param: str) -> None:
    response = http.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 2} | fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].startswith(param)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(http: httpx2.Client, number: str) -> None:
    body = f'{{"prompt": "a", "max_tokens": 2, "temperature": {number}}}'
    response = http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["code"] == "invalid_json"

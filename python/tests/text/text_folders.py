"""Model folders around a tokenizer: the smallest Llama that serves its vocabulary, with random weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mlx.core as mx

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2

HIDDEN = 32


def write_model(folder: Path, vocab: int, **config: Any) -> None:
    """`config.json` and the weights of one layer beside whatever the folder has; `config` adds fields."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": vocab,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(settings | config))
    mx.random.seed(3)
    square = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    square += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    layer = {f"{name}.weight": mx.random.normal((HIDDEN, HIDDEN)) * 0.2 for name in square}
    layer |= {f"{name}_layernorm.weight": mx.ones(HIDDEN) for name in ("input", "post_attention")}
    weights = {f"model.layers.0.{name}": value for name, value in layer.items()}
    weights["model.embed_tokens.weight"] = mx.random.normal((vocab, HIDDEN))
    weights["model.norm.weight"] = mx.ones(HIDDEN)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})


def ask(http: httpx2.Client, path: str, **body: Any) -> dict[str, Any]:
    """What an endpoint answers to a request that it takes."""
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def tokenize(http: httpx2.Client, text: str, **options: bool) -> list[int]:
    """`/tokenize`."""
    ids: list[int] = ask(http, "/tokenize", content=text, **options)["tokens"]
    return ids


def detokenize(http: httpx2.Client, ids: list[int]) -> str:
    """`/detokenize`."""
    text: str = ask(http, "/detokenize", tokens=ids)["content"]
    return text

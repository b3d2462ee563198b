"""What `--quantize-activations` costs: perplexity on held-out text, and speed, with the flag and without.

The text is what mlxcel-tiny never saw in training, from the scripts that made its training text; the
model is mlxcel-tiny, quantized here. Both servers score the same documents (`echo` with `logprobs`).
Speeds are of a random 90M model, asked in turn.

    python bench/perplexity.py [--bits 4 8] [--documents 300] [--rounds 5]
        [--out bench/results/perplexity.json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import random_models
import servers
from cpu_vs_peers import PREFILL_WORDS, complete, decode
from mlx_lm.utils import load_model, quantize_model, save_config, save_model
from serve_vs_mlx_lm import Peer, client, prompt_of

if TYPE_CHECKING:
    from collections.abc import Sequence

FLAG = "--quantize-activations"
GROUP = 64
# The aim: below it the flag could be on by default.
AIM = 0.1


def held_out(count: int) -> list[str]:
    """Documents of every task of mlxcel-tiny, of the split that training never sees."""
    sys.path.insert(0, str(random_models.TINY.parent))
    import chat
    import generate

    each = -(-count // len(generate.EVALUATED))
    examples = [example for task in generate.EVALUATED for example in generate.held_out(task, each)]
    random.Random(1).shuffle(examples)
    return [chat.render(list(example.messages), list(example.tools)) for example in examples[:count]]


def quantized(bits: int, folder: Path) -> None:
    """mlxcel-tiny in `bits` bits."""
    model, config = load_model(random_models.TINY)
    model, config = quantize_model(model, config, group_size=GROUP, bits=bits)
    folder.mkdir()
    save_model(folder, model)
    save_config(config, folder / "config.json")
    for path in random_models.TINY.iterdir():
        if path.name not in ("model.safetensors", "config.json"):
            shutil.copy(path, folder)


def score(server: Peer, documents: Sequence[str]) -> list[float]:
    """The log-probabilities of all tokens but each document's first."""
    scores: list[float] = []
    for text in documents:
        body: dict[str, Any] = {
            "model": server.model,
            "prompt": text,
            "max_tokens": 0,
            "echo": True,
            "logprobs": 0,
        }
        response = server.client.post("completions", json=body)
        if response.status_code != 200:
            raise SystemExit(f"{server.name}: {response.status_code} {response.text}")
        scores += response.json()["choices"][0]["logprobs"]["token_logprobs"][1:]
    return scores


def perplexities(bits: int, documents: Sequence[str], folder: Path) -> dict[str, float]:
    """Of both servers, how they differ, and how sure that is."""
    quantized(bits, folder)
    scores = []
    for flags in ((), (FLAG,)):
        with servers.mlxcel(folder, extra_args=flags) as server, client(server) as peer:
            scores.append(score(peer, documents))
    plain, flagged = scores
    differences = [a - b for a, b in zip(plain, flagged, strict=True)]
    # The same tokens were scored, so the spread of the differences says how sure their mean is.
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    report = {
        "tokens": len(plain),
        "plain": math.exp(-statistics.fmean(plain)),
        "quantized activations": math.exp(-statistics.fmean(flagged)),
        "moved by %": 100 * math.expm1(statistics.fmean(differences)),
        "standard error %": 100 * error,
    }
    print(
        f"{bits}-bit mlxcel-tiny, {report['tokens']} held-out tokens: perplexity {report['plain']:.5f}, "
        f"with {FLAG} {report['quantized activations']:.5f}, "
        f"moved by {report['moved by %']:+.4f}% ± {100 * error:.4f}%"
    )
    return report


def speeds(rounds: int, folder: Path) -> dict[str, Any]:
    """Decode and prefill of one stream in tokens a second, 90M parameters in 4 bits."""
    random_models.write(random_models.SHAPES["90M-4bit"], folder)
    generator = random.Random(1)
    found: dict[str, dict[str, list[float]]] = {"decode": {}, "prefill": {}}
    with contextlib.ExitStack() as stack:
        peers = {
            name: stack.enter_context(client(stack.enter_context(servers.mlxcel(folder, extra_args=flags))))
            for name, flags in (("plain", ()), ("quantized activations", (FLAG,)))
        }
        for peer in peers.values():
            complete(peer, prompt_of(8, generator), 8)
        for _ in range(rounds):
            for name, peer in peers.items():
                found["decode"].setdefault(name, []).append(decode(peer, generator))
                took, tokens, _ = complete(peer, prompt_of(PREFILL_WORDS, generator), 1)
                found["prefill"].setdefault(name, []).append(tokens / took)
    for what, by_name in found.items():
        plain, flagged = (statistics.median(values) for values in by_name.values())
        print(f"{what:8} {plain:8.1f} tok/s, with {FLAG} {flagged:8.1f} tok/s: {flagged / plain:5.2f}x")
    return dict(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bits", type=int, nargs="+", choices=[4, 8], default=[4, 8])
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5, help="of the speeds; 0 leaves them out")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    documents = held_out(arguments.documents)
    report: dict[str, Any] = {"documents": len(documents), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as temporary:
        for bits in arguments.bits:
            report[f"{bits}-bit"] = perplexities(bits, documents, Path(temporary) / f"{bits}-bit")
        if arguments.rounds:
            print(f"load {os.getloadavg()[0]:.1f}")
            report["speed"] = speeds(arguments.rounds, Path(temporary) / "90M")
    worst = max(abs(report[f"{bits}-bit"]["moved by %"]) for bits in arguments.bits)
    print(f"perplexity moves by {worst:.3f}%; below {AIM}% the flag could be on by default")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Loads any OpenAI-compatible server with streamed requests and reports latencies and throughput.

    python bench/serve.py --base-url http://127.0.0.1:8080/v1 --num-prompts 100 --max-concurrency 8
    python bench/serve.py --base-url http://127.0.0.1:8080/v1 --num-prompts 100 --request-rate 4

The words are those of `vllm bench serve`: TTFT (time to first token), TPOT (time per output token
after the first), ITL (inter-token latency: every wait between two chunks), E2EL (end to end), each
in milliseconds as mean, p50, p95 and p99. `--json` prints the same as one object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

from load import report
from load.client import ROUTES
from load.prompts import Prompts
from load.run import Load, Target, run

TINY = Path(__file__).resolve().parents[1] / "tiny-model" / "mlxcel-tiny"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/serve.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-url", required=True, help="address that ends with /v1")
    parser.add_argument("--socket", help="Unix socket to reach it through")
    parser.add_argument("--api-key-file", type=Path, help="file that holds the key")
    parser.add_argument("--model", help="default: the first that /v1/models lists")
    parser.add_argument("--endpoint", choices=ROUTES, default="completions")
    parser.add_argument("--num-prompts", type=int, default=100)
    parser.add_argument("--input-len", type=int, default=128, help="prompt tokens, counted by --tokenizer")
    parser.add_argument("--prefix-len", type=int, default=0, help="how many of them all prompts share")
    parser.add_argument("--output-len", type=int, default=128, help="max_tokens")
    parser.add_argument("--tokenizer", type=Path, default=TINY, help="folder with the model's tokenizer.json")
    parser.add_argument("--request-rate", type=float, help="requests a second; default: all at once")
    parser.add_argument("--burstiness", type=float, default=1.0, help="1: Poisson; more: steadier")
    parser.add_argument("--max-concurrency", type=int, help="requests in flight at most")
    parser.add_argument(
        "--extra-body", type=json.loads, default={}, help="JSON object added to every request"
    )
    parser.add_argument("--warmups", type=int, default=1, help="requests before the clock starts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not 0 <= arguments.prefix_len <= arguments.input_len:
        parser.error("--prefix-len is between 0 and --input-len")
    for name in ("num_prompts", "input_len", "output_len", "max_concurrency", "request_rate", "burstiness"):
        value = getattr(arguments, name)
        if value is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')} is more than 0")
    return arguments


async def first_model(target: Target) -> str:
    async with target.session() as session, session.get(f"{target.base_url}/models") as response:
        if response.status != 200:
            raise SystemExit(f"{target.base_url}/models: {response.status} {(await response.text())[:200]}")
        return str((await response.json())["data"][0]["id"])


async def main() -> int:
    arguments = parse()
    headers = {}
    if arguments.api_key_file:
        headers["Authorization"] = f"Bearer {arguments.api_key_file.read_text().strip()}"
    base_url = arguments.base_url.rstrip("/")
    target = Target(base_url, arguments.model or "", headers, arguments.socket, arguments.endpoint)
    if not target.model:
        target = Target(base_url, await first_model(target), headers, arguments.socket, arguments.endpoint)
    prompts = Prompts(arguments.tokenizer, arguments.seed)

    def some(count: int) -> list[tuple[str, int]]:
        return [
            (prompts.draw(arguments.input_len, arguments.prefix_len), arguments.output_len)
            for _ in range(count)
        ]

    if arguments.warmups:
        await run(target, Load(concurrency=1), some(arguments.warmups), arguments.extra_body)
    load = Load(arguments.request_rate, arguments.max_concurrency, arguments.burstiness, arguments.seed)
    figures = report.summary(await run(target, load, some(arguments.num_prompts), arguments.extra_body))
    if arguments.json:
        print(json.dumps(figures))
    else:
        print(f"{target.model} at {target.base_url}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print(report.text(figures))
    return 0 if figures["completed"] and not figures["failed"] else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

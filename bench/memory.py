"""What a server's memory does over many requests of random lengths.

Sends requests with random prompts and random output lengths, some at a time, and prints the resident
memory after every hundredth, and the ratio of the last to the first of these.

    python bench/memory.py [--model FOLDER] [--requests 1000] [--concurrency 8] [--budget 64MiB]
"""

from __future__ import annotations

import argparse
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from mlxcel import ManagedServer

TINY = Path(__file__).resolve().parent.parent / "tiny-model" / "mlxcel-tiny"
EVERY = 100


def ask(client: httpx2.Client, seed: int, longest: int) -> None:
    """One request whose prompt no other has."""
    generator = random.Random(seed)
    tokens = [generator.randrange(40, 1000) for _ in range(generator.randrange(1, longest))]
    body = {"prompt": tokens, "max_tokens": generator.randrange(1, 40), "temperature": 0}
    response = client.post("completions", json=body)
    if response.status_code != 200:
        raise SystemExit(f"{response.status_code} {response.text}")


def resident(client: httpx2.Client) -> int:
    """Bytes of resident memory, once the engine has nothing to do."""
    while True:
        props = client.get("../props").json()
        if props["busy_slots"] + props["queued_requests"] == 0:
            # The engine gives memory back when it has become idle.
            time.sleep(0.2)
            return int(client.get("../props").json()["memory"]["rss_bytes"])
        time.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=TINY)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--longest", type=int, default=400, help="tokens of the longest prompt")
    parser.add_argument("--budget", default="64MiB", help="--kv-cache-budget of the server")
    arguments = parser.parse_args()

    extra = ["--kv-cache-budget", arguments.budget]
    with ManagedServer(str(arguments.model), host="127.0.0.1", extra_args=extra) as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        client = httpx2.Client(base_url=server.base_url, headers=headers, timeout=600, trust_env=False)
        with client, ThreadPoolExecutor(arguments.concurrency) as pool:
            readings = []
            for first in range(0, arguments.requests, EVERY):
                seeds = range(first, min(first + EVERY, arguments.requests))
                list(pool.map(lambda seed: ask(client, seed, arguments.longest), seeds))
                readings.append(resident(client))
                print(f"after {seeds.stop:5} requests: {readings[-1] / 1e6:7.1f} MB resident")
            print(f"last / first: {readings[-1] / readings[0]:.3f}")


if __name__ == "__main__":
    main()

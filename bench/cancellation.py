"""How long a slot stays taken after its client has gone.

Closes connections in the middle of an answer and asks the server until its slot is free. What asking
takes is in the figure, and printed beside it.

    python bench/cancellation.py [--rounds 50]
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import time

import httpx2

from mlxcel import ManagedServer

LIMIT_MS = 200.0

# The tokens that would end the answer are ruled out.
ENDLESS = {"prompt": "mlxcel is", "temperature": 1, "logit_bias": {"2040": -100, "2041": -100}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    args = parser.parse_args()
    with ManagedServer("mlxcel-tiny") as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        transport = httpx2.HTTPTransport(uds=server.socket_path)
        with httpx2.Client(
            transport=transport, base_url="http://localhost", headers=headers, trust_env=False
        ) as http:
            for stream in (True, False):
                report(http, server, stream, args.rounds)


def report(http: httpx2.Client, server: ManagedServer, stream: bool, rounds: int) -> None:
    freed = []
    for _ in range(rounds):
        connection = begin(server, stream)
        until(http, busy=True)
        connection.close()
        freed.append(until(http, busy=False))
    asking = []
    for _ in range(rounds):
        start = time.perf_counter()
        http.get("/props")
        asking.append(1e3 * (time.perf_counter() - start))
    print(
        f"{'streamed' if stream else 'whole':8} free after {statistics.median(freed):6.1f} ms (median), "
        f"{max(freed):6.1f} ms (most) = {max(freed) / LIMIT_MS:.2f} of the {LIMIT_MS:.0f} ms allowed; "
        f"one look takes {statistics.median(asking):.1f} ms"
    )


def begin(server: ManagedServer, stream: bool) -> socket.socket:
    """Asks for an answer that takes long, and reads nothing of it."""
    body = json.dumps(ENDLESS | {"stream": stream})
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(server.socket_path))
    connection.sendall(
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.api_key}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return connection


def until(http: httpx2.Client, *, busy: bool) -> float:
    """Milliseconds until the server is busy, or not."""
    start = time.perf_counter()
    while (http.get("/props").json()["busy_slots"] > 0) != busy:
        if time.perf_counter() > start + 30:
            raise SystemExit("the slot did not change within 30 s")
    return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()

"""What the bare server takes: from exec to listening, to healthy, to its first token, and to its end.

No client library: a socket and a few lines of HTTP. With two binaries they take turns, and the ratio
of the medians is printed.

    python bench/server_start.py [--binary FILE]... [--model mlxcel-tiny] [--rounds 20]
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

BINARY = Path(__file__).parents[1] / "target" / "release" / "mlxcel"
STAGES = ("listening", "healthy", "first token", "end")


def ask(path: Path, method: str, route: str, body: object = None) -> tuple[int, IO[bytes]]:
    """The status of an answer, and the rest of it to read."""
    content = b"" if body is None else json.dumps(body).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(
            f"{method} {route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        answer = connection.makefile("rb")
        return int(answer.readline().split()[1]), answer


def once(binary: Path, model: str, path: Path) -> tuple[float, ...]:
    """Milliseconds of each stage; the end counts from SIGTERM."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [binary, "serve", "-m", model, "--host", path, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        listening = time.perf_counter()
        while ask(path, "GET", "/health")[0] != 200:
            time.sleep(0.0005)
        healthy = time.perf_counter()
        body = {"prompt": "mlxcel is", "max_tokens": 1, "stream": True}
        _, answer = ask(path, "POST", "/v1/completions", body)
        while not answer.readline().startswith(b"data: "):
            pass
        token = time.perf_counter()
        answer.close()
        process.terminate()
        process.wait(30)
        end = time.perf_counter()
    finally:
        process.kill()
        process.wait()
    return tuple(1e3 * t for t in (listening - begin, healthy - begin, token - begin, end - token))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--binary", type=Path, action="append", help="given twice, the two are compared")
    parser.add_argument("--model", default="mlxcel-tiny")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    binaries: list[Path] = args.binary or [BINARY]
    taken: list[list[tuple[float, ...]]] = [[] for _ in binaries]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for runs, binary in zip(taken, binaries, strict=True):
                runs.append(once(binary, args.model, Path(folder) / "s.sock"))
    for place, stage in enumerate(STAGES):
        medians = [statistics.median(run[place] for run in runs) for runs in taken]
        line = "  ".join(
            f"median {median:6.1f} ms, least {min(run[place] for run in runs):6.1f} ms"
            for median, runs in zip(medians, taken, strict=True)
        )
        ratio = f"  ratio {medians[1] / medians[0]:.2f}" if len(medians) == 2 else ""
        print(f"{stage:12} {line}{ratio}")


if __name__ == "__main__":
    main()

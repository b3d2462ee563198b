"""From `LLM("mlxcel-tiny")` to the first token, beside the bare server's own time (aim: 1.15x).

By turns: the bare server from exec to its first streamed token over its socket; the same through
`LLM` with the SDK already imported; the same in a fresh interpreter, where the longer of the bare
server and `import openai` is the measure. Prints the medians, and those of each round's ratios.

    python bench/start.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlxcel
from mlxcel._binary import find_binary

MODEL = "mlxcel-tiny"
FRESH = f"""
import time; start = time.perf_counter()
from mlxcel import LLM
with LLM({MODEL!r}, progress=False) as llm, llm.stream("Hello", max_tokens=1) as stream:
    next(iter(stream)); print(time.perf_counter() - start)
"""
IMPORT = "import time; start = time.perf_counter(); import openai; print(time.perf_counter() - start)"


class Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def bare() -> float:
    """Exec to first token with nothing in between but a client that asks every millisecond."""
    body = json.dumps({"prompt": "Hello", "max_tokens": 1, "stream": True})
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "s.sock")
        command = [str(find_binary(None)), "serve", "-m", MODEL, "--host", path, "--port", "0"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")}
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        try:
            while True:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    connection = Unix(path)
                    connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
                    response = connection.getresponse()
                    if response.status == 200:
                        while not (line := response.readline()).startswith(b"data:"):
                            if not line:
                                raise SystemExit("the bare server ended its stream")
                        return time.perf_counter() - start
                    connection.close()
                if process.poll() is not None:
                    raise SystemExit(f"the bare server ended with {process.returncode}")
                time.sleep(0.001)
        finally:
            process.terminate()
            process.wait()


def imported() -> float:
    start = time.perf_counter()
    with mlxcel.LLM(MODEL, progress=False) as llm, llm.stream("Hello", max_tokens=1) as stream:
        next(iter(stream))
        return time.perf_counter() - start


def printed(code: str) -> float:
    return float(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    compileall.compile_dir(Path(mlxcel.__file__).parent, quiet=1)  # as an installer does
    cases = {
        "bare": bare,
        "imported": imported,
        "fresh": lambda: printed(FRESH),
        "openai": lambda: printed(IMPORT),
    }
    seen: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds + 1):  # the first one warms the file cache
        for name, case in cases.items():
            seen[name].append(case())
    seen = {name: [value * 1000 for value in values[1:]] for name, values in seen.items()}
    longer = [max(pair) for pair in zip(seen["bare"], seen["openai"], strict=True)]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {rounds} rounds; medians in ms")
    rows = (
        ("bare server, exec to first token", seen["bare"], None),
        ("LLM, SDK imported", seen["imported"], seen["bare"]),
        ("import openai", seen["openai"], None),
        ("LLM, fresh interpreter, of the longer", seen["fresh"], longer),
    )
    for name, values, beside in rows:
        line = f"{name:40} {statistics.median(values):7.1f}"
        if beside is not None:
            # Of each round's: its parts saw the same load.
            ratios = [value / other for value, other in zip(values, beside, strict=True)]
            line += f"   {statistics.median(ratios):.2f}x"
        print(line)


if __name__ == "__main__":
    main()

"""Starts and stops a server again and again; nothing may be left (aim: every count as before).

Counts this process's children, sockets and folders of ours, open descriptors and threads before and
after. Exits with 1 when a count has grown.

    python bench/start_stop_cycles.py [--cycles 200]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import threading
from pathlib import Path

import psutil

from mlxcel import LLM


def counts() -> dict[str, int]:
    gc.collect()
    places = {Path(tempfile.gettempdir()), Path("/tmp"), Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")}
    ours = [entry for place in places for entry in place.glob("mlxcel*")]
    servers = [
        process
        for process in psutil.process_iter(["name", "uids"])
        if process.info["name"] == "mlxcel" and process.info["uids"].real == os.getuid()
    ]
    return {
        "children": len(psutil.Process().children(recursive=True)),
        "servers": len(servers),
        "sockets": sum(1 for folder in ours for _ in folder.rglob("*.sock")),
        "files": sum(1 for folder in ours for _ in folder.rglob("*")),
        "folders": len(ours),
        "descriptors": psutil.Process().num_fds(),
        "threads": threading.active_count(),
        "native threads": psutil.Process().num_threads(),
    }


def cycle() -> None:
    with LLM("mlxcel-tiny", progress=False) as llm:
        llm.generate("Hello", max_tokens=1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cycles", type=int, default=200)
    cycles = parser.parse_args().cycles
    cycle()  # what is made once (a folder for this user, the SDK's threads) is no leak
    before = counts()
    for done in range(1, cycles + 1):
        cycle()
        if done % 50 == 0:
            print(f"{done} cycles", file=sys.stderr)
    after = counts()
    for name, count in before.items():
        print(f"{name:16} {count:5} before   {after[name]:5} after {cycles} cycles")
    return any(after[name] > count for name, count in before.items())


if __name__ == "__main__":
    sys.exit(main())

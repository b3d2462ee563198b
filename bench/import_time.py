"""What `import mlxcel` costs beside `import openai` (aim: at most a fifth).

Fresh interpreters by turns; an empty one is subtracted from both. Prints the medians.

    python bench/import_time.py [--rounds 25]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    codes = {"nothing": "pass", "mlxcel": "import mlxcel", "openai": "import openai"}
    seen: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(rounds + 1):  # the first one warms the file cache
        for name, code in codes.items():
            seen[name].append(seconds(code))
    empty, with_ours, with_sdk = (statistics.median(values[1:]) * 1000 for values in seen.values())
    ours, sdk = with_ours - empty, with_sdk - empty
    print(f"import mlxcel {ours:.1f} ms   import openai {sdk:.1f} ms   ratio {ours / sdk:.3f}")


if __name__ == "__main__":
    main()

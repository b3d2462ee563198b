"""What all cores together read of memory that no cache holds."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

BYTES = 256 << 20


class Reader:
    """Reads the same memory again and again."""

    def __init__(self) -> None:
        self.threads = len(os.sched_getaffinity(0))
        self.parts = np.array_split(np.ones(BYTES // 8, dtype=np.uint64), self.threads)

    def speed(self, passes: int = 3) -> float:
        """Bytes a second: the best of some passes."""
        best = 0.0
        with ThreadPoolExecutor(self.threads) as pool:
            for _ in range(passes):
                start = time.perf_counter()
                list(pool.map(np.max, self.parts))
                best = max(best, BYTES / (time.perf_counter() - start))
        return best

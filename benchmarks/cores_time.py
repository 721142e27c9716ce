"""What the cores' time went to, as the system counts it: how idle a machine is, and what other machines take of it.

Source: proc_stat(5).
"""

import time
from pathlib import Path

STAT = Path("/proc/stat")
IDLE, IOWAIT, STEAL = 3, 4, 7  # of the fields of its first line


def ticks() -> list[int]:
    """Return the time of all cores so far by what it went to, in hundredths of a second; 0 where nothing tells."""
    return [int(word) for word in STAT.read_text().split("\n", 1)[0].split()[1:9]] if STAT.exists() else [0] * 8


def share(before: list[int], *fields: int) -> float:
    """Return which share of the time since then, 0..1, went to some fields."""
    spent = [end - start for start, end in zip(before, ticks(), strict=True)]
    return sum(spent[field] for field in fields) / max(1, sum(spent))


def idle_share(seconds: float = 1.0) -> float:
    """Return which share of the cores' time is idle, measured now; 1 where the system does not say."""
    before = ticks()
    time.sleep(seconds)
    return share(before, IDLE, IOWAIT) if STAT.exists() else 1.0

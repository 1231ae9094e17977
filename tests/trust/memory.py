"""The most memory a process has held.

`ru_maxrss` will not do: it never falls, and a process starts with that of the one it came from.
"""

from __future__ import annotations

from pathlib import Path

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def can_be_told() -> bool:
    """Whether this system says it: Linux does."""
    return STATUS.exists() and FORGET.exists()


def forget_peak() -> None:
    """Count from now on; the peak is what is held at this moment."""
    FORGET.write_text("5", encoding="ascii")


def peak() -> int:
    """The most that was held since, in megabytes."""
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) // 1024

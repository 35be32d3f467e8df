"""Memory of a benchmark's process."""

from pathlib import Path


def peak_gb() -> float:
    """Largest memory of this process so far (Linux; getrusage would give the parent's, which forked it)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20

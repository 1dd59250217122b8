"""What the work runs on: whether a device can be used, its name, and the most memory that this process held."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from audiodiff.errors import InputError

if TYPE_CHECKING:
    import torch


def check_device(device: torch.device | str) -> None:
    """Refuses a device that this machine or this torch does not have.

    Raises:
        InputError: unknown, or not usable here.
    """
    import torch  # the command line starts without it

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"device {device}: cannot be used here ({reason}); cpu always can") from None


def device_name(device: torch.device | str) -> str:
    """Returns the name of an accelerator, or of the processor with the threads that it uses."""
    import torch  # the command line starts without it

    kind = torch.device(device).type
    if kind == "cuda":
        return str(torch.cuda.get_device_name(device))
    if kind == "cpu":
        threads = torch.get_num_threads()
        return f"{cpu_name()}, {threads} thread{'' if threads == 1 else 's'}"
    return kind


def cpu_name() -> str:
    """Returns the processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def peak_memory_bytes() -> int | None:
    """Returns the most resident memory that this process held since it began; None where the system does not tell.

    Linux is asked by VmHWM: its `ru_maxrss` also remembers the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS tells bytes, others KiB

"""Choose the device and translate its faults. Knows no image and no setting but the device's name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engine.errors import DeviceFault, InvalidSettings


def resolve_device(name: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`. Raises InvalidSettings where CUDA is asked for and there is none."""
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    if name == "cuda" and not available:
        raise InvalidSettings("device: expected a CUDA device, found none; set auto or cpu, or check the driver")
    if name not in {"cpu", "cuda"}:
        raise InvalidSettings(f"device: expected auto, cpu or cuda, not {name!r}")
    return torch.device(name)


CPU_MEMORY = ("DefaultCPUAllocator", "not enough memory", "bad allocation", "std::bad_alloc")
"""What torch says where the CPU's memory runs out: it has no error type of its own for that."""


@contextmanager
def device_faults(device: torch.device) -> Iterator[None]:
    """Turn a device's faults inside the block into DeviceFault: the same work may succeed later or elsewhere."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as exc:
        raise DeviceFault(f"{device}: out of memory ({_line(exc)})") from exc
    except torch.AcceleratorError as exc:
        raise DeviceFault(f"{device}: the device failed ({_line(exc)})") from exc
    except RuntimeError as exc:
        if not any(word in str(exc) for word in CPU_MEMORY):
            raise
        raise DeviceFault(f"{device}: out of memory ({_line(exc)})") from exc


def _line(exc: BaseException) -> str:
    """The first line: what follows are the library's hints and its stack."""
    return str(exc).partition("\n")[0]

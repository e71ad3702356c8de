"""How much memory this process uses, and a limit on what a library may take of it for one piece of work.

Linux only, like the node. Knows no image.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATM = Path("/proc/self/statm")


def used_bytes() -> int:
    """Size of the address space. Source: proc_pid_statm(5)."""
    return int(_STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def at_most(extra_bytes: int) -> Iterator[None]:
    """Within the block the process can't grow by more than this: what asks for more is told that there is none.

    For native decoders, whose need is written in a few bytes of a foreign stream. The kernel would else grant it, and
    kill the process, or another one, when it is used.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = used_bytes() + extra_bytes
    stricter = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *stricter]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

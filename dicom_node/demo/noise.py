"""Keep what C libraries write straight to standard error out of a person's sight. Knows no library."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def diverted(log: Path) -> Iterator[None]:
    """Append what is written to file descriptor 2 meanwhile to a file: decoders complain there about damaged images."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)

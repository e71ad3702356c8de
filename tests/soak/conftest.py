"""The long tests run by `make soak` only: they need many minutes and both cores."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("EVENRAY_SOAK") == "1" else ["test_*.py"]

"""What holds for every test: properties are tried with the same examples on every machine and at every run."""

from __future__ import annotations

from hypothesis import settings

# No deadline: the machine may be busy, and a slow example is no fault.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

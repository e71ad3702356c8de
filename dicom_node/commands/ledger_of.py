"""The ledger that a command looks at: the one of the state directory that its options name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_node.commands.serve import load
from dicom_node.errors import BadInput
from dicom_node.ledger import Ledger
from dicom_node.settings import Settings


@contextmanager
def ledger_of(config: Path | None, state_dir: Path | None) -> Iterator[tuple[Settings, Ledger]]:
    """The settings and their ledger, closed at the end. Raises BadInput where no node has run yet."""
    settings = load(config, state_dir)
    file = settings.state_dir / "ledger.sqlite"
    if not file.exists():
        raise BadInput(f"{settings.state_dir}: no ledger here yet: start the node, or name its --config or --state-dir")
    ledger = Ledger(file)
    try:
        yield settings, ledger
    finally:
        ledger.close()

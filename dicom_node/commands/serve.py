"""`evenray serve`: the supervisor with all three processes, or one of them alone."""

from __future__ import annotations

import logging
from pathlib import Path

from dicom_node import settings_file, supervise
from dicom_node.errors import BadInput, Stop
from dicom_node.exits import Exit
from dicom_node.logs import to_stderr
from dicom_node.settings import Settings
from dicom_node.stopping import Stopping

log = logging.getLogger(__name__)


def serve(role: str | None, config: Path | None, state_dir: Path | None, *, supervised: bool) -> int:
    """Run until asked to stop; the exit code."""
    if role is not None and role not in supervise.ROLES:
        raise BadInput(f"serve: {role!r} is no process of the node: use listen, work, deliver, or none of them for all")
    settings = load(config, state_dir)
    to_stderr(role or "serve")
    stopping = Stopping()
    stopping.on_signals()
    if supervised:
        stopping.with_parent()
    try:
        if role is None:
            return supervise.run(settings, config, state_dir, stopping)
        _run(role, settings, stopping)
    except Stop as fault:
        log.error("%s", fault)
        return Exit.USAGE
    return Exit.DONE


def load(config: Path | None, state_dir: Path | None) -> Settings:
    """The settings, with the state directory of the command line where one is given."""
    settings = settings_file.load(config)
    return settings.model_copy(update={"state_dir": state_dir.resolve()}) if state_dir else settings


def _run(role: str, settings: Settings, stopping: Stopping) -> None:
    # Imported here: the receiver must not load the engine.
    if role == "listen":
        from dicom_node import listen

        listen.run(settings, stopping)
    elif role == "work":
        from dicom_node import worker

        worker.run(settings, stopping)
    else:
        from dicom_node import deliver

        deliver.run(settings, stopping)

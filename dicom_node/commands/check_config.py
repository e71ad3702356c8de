"""`evenray check-config`: every fault of a configuration file at once."""

from __future__ import annotations

from pathlib import Path

import typer

from dicom_node import settings_file
from dicom_node.errors import SettingsInvalid
from dicom_node.exits import Exit
from dicom_node.settings import Settings


def check_config(file: Path) -> int:
    """Print the faults, or what the configuration comes to; the exit code."""
    try:
        settings = settings_file.load(file)
    except SettingsInvalid as fault:
        typer.echo(str(fault), err=True)
        return Exit.USAGE
    listen = settings.listen
    typer.echo(f"{file}: no faults")
    typer.echo(f"  listens as {listen.ae_title} on {listen.host}:{listen.port}, state in {settings.state_dir}")
    for route in settings.routes:
        to = ", ".join(route.destinations) or "nowhere (results stay in the spool)"
        typer.echo(f"  route {route.name}: {', '.join(route.match.modality) or 'any modality'} to {to}")
    for remark in remarks(settings):
        typer.echo(f"  note: {remark}")
    return Exit.DONE


def remarks(settings: Settings) -> list[str]:
    """What is allowed but probably not meant."""
    found = []
    if not settings.routes:
        found.append("no route: every image is passed by the engine")
    used = {name for route in settings.routes for name in route.destinations} | set(settings.passed_by.destinations)
    unused = sorted(set(settings.destinations) - used)
    if unused:
        found.append(f"destinations that nothing is sent to: {', '.join(unused)}")
    if not settings.passed_by.destinations:
        found.append("passed_by.destinations is empty: what the engine can't use is kept, but sent nowhere")
    return found

"""`evenray send`: files and folders to a DICOM peer, and what became of each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import typer
from pydantic import ValidationError

from dicom_node import addresses
from dicom_node.commands.screen import cell, console, progress, table
from dicom_node.errors import BadInput, EvenrayError, PeerUnreachable
from dicom_node.exits import Exit
from dicom_node.records import Receipt
from dicom_node.sending import Sent, send_files
from dicom_node.settings import Dimse
from dicom_node.settings_peers import TlsClient
from dicom_node.tls import client_context

PLAIN = "stored"
"""What a receipt says when there is nothing more to say."""


def send(path: Path, to: str, calling: str, tls: TlsClient | None = None) -> int:
    """Send, print what was sent, refused and left out; the exit code is 1 when the peer did not take a file.

    Raises BadInput on a bad address, where there is nothing to send, and where the peer can't be reached at all.
    """
    destination = _destination(to, calling).model_copy(update={"tls": tls})
    with progress(f"sending to {destination.ae_title}", None) as step:
        results = send_files([path], destination, calling_ae=calling, progress=lambda _sent: step())
    objects = [one for one in results if one.answer is not None]
    if not objects:
        raise BadInput(f"{path}: nothing to send: none of {len(results)} file(s) is a DICOM object")
    if all(isinstance(one.answer, PeerUnreachable) for one in objects):
        raise BadInput(f"nothing was sent: {objects[0].answer}: start the peer, or check host, port and AE title")
    _print(results, base=path if path.is_dir() else path.parent)
    return Exit.FAILED if any(isinstance(one.answer, EvenrayError) for one in objects) else Exit.DONE


def over_tls(trusted: Path | None, certificate: Path | None, key: Path | None, *, check_hostname: bool) -> TlsClient:
    """The TLS options of the command line. Raises BadInput or SettingsInvalid where they can't be used."""
    try:
        tls = TlsClient(trusted=trusted, certificate=certificate, key=key, check_hostname=check_hostname)
    except ValidationError as fault:
        raise BadInput("--tls-certificate and --tls-key belong together: give both, or neither") from fault
    client_context(tls)
    return tls


def _destination(to: str, calling: str) -> Dimse:
    """Raises BadInput where an AE title or the address is none."""
    address = addresses.parse(to)
    try:
        return Dimse(kind="dimse", ae_title=address.ae_title, host=address.host, port=address.port, calling_ae=calling)
    except ValidationError as fault:
        which = str(fault.errors()[0]["loc"][0])
        found = calling if which == "calling_ae" else address.ae_title
        option = "--calling" if which == "calling_ae" else to
        raise BadInput(f"{option}: {found!r} is no AE title: use 1 to 16 ASCII characters without backslash") from fault


def _print(results: list[Sent], base: Path) -> None:
    """Counts first, then every file that a person should know of."""
    sent = [one for one in results if isinstance(one.answer, Receipt)]
    failed = [one for one in results if isinstance(one.answer, EvenrayError)]
    skipped = [one for one in results if one.answer is None]
    out = console()
    if failed or skipped:
        shown = table("not sent", "file", "what", "why")
        for one in failed:
            shown.add_row(cell(_name(one, base)), cell("failed", "bold red"), cell(one.answer))
        for one in skipped:
            shown.add_row(cell(_name(one, base)), cell("skipped", "yellow"), cell("no DICOM object, or a DICOMDIR"))
        out.print(shown)
    remarks = Counter(one.answer.detail for one in sent if isinstance(one.answer, Receipt))
    for remark, count in sorted(remarks.items()):
        if remark != PLAIN:
            typer.echo(f"{count} file(s): {remark}")
    typer.echo(f"sent {len(sent)}, failed {len(failed)}, skipped {len(skipped)}")


def _name(one: Sent, base: Path) -> str:
    return str(one.path.relative_to(base)) if one.path.is_relative_to(base) else str(one.path)

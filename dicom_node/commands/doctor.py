"""`evenray doctor`: check this machine and its peers, each fault with its remedy. Changes nothing that stays."""

from __future__ import annotations

import errno
import json
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path

from dicom_node import VERSION, tls
from dicom_node.audit_trail.attention import attention, look
from dicom_node.commands import doctor_decoders
from dicom_node.commands.screen import cell, console, table
from dicom_node.commands.serve import load
from dicom_node.destinations import echo
from dicom_node.destinations.dicomweb import verify
from dicom_node.errors import EvenrayError, PeerRefused, PeerUnreachable
from dicom_node.exits import Exit
from dicom_node.ledger import faults_in
from dicom_node.liveness import running
from dicom_node.process import compute_facts
from dicom_node.references import Banks, exam_text
from dicom_node.settings import DicomWeb, Dimse, Folder, Settings
from dicom_node.settings_peers import TlsClient, TlsServer
from dicom_node.spool import Spool


class State(StrEnum):
    """How a check ended; only a failure makes the exit code 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


STYLES = {State.OK: "green", State.WARN: "yellow", State.FAIL: "bold red"}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding, and what to do where it is not ok."""

    what: str
    state: State
    found: str
    remedy: str = ""


PEER_PATIENCE_S = 5.0
"""A peer on the same network answers a C-ECHO in milliseconds; nobody wants to wait for one that does not."""
LOOPBACK = ("127.0.0.1", "[::1]", "localhost")
OLDEST_PYTHON = (3, 11)
FIRST_YEAR, LAST_YEAR = 2025, 2100
SLACK_S = 60.0
# Source: PRAGMA journal_mode=WAL needs shared memory, which these don't give (https://sqlite.org/wal.html, 1.5).
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "glusterfs", "ceph", "lustre")
MOUNTS = Path("/proc/mounts")


def doctor(config: Path | None, state_dir: Path | None, *, as_json: bool) -> int:
    """Run every check and print it; the exit code is 1 when one failed."""
    settings = load(config, state_dir)
    checks = list(_all(settings))
    if as_json:
        print(json.dumps({"version": VERSION, "checks": [asdict(check) for check in checks]}, indent=1))
    else:
        shown = table("", "check", "", "found", "remedy")
        for check in checks:
            row = (check.what, check.found, check.remedy)
            what, found, remedy = map(cell, row)
            shown.add_row(what, cell(check.state.value, STYLES[check.state]), found, remedy)
        out = console()
        out.print(shown)
        failed = sum(check.state is State.FAIL for check in checks)
        out.print(f"{failed} check(s) failed." if failed else "Nothing failed.")
    return Exit.FAILED if any(check.state is State.FAIL for check in checks) else Exit.DONE


def _all(settings: Settings) -> Iterator[Check]:
    """Every check, in the order in which a fault would explain the next one."""
    yield _python()
    yield from _decoders()
    yield from _guarded("engine", partial(_engine, settings))
    yield from _guarded("banks", partial(_banks, settings))
    yield from _guarded("state directory", partial(_state_dir, settings))
    yield from _guarded("ledger", partial(_ledger, settings))
    yield from _guarded("listen", partial(_listen, settings))
    for path, section in settings.tls_sections().items():
        yield from _guarded(path, partial(_certificate, path, section))
    for name, destination in settings.destinations.items():
        if isinstance(destination, Folder):
            yield from _guarded(f"destination {name}", partial(_folder, name, destination))
        elif isinstance(destination, Dimse):
            yield from _guarded(f"destination {name}", partial(_peer, name, destination, settings))
        else:
            yield from _guarded(f"destination {name}", partial(_web, f"destination {name}", destination))
    for name, source in settings.sources.items():
        if isinstance(source, DicomWeb):
            yield from _guarded(f"source {name}", partial(_web, f"source {name}", source))
    if settings.audit.transport != "none":
        yield from _guarded("audit repository", partial(_audit, settings))
    yield from _clock(settings)


def _guarded(what: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """The check's findings; what keeps it from being made is itself a finding."""
    try:
        yield from check()
    except EvenrayError as fault:
        yield Check(what, State.FAIL, *_split(str(fault)))
    except OSError as fault:
        where = f"{fault.filename}: " if fault.filename else ""
        yield Check(what, State.FAIL, f"{where}{fault.strerror or fault}", "check owner, rights and disk")


def _split(sentence: str) -> tuple[str, str]:
    """What happened and the remedy, which our errors put behind the last `: `."""
    happened, _, remedy = sentence.rpartition(": ")
    return (happened, remedy) if happened else (sentence, "")


def _python() -> Check:
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, evenray {VERSION}"
    if sys.version_info < OLDEST_PYTHON:
        return Check("python", State.FAIL, found, "install Python 3.11 or newer")
    return Check("python", State.OK, found)


def _decoders() -> Iterator[Check]:
    results = doctor_decoders.trials()
    for name, why in results:
        if why:
            yield Check("decoders", State.FAIL, f"{name}: {why}", "run `make setup` again")
    right = [name for name, why in results if not why]
    yield Check("decoders", State.OK if right else State.FAIL, f"decoded a test image: {', '.join(right) or 'none'}")
    htj2k = doctor_decoders.htj2k()
    if htj2k:
        yield Check("decoders", State.OK, f"HTJ2K: {htj2k} is there (not tried: nothing here can encode it)")
    else:
        yield Check("decoders", State.WARN, "HTJ2K: no decoder", "run `make setup` again")


def _engine(settings: Settings) -> Iterator[Check]:
    yield Check("engine", State.OK, compute_facts(settings))


def _banks(settings: Settings) -> Iterator[Check]:
    banks, faults = Banks(settings.banks).all()
    for bank in banks:
        found = f"{bank.name}: {exam_text(bank.exam)}, {bank.count} reference(s), digest {bank.digest[:12]}"
        yield Check("banks", State.OK, found)
    for fault in faults:
        yield Check("banks", State.FAIL, *_split(fault))
    if not banks:
        yield Check("banks", State.FAIL, "no bank of references", "make one with `evenray references add`")
    known = {bank.name for bank in banks}
    for route in settings.routes:
        if route.bank != "auto" and route.bank not in known:
            found = f"route {route.name} names bank {route.bank}, which is not there: all its images are passed by"
            yield Check("banks", State.FAIL, found, f"make it with `evenray references add {route.bank} …`")


def _state_dir(settings: Settings) -> Iterator[Check]:
    """Write, force to the disk and remove, in the state directory or where it would be made."""
    home = _nearest(settings.state_dir)
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=home) as folder:
        spool = Spool(Path(folder))
        begun = time.perf_counter()
        spool.write_result("1.2.3", b"x" * 4096, named=lambda _path: False)
        took_ms = 1000 * (time.perf_counter() - begun)
        storage = settings.storage
        full = spool.full(reserve_mib=storage.reserve_mib, watermark_percent=storage.watermark_percent)
        free = spool.room().free_mib
    will = "" if home == settings.state_dir else f" (not there yet; {home} can be written)"
    yield Check("state directory", State.OK, f"{settings.state_dir}{will}; a durable write took {took_ms:.1f} ms")
    kind = _file_system(home)
    if kind in NETWORK_FILE_SYSTEMS:
        remedy = "put state_dir on a local disk: locks and the ledger need one"
        yield Check("state directory", State.WARN, f"{home} is on a network file system ({kind})", remedy)
    if full:
        remedy = "make room, or change storage.reserve_mib or storage.watermark_percent: images are refused until then"
        yield Check("room", State.FAIL, full, remedy)
    else:
        yield Check("room", State.OK, f"{free} MiB free, {storage.reserve_mib} MiB are reserved")


def _ledger(settings: Settings) -> Iterator[Check]:
    file = settings.state_dir / "ledger.sqlite"
    if not file.exists():
        yield Check("ledger", State.OK, "none yet: the node makes it when it starts")
        return
    faults = faults_in(file)
    for fault in faults:
        remedy = "stop the node, keep a copy of state_dir, and restore the ledger or start with another state_dir"
        yield Check("ledger", State.FAIL, f"{file}: {fault}", remedy)
    if not faults:
        yield Check("ledger", State.OK, f"{file}: whole")


def _listen(settings: Settings) -> Iterator[Check]:
    """The port is free, or it is our own node that answers on it."""
    listen = settings.listen
    where = f"{listen.host}:{listen.port}"
    if "listen" not in running(settings.state_dir / "locks"):
        if why := _not_free(listen.host, listen.port):
            remedy = "stop what uses the port, or change listen.host / listen.port"
            yield Check("listen", State.FAIL, f"{where} can't be opened ({why})", remedy)
        else:
            yield Check("listen", State.OK, f"{where} is free")
        return
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
    own = Dimse(kind="dimse", ae_title=listen.ae_title, host=host, port=listen.port, connect_timeout_s=PEER_PATIENCE_S)
    if listen.tls:
        ours = listen.tls
        # Its own certificate is all that we have to show, and all that we know it by.
        shown = TlsClient(trusted=ours.certificate, certificate=ours.certificate, key=ours.key, check_hostname=False)
        own = own.model_copy(update={"tls": shown})
    try:
        echo(own, calling_ae=listen.allowed_calling[0] if listen.allowed_calling else listen.ae_title)
    except PeerRefused as fault:
        remedy = "nothing, where listen.peers leaves this machine out" if listen.known_only else "restart the node"
        yield Check("listen", State.WARN, f"the node runs, but refuses us: {fault}", f"{remedy}; or check --config")
    except PeerUnreachable as fault:
        if not listen.tls:
            raise
        found, remedy = _split(str(fault))
        yield Check("listen", State.WARN, f"the node runs, but this check gets no association: {found}", remedy)
    else:
        yield Check("listen", State.OK, f"the node runs and answers as {listen.ae_title} on {where}")


def _certificate(path: str, section: TlsServer | TlsClient) -> Iterator[Check]:
    """Our certificate can be used, now and for a while."""
    remarks = tls.remarks_on(section, now=time.time())
    left = tls.days_left(section, now=time.time())
    for remark in remarks:
        yield Check(path, State.FAIL if isinstance(left, str) else State.WARN, *_split(remark))
    if not remarks:
        valid = "" if left is None else f", our certificate for another {left:.0f} days"
        yield Check(path, State.OK, f"the files can be used{valid}")


def _not_free(host: str, port: int) -> str:
    """Why the port can't be opened, "" where it can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the listener does: a port that only waits for its last connections to die is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as fault:
        return fault.strerror or str(fault)
    return ""


def _peer(name: str, destination: Dimse, settings: Settings) -> Iterator[Check]:
    quick = destination.model_copy(
        update={
            "connect_timeout_s": min(destination.connect_timeout_s, PEER_PATIENCE_S),
            "dimse_timeout_s": min(destination.dimse_timeout_s, PEER_PATIENCE_S),
        }
    )
    where = f"{destination.ae_title}@{destination.host}:{destination.port}"
    begun = time.perf_counter()
    try:
        echo(quick, calling_ae=settings.listen.ae_title)
    except EvenrayError as fault:
        remedy = f"start the peer, or check destinations.{name}: host, port and both AE titles"
        yield Check(f"destination {name}", State.FAIL, str(fault), remedy)
    else:
        took_ms = 1000 * (time.perf_counter() - begun)
        yield Check(f"destination {name}", State.OK, f"{where} answered C-ECHO in {took_ms:.0f} ms")


def _web(what: str, server: DicomWeb) -> Iterator[Check]:
    quick = server.model_copy(update={"timeout_s": min(server.timeout_s, PEER_PATIENCE_S)})
    begun = time.perf_counter()
    answer = verify(quick)
    took_ms = 1000 * (time.perf_counter() - begun)
    yield Check(what, State.OK, f"{answer} in {took_ms:.0f} ms")
    secret = bool(server.username or server.token_file)
    if secret and server.url.scheme == "http" and server.url.host not in LOOPBACK:
        remedy = "give an https url: everybody on the way can read them"
        yield Check(what, State.WARN, "credentials travel without encryption", remedy)


def _audit(settings: Settings) -> Iterator[Check]:
    yield Check("audit repository", State.OK, look(settings.audit))
    for row in attention(settings.state_dir, settings.audit, now=time.time()):
        yield Check("audit messages", State.WARN, row["note"], "see that the repository takes messages")


def _folder(name: str, destination: Folder) -> Iterator[Check]:
    home = _nearest(destination.path)
    # Tried, not asked: the rights may be there on a file system that is read-only or full.
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=home):
        will = "" if home == destination.path else f" (not there yet; {home} can be written)"
        yield Check(f"destination {name}", State.OK, f"{destination.path}{will}")


def _clock(settings: Settings) -> Iterator[Check]:
    now = datetime.now(UTC)
    ledger = settings.state_dir / "ledger.sqlite"
    if not FIRST_YEAR <= now.year < LAST_YEAR:
        yield Check("clock", State.FAIL, f"it is {now:%Y-%m-%d %H:%M} UTC, says this machine", "set the clock")
    elif ledger.exists() and ledger.stat().st_mtime > now.timestamp() + SLACK_S:
        yield Check("clock", State.WARN, "the ledger was written in the future", "set the clock, by NTP if possible")
    else:
        yield Check("clock", State.OK, f"{now:%Y-%m-%d %H:%M} UTC")
    here = now.astimezone().strftime("%z")[:5]
    if here == settings.site.timezone:
        yield Check("time zone", State.OK, here)
    else:
        found = f"site.timezone is {settings.site.timezone}, this machine's is {here}"
        remedy = "set site.timezone to the modalities' own: it is written into results whose original states none"
        yield Check("time zone", State.WARN, found, remedy)


def _nearest(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there. Raises NotADirectoryError where a file is."""
    found = next(one for one in (path, *path.parents) if one.exists())
    if not found.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(found))
    return found


def _file_system(path: Path) -> str:
    """The kind of file system that a folder is on, "" where the system does not tell."""
    if not MOUNTS.exists():
        return ""
    home = path.resolve()
    entries = [line.split() for line in MOUNTS.read_text().splitlines()]
    # Source: proc(5), fstab(5): fields are device, mount point (blanks as \040) and type.
    points = [(Path(entry[1].replace("\\040", " ")), entry[2]) for entry in entries if len(entry) > 2]
    on = [(len(point.parts), kind) for point, kind in points if home.is_relative_to(point)]
    return max(on, default=(0, ""))[1]

"""`evenray restore`: a node's state from a backup, or a new ledger from the originals in the spool.

Nothing that is there is overwritten or removed: with --force it is moved aside.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from dicom_node.commands.backup import copy_file, fsync_folders, parts, read_manifest
from dicom_node.commands.serve import load
from dicom_node.durable import fsync
from dicom_node.errors import BadInput
from dicom_node.exits import Exit
from dicom_node.ledger import BORN, Ledger, faults_in
from dicom_node.liveness import Liveness, running
from dicom_node.recover import readmit
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.steps import reached

LEDGER = "ledger.sqlite"
PARTIAL = ".restoring"


def restore(
    source: Path | None,
    config: Path | None,
    state_dir: Path | None,
    *,
    force: bool,
    ledger_only: bool,
    from_spool: bool,
) -> int:
    """Restore into the state directory; the exit code."""
    if (source is None) != from_spool or (ledger_only and from_spool):
        raise BadInput("restore: name a backup (with --ledger-only, if the spool is whole), or use --from-spool alone")
    settings = load(config, state_dir)
    state = settings.state_dir
    if from_spool or ledger_only:
        if not (state / "spool").is_dir():
            raise BadInput(f"{state}: no spool is here: name the node's --config or --state-dir")
        with _alone(state):
            return _ledger(source, settings)
    assert source is not None
    manifest = read_manifest(source)
    state.mkdir(parents=True, exist_ok=True)
    with _alone(state):
        _whole(source, manifest, state, force=force)
    _say(source, manifest, settings)
    return Exit.FAILED if manifest["damaged"] else Exit.DONE


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """No process of the node may run, or be started, meanwhile."""
    if runs := running(state / "locks"):
        raise BadInput(f"{state}: the node runs ({', '.join(runs)}): stop it first")
    held = [Liveness(state / "locks", role, alone=True) for role in ("serve", "listen")]
    try:
        yield
    finally:
        for lock in held:
            lock.close()


def _whole(source: Path, manifest: dict[str, Any], state: Path, *, force: bool) -> None:
    """Everything of a backup: checked while it is copied, put in place at the end, the ledger last."""
    there = [path for path in state.iterdir() if path.name not in ("locks", PARTIAL)]
    if there and not force:
        raise BadInput(f"{state}: is not empty: name a new --state-dir, or use --force to move what is there aside")
    partial = state / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name, path, digest in parts(source, manifest):
            _checked(path, partial / name, digest)
        if faults := faults_in(partial / LEDGER):
            raise BadInput(f"{source}: its ledger is damaged ({faults[0]}): nothing was restored")
        with closing(Ledger(partial / LEDGER)) as ledger:
            ledger.promises.assume()
        fsync_folders(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    reached("restore.copied")
    if there:
        aside = state / f"before-restore-{_stamp()}"
        aside.mkdir()
        for path in there:
            path.rename(aside / path.name)
    for path in sorted(partial.iterdir(), key=lambda path: path.name == LEDGER):
        path.rename(state / path.name)
        reached("restore.moved")
    partial.rmdir()
    fsync(state)


def _checked(source: Path, target: Path, digest: str) -> None:
    try:
        found = copy_file(source, target)
    except FileNotFoundError as fault:
        raise BadInput(f"{source}: missing in the backup, so nothing was restored: use another backup") from fault
    if found != digest:
        raise BadInput(f"{source}: damaged in the backup (digest differs), so nothing was restored: use another backup")


def _ledger(source: Path | None, settings: Settings) -> int:
    """A ledger for the spool that is there: an earlier one, or a new one; then what it does not know is taken in."""
    state, spool = settings.state_dir, Spool(settings.state_dir / "spool")
    file, lost = state / LEDGER, 0
    manifest = read_manifest(source) if source else None
    faults = faults_in(file) if file.exists() else []
    if any("of version" in fault for fault in faults):
        raise BadInput(f"{file}: {faults[0]}: it is not damaged; use the program that wrote it")
    if source and manifest:
        fresh = _fresh(source, manifest, state)
        reached("restore.fresh")
        lost = _complete(source, manifest, spool)
        reached("restore.completed")
        # Whoever is killed from here on leaves a node that keeps everything.
        _aside(file)
        fresh.rename(file)
    elif faults:
        _aside(file)
    fsync(state)
    reached("restore.ledger")
    with closing(Ledger(file)) as ledger:
        # What is in the spool and not in this ledger is no rest of a crash: nobody may remove it.
        ledger.upkeep.set_mark(BORN, math.inf)
        reached("restore.born")
        taken = readmit(spool, ledger, called_ae=settings.listen.ae_title, now=time.time())
        ledger.promises.assume()
    typer.echo(f"{taken} originals of the spool had no row in the ledger: they are taken in again as new arrivals")
    if lost:
        typer.echo(f"{lost} files that the ledger names are neither in the spool nor in the backup: evenray verify")
    typer.echo(f"now start the node: evenray serve --state-dir {state} …")
    return Exit.FAILED if lost else Exit.DONE


def _fresh(source: Path, manifest: dict[str, Any], state: Path) -> Path:
    """The ledger of a backup beside the one in use, once it says that it does not know all that is in the spool."""
    fresh = state / f"{PARTIAL}-{LEDGER}"
    # Of one that was killed.
    for path in state.glob(f"{fresh.name}*"):
        path.unlink()
    _checked(source / manifest["folder"] / LEDGER, fresh, manifest["state"][LEDGER]["sha256"])
    with closing(Ledger(fresh)) as ledger:
        ledger.upkeep.set_mark(BORN, math.inf)
    for path in state.glob(f"{fresh.name}.*"):
        path.unlink()
    if left := list(state.glob(f"{fresh.name}-wal")):
        raise BadInput(f"{left[0]}: the ledger of the backup could not be prepared: see that nothing else uses it")
    fsync(fresh)
    return fresh


def _complete(source: Path, manifest: dict[str, Any], spool: Spool) -> int:
    """Files that the backup has and the spool has no more; how many could not be had."""
    lost = 0
    for name, entry in manifest["files"].items():
        if not spool.at(name).exists():
            try:
                _checked(source / "spool" / name, spool.at(name), entry["sha256"])
            except BadInput as fault:
                typer.echo(str(fault))
                lost += 1
    fsync_folders(spool.root)
    return lost


def _aside(file: Path) -> None:
    """Keep a ledger that is not used any more, with what SQLite keeps beside it."""
    stamp = _stamp()
    for path in (file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))):
        if path.exists():
            kept = path.with_name(f"{LEDGER}.before-restore-{stamp}{path.name.removeprefix(LEDGER)}")
            path.rename(kept)
            typer.echo(f"kept as {kept.name}: {path.name}")


def _say(source: Path, manifest: dict[str, Any], settings: Settings) -> None:
    state = settings.state_dir
    typer.echo(f"restored {state} from {source}, as it was at {manifest['made_at']}: {len(manifest['files'])} files")
    for path, reason in manifest["damaged"].items():
        typer.echo(f"DAMAGED already when the backup was made: {path}: {reason}")
    if "config.yaml" in manifest["state"]:
        typer.echo(f"the configuration of then is {state / 'config.yaml'}: put it where you keep yours")
    if any(name.startswith("banks/") for name in manifest["state"]) and settings.banks != state / "banks":
        typer.echo(f"the banks are in {state / 'banks'}: copy them to {settings.banks}, which the configuration names")
    typer.echo(f"now start the node: evenray serve --state-dir {state} …")


def _stamp() -> str:
    # To the microsecond: one that was killed may be followed by the next at once.
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"

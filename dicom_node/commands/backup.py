"""`evenray backup`: a consistent copy of a node that may be running, and the manifest that says what is in it.

Layout of a backup: `node` (whose it is), `manifest.json` (what counts), `<time>/` with ledger, banks and
configuration, `spool/` with the files, which never change and are therefore copied once. The manifest is written last:
until then the earlier backup in the same folder holds. Nothing is removed that no backup has made, and no good copy
while the ledger names its file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from dicom_node import VERSION
from dicom_node.commands.serve import load
from dicom_node.durable import fsync, write_durably
from dicom_node.errors import BadInput
from dicom_node.exits import Exit
from dicom_node.integrity import check, yielding
from dicom_node.ledger import Ledger, Spooled, copy_ledger, faults_in, files_in
from dicom_node.retention import holding
from dicom_node.settings import Settings
from dicom_node.spool import MIB, Spool
from dicom_node.steps import reached

FORMAT = 1
MANIFEST = "manifest.json"
NODE = "node"
"""File that says whose backup this is, before there is a manifest."""
MADE = re.compile(r"[0-9]{8}T[0-9]{12}Z", re.ASCII)
"""Folders with the ledger of one time."""
HELD = re.compile(
    r"(originals/[0-9a-f]{2}/\.{0,2}[0-9a-f]{32}|results/[0-9.]{1,2}/\.{0,2}[0-9.]+)\.dcm(\.new)?(\.part)?", re.ASCII
)
"""Files of the spool as they are named here, and on their way."""
CHUNK = 1 << 20
ROUNDS = 5
"""So often the ledger is copied anew when a file left while it was being copied (a repetition that was discarded)."""


def backup(target: Path, config: Path | None, state_dir: Path | None) -> int:
    """Copy the node's state to a folder; the exit code is 1 when something could not be copied whole."""
    settings = load(config, state_dir)
    ledger = settings.state_dir / "ledger.sqlite"
    if not ledger.exists():
        raise BadInput(f"{settings.state_dir}: no ledger here: name the node's --config or --state-dir")
    _refuse_near(target.resolve(), settings.state_dir.resolve())
    began = time.monotonic()
    with yielding(), holding(settings.state_dir / "spool", wait=True):
        _claim(target, settings)
        copied = Copying(settings, config, target).run()
    typer.echo(
        f"backup of {settings.state_dir} in {target}: {copied.files} files and {copied.bytes / MIB:.1f} MiB copied, "
        f"{copied.unchanged} unchanged, {copied.removed} removed, in {time.monotonic() - began:.1f} s"
    )
    for path, reason in copied.damaged.items():
        typer.echo(f"DAMAGED {path}: {reason}")
    for path, reason in copied.spared.items():
        typer.echo(f"DAMAGED {path}: {reason}; the good copy in this backup stays: evenray restore {target}")
    return Exit.FAILED if copied.damaged or copied.spared else Exit.DONE


def _refuse_near(target: Path, state: Path) -> None:
    """Both are resolved. Raises BadInput where the one is in the other."""
    if target.is_relative_to(state):
        raise BadInput(f"{target}: is inside the state directory: choose a folder on another disk")
    if state.is_relative_to(target):
        raise BadInput(f"{target}: holds the state directory: choose a folder of its own on another disk")


def _claim(target: Path, settings: Settings) -> None:
    """See that this folder is this node's own for its backups. Raises BadInput, then nothing was touched."""
    if target.exists() and not target.is_dir():
        raise BadInput(f"{target}: is no folder")
    with closing(Ledger(settings.state_dir / "ledger.sqlite")) as ledger:
        own = ledger.upkeep.node()
    try:
        owner = (target / NODE).read_text(errors="replace").strip()
    except FileNotFoundError:
        owner = ""
    if owner == own:
        return
    there = target.exists() and any(target.iterdir())
    if there and not owner and (target / MANIFEST).exists():
        # Of a version that did not write down whose it is.
        owner = "" if read_manifest(target).get("station") == settings.site.station else "another"
        there = False
    if owner:
        raise BadInput(f"{target}: holds the backup of another node, or of an earlier ledger: choose another folder")
    if there:
        raise BadInput(f"{target}: is not empty and no backup is here: name a new or empty folder")
    target.mkdir(parents=True, exist_ok=True)
    write_durably(target / NODE, own.encode())


@dataclass(slots=True)
class Copied:
    """What one backup did."""

    files: int = 0
    bytes: int = 0
    unchanged: int = 0
    removed: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    """Files of the node that are lost or have other bytes than its ledger says, and what is wrong with each."""
    spared: dict[str, str] = field(default_factory=dict)
    """Such files of which the backup has a good copy from before."""


class Copying:
    """One backup that is being made."""

    def __init__(self, settings: Settings, config: Path | None, target: Path) -> None:
        """`target` is a folder that holds nothing, or backups of this node."""
        self._settings, self._config, self._target = settings, config, target
        earlier = read_manifest(target) if (target / MANIFEST).exists() else {"files": {}}
        self._earlier: dict[str, Any] = earlier["files"]
        self._source = Spool(settings.state_dir / "spool")
        self._held = Spool(target / "spool")
        self._entries: dict[str, dict[str, Any]] = {}
        self._done = Copied()
        self._folder = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z"

    def run(self) -> Copied:
        folder = self._target / self._folder
        folder.mkdir()
        files = self._files(folder / "ledger.sqlite")
        others = [folder / "ledger.sqlite", *self._banks(folder), *self._configuration(folder)]
        for path in others:
            fsync(path)
        fsync_folders(self._target)
        reached("backup.copied")
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "station": self._settings.site.station,
            "folder": self._folder,
            "state": {path.relative_to(folder).as_posix(): _entry(path) for path in others},
            "files": {file.path: self._entries[file.path] for file in files if file.path in self._entries},
            "damaged": self._done.damaged,
        }
        write_durably(self._target / MANIFEST, json.dumps(manifest, indent=0).encode())
        reached("backup.published")
        self._tidy(manifest)
        return self._done

    def _files(self, copy: Path) -> list[Spooled]:
        """First the ledger, then every file that it names: a file never changes, and none leaves while we hold it.

        One exception: a repetition may be discarded between the two. Then a newer copy of the ledger says so.
        """
        for left in reversed(range(ROUNDS)):
            copy.unlink(missing_ok=True)
            copy_ledger(self._settings.state_dir / "ledger.sqlite", copy)
            if faults := faults_in(copy):
                raise BadInput(f"the ledger is damaged, so no backup was made: {faults[0]}")
            reached("backup.ledger")
            files = files_in(copy)
            gone = [file for file in files if file.path not in self._entries and not self._keep(file)]
            if not gone or not left:
                break
        for file in gone:
            self._wrong(file, "its file is gone")
        return files

    def _keep(self, file: Spooled) -> bool:
        """See that the backup has this file; False when the spool does not."""
        try:
            facts = self._source.at(file.path).stat()
        except FileNotFoundError:
            return False
        had = self._earlier.get(file.path)
        held = self._held.at(file.path)
        if had and (had["size"], had["mtime_ns"]) == (facts.st_size, facts.st_mtime_ns) and held.exists():
            self._entries[file.path] = had
            self._done.unchanged += 1
            return True
        fresh = held.with_name(f".{held.name}.new")
        try:
            digest = copy_file(self._source.at(file.path), fresh)
        except FileNotFoundError:
            return False
        # Read back from the disk: what was written is what the ledger says that it is.
        there = fresh.relative_to(self._held.root).as_posix()
        reason = check(self._held, replace(file, path=there)).reason
        if file.digest is None and had and digest != had["sha256"]:
            reason = reason or "its bytes have changed since the last backup"
        if reason and self._wrong(file, reason):
            fresh.unlink()
            return True
        fresh.replace(held)
        self._entries[file.path] = {"sha256": digest, "size": facts.st_size, "mtime_ns": facts.st_mtime_ns}
        self._done.files += 1
        self._done.bytes += facts.st_size
        return True

    def _wrong(self, file: Spooled, reason: str) -> bool:
        """Note what is wrong with a file of the node, and keep the backup's copy of it if that is good."""
        held, had = self._held.at(file.path), self._earlier.get(file.path)
        if check(self._held, file).reason or (had and sha256_of(held) != had["sha256"]):
            self._done.damaged[file.path] = reason
            return False
        # No time of the node's file fits it: that one is looked at again the next time.
        self._entries[file.path] = _entry(held) | {"mtime_ns": 0}
        self._done.spared[file.path] = reason
        return True

    def _banks(self, folder: Path) -> list[Path]:
        banks = sorted(self._settings.banks.glob("*.bank.json"))
        for bank in banks:
            copy_file(bank, folder / "banks" / bank.name)
        return [folder / "banks" / bank.name for bank in banks]

    def _configuration(self, folder: Path) -> list[Path]:
        if self._config is None:
            return []
        copy_file(self._config, folder / "config.yaml")
        return [folder / "config.yaml"]

    def _tidy(self, manifest: dict[str, Any]) -> None:
        """Remove what only the earlier backup needed, and what an interrupted one left."""
        for path in self._target.iterdir():
            if MADE.fullmatch(path.name) and path.name != self._folder and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
        held = set(manifest["files"])
        for name in list(self._held.unknown(lambda _folder: held)):
            if name in self._earlier or HELD.fullmatch(name):
                self._held.discard(name)
                self._done.removed += 1


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a backup. Raises BadInput."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        known = manifest["format"] == FORMAT and all(key in manifest for key in ("folder", "state", "files", "damaged"))
    except FileNotFoundError as fault:
        raise BadInput(f"{folder}: no backup is here (it has no {MANIFEST})") from fault
    except (ValueError, KeyError, TypeError) as fault:
        raise BadInput(f"{folder / MANIFEST}: damaged: use another backup") from fault
    if not known:
        raise BadInput(f"{folder / MANIFEST}: of another format than this program's {FORMAT}: use the one that made it")
    return dict(manifest)


def parts(folder: Path, manifest: dict[str, Any]) -> list[tuple[str, Path, str]]:
    """Everything in a backup: its path in a state directory, where it lies, its SHA-256."""
    state = [(name, folder / manifest["folder"] / name, entry["sha256"]) for name, entry in manifest["state"].items()]
    spool = [(f"spool/{name}", folder / "spool" / name, entry["sha256"]) for name, entry in manifest["files"].items()]
    return [*spool, *state]


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_of(path), "size": path.stat().st_size}


def copy_file(source: Path, target: Path) -> str:
    """Copy a file durably, but for its name in the folder; its SHA-256 as it was read."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    digest = hashlib.sha256()
    with source.open("rb") as read, partial.open("wb") as write:
        while chunk := read.read(CHUNK):
            digest.update(chunk)
            write.write(chunk)
        write.flush()
        os.fsync(write.fileno())
    partial.replace(target)
    return digest.hexdigest()


def fsync_folders(root: Path) -> None:
    for folder, _, _ in os.walk(root):
        fsync(Path(folder))

"""Curation of banks: what a site prefers, measured and kept as files that the node loads. Imports the engine.

Knows no terminal. Of an image only statistics are kept: no pixels, no header but view, maker and SOP Instance UID.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import engine
from dicom_node.durable import fsync, write_durably
from dicom_node.engine_image import engine_image
from dicom_node.errors import BadInput, DiskFull, Unreadable
from dicom_node.header import read_header
from dicom_node.pictures import is_png, read_png
from dicom_node.pixels import DisplayImage, read_display
from dicom_node.records import Header
from dicom_node.routing import Exam

SUFFIX = ".bank.json"


@dataclass(frozen=True, slots=True)
class ReferenceFacts:
    """One reference as a person sees it."""

    id: str
    view: str
    vendor: str
    source: str
    uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BankFacts:
    """One bank as a person sees it. `path` is None for an embedded one."""

    name: str
    exam: Exam
    count: int
    threshold: float
    digest: str
    provenance: str
    path: Path | None
    replaces_embedded: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """One image as a reference, and the header that it came with (None: a PNG)."""

    path: Path
    reference: engine.Reference
    header: Header | None


@dataclass(frozen=True, slots=True)
class Added:
    """What adding came to: the bank as it is now, and the images that it had already."""

    bank: BankFacts
    added: tuple[Measured, ...]
    already: tuple[Measured, ...]


def measure(path: Path) -> Measured:
    """Turn an image into a reference.

    Raises Unreadable where the file is no grey radiograph or is a result of our own, BadInput where it is another kind
    of PNG. OSError is the disk's.
    """
    if is_png(path):
        # File names are not kept, of no kind of file: they may hold a patient's. The digest tells references apart.
        return Measured(path, _described(read_png(path)), None)
    header = read_header(path)
    if header.made_by_evenray:
        raise Unreadable("made by Evenray: a bank learns from originals only, not from its own results")
    uids = (header.sop_instance_uid,)
    return Measured(path, _described(read_display(path), header.view, header.manufacturer, uids=uids), header)


def _described(
    image: DisplayImage, view: str = "", vendor: str = "", *, uids: tuple[str, ...] = ()
) -> engine.Reference:
    try:
        return engine.describe_reference(engine_image(image), view=view, vendor=vendor, uids=uids)
    except engine.InvalidImage as fault:
        raise Unreadable(str(fault)) from fault


def differs(header: Header | None, exam: Exam) -> str:
    """In which way an image is not of this exam type; "" where it is, or does not say (a PNG, an empty attribute)."""
    if header is None:
        return ""
    pairs = (
        ("modality", header.modality, exam.modalities),
        ("body part", header.body_part, (exam.body_part,)),
        ("view", header.view, exam.views),
    )
    wrong = [f"{what} {found}" for what, found, wanted in pairs if found and wanted and found not in wanted]
    return f"{', '.join(wrong)}: the bank is for {exam_text(exam)}" if wrong else ""


def exam_text(exam: Exam) -> str:
    """`CR/DX CHEST PA/AP`."""
    return f"{'/'.join(exam.modalities)} {exam.body_part} {'/'.join(exam.views) or 'any view'}"


class Banks:
    """The embedded banks and those of one folder."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made or read yet. Every method raises BadInput on a bank file that is damaged."""
        self._folder = folder

    def all(self) -> tuple[list[BankFacts], list[str]]:
        """Every bank that can be loaded, by name, and one sentence for every one that can't."""
        found: dict[str, BankFacts] = {}
        faults: list[str] = []
        embedded, damaged = _embedded()
        faults += damaged
        found.update({name: _facts(bank, None) for name, bank in embedded.items()})
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                bank = _load(path)
            except BadInput as fault:
                faults.append(str(fault))
            else:
                found[bank.name] = _facts(bank, path, replaces_embedded=bank.name in embedded)
        return [found[name] for name in sorted(found)], faults

    def exam(self, name: str) -> Exam | None:
        """The exam type of a bank of the folder; None where there is none yet.

        Raises BadInput where the name is an embedded bank's: a copy of it, mixed with a site's own references, would
        hide every later version of the shipped one, and one name in the reports would mean two things.
        """
        path = self._path(name)
        if path.exists():
            return _exam(_load(path))
        if name in _embedded()[0]:
            raise BadInput(
                f"{name}: is shipped with the program and can't be changed: choose another name, "
                "and have a route use it (bank: NAME)"
            )
        return None

    def add(self, name: str, exam: Exam, measured: Sequence[Measured], provenance: str) -> Added:
        """Add references to a bank of the folder, which is made where there is none; the same pixels count once."""
        with self._locked(make=True):
            self.exam(name)
            path = self._path(name)
            bank = _load(path) if path.exists() else None
            kept = {r.id: r for r in bank.references} if bank else {}
            added: list[Measured] = []
            already: list[Measured] = []
            for one in measured:
                (already if one.reference.id in kept else added).append(one)
                kept.setdefault(one.reference.id, one.reference)
            said = "; ".join(dict.fromkeys(p for p in (bank.provenance if bank else "", provenance) if p))
            given = bank.exam if bank else engine.Exam(exam.modalities, exam.body_part, exam.views)
            built = engine.build_bank(name, given, kept.values(), said)
            if bank is None or built.digest != bank.digest:
                write_durably(path, engine.dump_bank(built).encode())
        return Added(_facts(built, path), tuple(added), tuple(already))

    def show(self, name: str) -> tuple[BankFacts, list[ReferenceFacts]]:
        """One bank with its references, by id."""
        embedded, faults = _embedded()
        path = self._path(name) if self._path(name).exists() else None
        if path is not None:
            bank = _load(path)
        elif name in embedded:
            bank = embedded[name]
        else:
            raise BadInput(faults[0] if faults else self._unknown(name))
        references = [ReferenceFacts(r.id, r.view, r.vendor, r.source, r.uids) for r in bank.references]
        return _facts(bank, path, replaces_embedded=path is not None and name in embedded), references

    def remove(self, name: str, starts: Sequence[str]) -> tuple[BankFacts, list[str]]:
        """Remove the references whose ids start so; the bank as it is now and the ids that are gone."""
        with self._locked():
            path = self._own(name)
            bank = _load(path)
            gone = {_one(start, bank) for start in starts}
            kept = [r for r in bank.references if r.id not in gone]
            if not kept:
                raise BadInput(f"{name}: no reference would be left: remove the whole bank with --whole")
            built = engine.build_bank(bank.name, bank.exam, kept, bank.provenance)
            write_durably(path, engine.dump_bank(built).encode())
        return _facts(built, path), sorted(gone)

    def remove_whole(self, name: str) -> bool:
        """Remove a bank's file, damaged or not; whether an embedded bank of that name is in force now."""
        with self._locked():
            path = self._own(name)
            path.unlink()
            fsync(self._folder)
        return name in _embedded()[0]

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}"

    def _own(self, name: str) -> Path:
        """The file of a bank that may be changed."""
        path = self._path(name)
        if path.exists():
            return path
        if name in _embedded()[0]:
            raise BadInput(f"{name}: is shipped with the program and can't be changed: routes may name another bank")
        raise BadInput(self._unknown(name))

    def _unknown(self, name: str) -> str:
        known = ", ".join(sorted({p.name.removesuffix(SUFFIX) for p in self._files()} | set(_embedded()[0])))
        return f"{name}: no bank of this name in {self._folder}: known are {known or 'none'}"

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{SUFFIX}"))

    @contextmanager
    def _locked(self, *, make: bool = False) -> Iterator[None]:
        """One change at a time: two people adding at once must not lose each other's references."""
        if not make and not self._folder.is_dir():
            yield
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as fault:
            raise DiskFull(f"{self._folder}: can't be written ({fault.strerror}): check owner and room") from fault
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _embedded() -> tuple[Mapping[str, engine.Bank], list[str]]:
    try:
        return engine.default_banks(), []
    except engine.InvalidBank as fault:
        return {}, [f"{fault}: install the program again"]


def _load(path: Path) -> engine.Bank:
    try:
        bank = engine.load_bank(path)
    except engine.InvalidBank as fault:
        raise BadInput(f"{fault}: restore the file, or remove the bank with `evenray references remove --whole`") from (
            fault
        )
    except OSError as fault:
        raise BadInput(f"{path}: can't be read ({fault.strerror}): check its owner") from fault
    if path.name != f"{bank.name}{SUFFIX}":
        raise BadInput(f"{path}: holds a bank called {bank.name}: name the file {bank.name}{SUFFIX}")
    return bank


def _exam(bank: engine.Bank) -> Exam:
    return Exam(bank.exam.modalities, bank.exam.body_part, bank.exam.views)


def _facts(bank: engine.Bank, path: Path | None, *, replaces_embedded: bool = False) -> BankFacts:
    return BankFacts(
        bank.name,
        _exam(bank),
        len(bank.references),
        bank.threshold,
        bank.digest,
        bank.provenance,
        path,
        replaces_embedded,
    )


def _one(start: str, bank: engine.Bank) -> str:
    """The id that starts so."""
    found = [r.id for r in bank.references if start and r.id.startswith(start.lower())]
    if len(found) != 1:
        what = f"{len(found)} references start" if found else "no reference starts"
        raise BadInput(f"{bank.name}: {what} with {start!r}: give more of the id, as `evenray references show` does")
    return found[0]

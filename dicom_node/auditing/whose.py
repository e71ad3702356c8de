"""Whose a study is: the one place of the audit trail that reads patients' data from files. Logs none of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dicom_node.audit_trail import Notes
from dicom_node.audit_trail.messages import Subject
from dicom_node.errors import Unreadable
from dicom_node.ledger import Leaving, Ledger
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.tolerant import read, text


class Identities:
    """Whose a study is: read from the study's files, since the ledger names no patient. Kept in memory for a moment."""

    def __init__(self, ledger: Ledger, spool: Spool) -> None:
        self._ledger, self._spool = ledger, spool
        self._left: dict[str, Subject] = {}
        self._read: dict[str, Subject] = {}

    def learn(self, leaving: Iterable[Mapping[str, Any]]) -> None:
        """Of files that leave or have left, from the notes about them."""
        self._left = {key: Subject(**found) for note in leaving for key, found in note["studies"].items()}

    def forget(self) -> None:
        self._read.clear()

    def of(self, study_key: str, paths: Sequence[str]) -> Subject:
        """The patient and accession number of a study; empty where no file of it is left.

        `paths`: files of it that may still be there.
        """
        if study_key not in self._read:
            self._read[study_key] = self._left.get(study_key) or self._from_files(study_key, paths)
        return self._read[study_key]

    def _from_files(self, study_key: str, paths: Sequence[str]) -> Subject:
        for path in (*paths[:3], *self._ledger.trail.files_of(study_key)):
            with contextlib.suppress(OSError, Unreadable):
                dataset, _ = read(self._spool.at(path))
                return Subject(
                    "",
                    patient_id=text(dataset, "PatientID"),
                    patient_name=text(dataset, "PatientName"),
                    accession=text(dataset, "AccessionNumber"),
                )
        return Subject("")


def before_leaving(settings: Settings, ledger: Ledger, spool: Spool) -> Callable[[Sequence[Leaving]], None]:
    """What is called before files leave: it notes whose they are, since nothing else could say so afterwards."""
    kept = Notes(settings)

    def note(files: Sequence[Leaving]) -> None:
        rows = [ledger.instances.get(file.id) for file in files if file.what == "instance"] if kept.wanted else []
        studies: dict[str, dict[str, Any]] = {}
        found = Identities(ledger, spool)
        for row in rows:
            if row and row.header and row.header.study_key not in studies:
                studies[row.header.study_key] = asdict(found.of(row.header.study_key, [row.path]))
        if studies:
            kept.write("leaving", studies=studies)

    return note

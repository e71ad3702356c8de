"""Whether a DICOMweb server that has an object of a UID already has the very same: it is fetched and compared.

Knows no request that stores. Without it a request that broke off after it was carried out would end in a refusal, and
an object that is not ours would pass for ours.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from functools import partial
from pathlib import Path

from pydicom import dcmread
from pynetdicom.dsutils import split_dataset

from dicom_node.destinations.parcel import PIECE
from dicom_node.destinations.transcode import FAULTS
from dicom_node.dicomweb import Web, retrieve
from dicom_node.errors import Blame, EvenrayError, PeerRefused


def same_there(web: Web, uid: str, path: Path) -> EvenrayError | None:
    """None where the data set there is that of the file, byte for byte; else a refusal, or what kept us from asking.

    Raises what is about the server.
    """
    ours = web.call(partial(_identity, path))
    if ours is None:
        return PeerRefused(f"{web.peer}: has an object {uid} already, and ours could not be compared with it")
    study, series, digest = ours
    with tempfile.TemporaryDirectory(prefix="evenray-") as folder:
        target = Path(folder) / "object.dcm"
        try:
            web.call(lambda: retrieve(web, study, series, uid, target))
        except EvenrayError as fault:
            if fault.blame is Blame.PEER:
                raise
            return PeerRefused(f"{web.peer}: says that it has an object {uid} already, and did not give it: {fault}")
        theirs = web.call(partial(_identity, target))
    if theirs and theirs[2] == digest:
        return None
    return PeerRefused(f"{web.peer}: has another object of the UID {uid}: compare the two there, then delete one")


def _identity(path: Path) -> tuple[str, str, str] | None:
    """Study and Series Instance UID, and the data set's digest; None where it can't be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            wanted = ["StudyInstanceUID", "SeriesInstanceUID"]
            dataset = dcmread(path, specific_tags=wanted, stop_before_pixels=True)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            file.seek(split_dataset(path)[1])
            while piece := file.read(PIECE):
                digest.update(piece)
    except (OSError, *FAULTS):
        return None
    return str(dataset.get("StudyInstanceUID", "")), str(dataset.get("SeriesInstanceUID", "")), digest.hexdigest()

"""The images that benches send: large DX and small CR of nobody, made from a seed, or a folder of somebody's files.

Knows no receiver. A corpus is a folder of links for each sender, so that several send disjoint parts at once.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from tests import dicom_files

LARGE = 4_000_000
"""Bytes of a file, on average, above which a corpus counts as large."""
PLAIN = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian)
DICOMDIR = uid.MediaStorageDirectoryStorage
ROOT_UID = "1.2.826.0.1.3680043.8.498.77"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a generated corpus consists of."""

    kind: str
    rows: int
    columns: int
    files: int
    studies: int


FULL = {"dx": Shape("DX", 2500, 2048, 60, 20), "cr": Shape("CR", 512, 512, 1000, 100)}
QUICK = {"dx": Shape("DX", 2500, 2048, 10, 4), "cr": Shape("CR", 512, 512, 80, 10)}


@dataclass(frozen=True, slots=True)
class Corpus:
    """Files to send."""

    name: str
    files: tuple[Path, ...]
    bytes: int
    left_out: int = 0
    """DICOM files of the folder that are not sent."""

    @property
    def large(self) -> bool:
        return self.bytes / len(self.files) >= LARGE

    def text(self) -> str:
        less = f"; {self.left_out} left out (compressed, or of a UID sent already)" if self.left_out else ""
        return f"{self.name}: {len(self.files)} files, {self.bytes / 1e6:.1f} MB{less}"

    def shares(self, folder: Path, senders: int) -> list[Path]:
        """A folder of links for each sender, studies kept together as far as the numbers allow."""
        made = []
        for n in range(senders):
            share = folder / f"{self.name}-{senders}-{n}"
            if not share.exists():
                share.mkdir(parents=True)
                first, behind = (len(self.files) * k // senders for k in (n, n + 1))
                for k, path in enumerate(self.files[first:behind], start=first):
                    (share / f"{k:05}.dcm").symlink_to(path.resolve())
            made.append(share)
        return [share for share in made if any(share.iterdir())]


def generate(folder: Path, name: str, shape: Shape, seed: int) -> Corpus:
    """A corpus of valid radiographs of nobody."""
    folder.mkdir(parents=True)
    random = np.random.default_rng([seed, *name.encode()])
    smooth, noise = _phantom(shape.rows, shape.columns), _noise(shape.rows, shape.columns, random)
    files = []
    for n in range(shape.files):
        study = f"{ROOT_UID}.{seed}.{len(name)}{ord(name[0])}.{n * shape.studies // shape.files + 1}"
        # Rolled, the same noise is another image; new noise for each would take longer than the bench.
        words = smooth + np.roll(noise, tuple(random.integers(0, size) for size in noise.shape), (0, 1))
        path = folder / f"{n:05}.dcm"
        dicom_files.write(path, _radiograph(shape.kind, words, study, n), uid.ExplicitVRLittleEndian)
        files.append(path)
    return Corpus(name, tuple(files), sum(path.stat().st_size for path in files))


def given(source: Path, name: str = "input") -> Corpus:
    """The DICOM files of a folder that storescu sends with default options: uncompressed ones, each UID once."""
    files, seen, left_out = [], set(), 0
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                meta = dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).file_meta
        except (InvalidDicomError, OSError, EOFError):
            continue
        identity, kind = meta.get("MediaStorageSOPInstanceUID"), meta.get("MediaStorageSOPClassUID")
        if (
            meta.get("TransferSyntaxUID") in PLAIN
            and identity
            and kind not in (None, DICOMDIR)
            and identity not in seen
        ):
            seen.add(identity)
            files.append(path)
        else:
            left_out += 1
    if not files:
        raise SystemExit(f"INPUT={source}: no uncompressed DICOM file was found there")
    return Corpus(name, tuple(files), sum(path.stat().st_size for path in files), left_out)


def _phantom(rows: int, columns: int) -> NDArray[np.uint16]:
    """Two dark lungs in a bright chest, 14 bits."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j].astype(np.float32)
    lungs = sum(np.exp(-(((x - side) / 0.3) ** 2 + ((y + 0.1) / 0.55) ** 2)) for side in (-0.45, 0.45))
    return (9000 - 5000 * lungs + 800 * y).astype(np.uint16)


def _noise(rows: int, columns: int, random: np.random.Generator) -> NDArray[np.uint16]:
    return (random.standard_normal((rows, columns), dtype=np.float32) * 30 + 200).clip(0, 400).astype(np.uint16)


def _radiograph(kind: str, words: NDArray[np.uint16], study: str, number: int) -> Dataset:
    ds = dicom_files.dataset(
        kind,
        words,
        bits=14,
        instance=f"{study}.1.{number + 1}",
        study=study,
        series=f"{study}.1",
        PatientName="Bench^Nobody",
        PatientID=f"BENCH-{study.rpartition('.')[2]}",
        InstanceNumber=number + 1,
        RescaleIntercept=0,
        RescaleSlope=1,
        RescaleType="US",
        WindowCenter=8192,
        WindowWidth=16384,
        ImagerPixelSpacing=[0.16, 0.16],
        PatientOrientation=["L", "F"],
        BurnedInAnnotation="NO",
        LossyImageCompression="00",
        PresentationLUTShape="IDENTITY",
        PatientBirthDate="19700101",
        AcquisitionDate="20240203",
        AcquisitionTime="101500",
    )
    if kind == "DX":
        ds.ImageLaterality = "U"
        ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", -1
        ds.DetectorType, ds.PositionerType = "SCINTILLATOR", "NONE"
        ds.AcquisitionContextSequence = []
        ds.AnatomicRegionSequence = [dicom_files.code("51185008", "SCT", "Chest")]
        view = dicom_files.code("272479007", "SCT", "postero-anterior")
        view.ViewModifierCodeSequence = []
        ds.ViewCodeSequence = [view]
    else:
        ds.KVP, ds.PlateID = None, "BENCH"
    return ds

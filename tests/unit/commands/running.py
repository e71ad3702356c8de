"""Run the command line in this process, as the shell would, on invented radiographs. Judges nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dicom_node.cli import main
from engine.phantom import make_phantom
from tests import dicom_files

NAME = "Quetzalcoatl^Wilhelmine"
"""A patient's name that nothing else could print by chance."""
PREFERRED, OTHER, HARD = "Norlund", "Umbra", "Graven"
"""Vendors: the look that is wanted, one that can be brought there, and one that can not."""
QUICK = "Quick"
"""No chest at all, only some smooth picture, where a test does not depend on what is shown."""
SIDE = 256


@dataclass(frozen=True)
class Ran:
    """What the shell would have seen."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


def evenray(*arguments: object) -> Ran:
    """Run `evenray` with these arguments."""
    out, err = StringIO(), StringIO()
    code = 0
    given = ["evenray", *map(str, arguments)]
    with mock.patch.object(sys, "argv", given), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


def config(folder: Path, *more: str) -> Path:
    """A configuration whose state is below `folder`, with one route for radiographs."""
    path = folder / "evenray.yaml"
    path.write_text("\n".join(["state_dir: state", "storage: {reserve_mib: 0, watermark_percent: 100}", *more]) + "\n")
    return path


ROUTE = "routes: [{name: radiographs}]"


@dataclass(frozen=True)
class _Picture:
    codes: NDArray[np.uint16]
    bits: int
    inverted: bool

    @property
    def shown(self) -> NDArray[np.float64]:
        share = self.codes / (2**self.bits - 1)
        return 1 - share if self.inverted else share


@cache
def _made(seed: int, vendor: str) -> _Picture:
    if vendor != QUICK:
        made = make_phantom(seed, vendor, SIDE)
        return _Picture(made.codes, made.bits, made.inverted)
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(6, 6))
    y, x = np.mgrid[0:64, 0:64] / 64
    sum_ = sum(w * np.cos(np.pi * (i * y + j * x)) for (i, j), w in np.ndenumerate(waves))
    share = (sum_ - sum_.min()) / np.ptp(sum_)
    return _Picture(np.rint(share * 4095).astype(np.uint16), 12, inverted=False)


def chest(path: Path, seed: int, vendor: str = QUICK, **attributes: Any) -> Path:
    """An invented chest radiograph as a DX file; UIDs differ by seed and vendor."""
    made = _made(seed, vendor)
    number = f"1.2.3.{seed}.{sum(vendor.encode())}"
    given = {
        "instance": f"{number}.1",
        "study": number,
        "series": f"{number}.9",
        "PatientName": NAME,
        "Manufacturer": vendor.upper(),
        "PhotometricInterpretation": "MONOCHROME1" if made.inverted else "MONOCHROME2",
        "ViewPosition": "PA",
        **attributes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    return dicom_files.write(path, dicom_files.dataset("DX", made.codes, bits=made.bits, **given))


def picture(path: Path, seed: int, vendor: str = QUICK, *, bits: int = 16) -> Path:
    """The same as a grey PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codes = np.rint(_made(seed, vendor).shown * (2**bits - 1))
    Image.fromarray(codes.astype(np.uint8 if bits == 8 else np.uint16)).save(path)
    return path


def chests(folder: Path, seeds: Sequence[int], vendor: str = QUICK) -> list[Path]:
    return [chest(folder / f"{vendor}-{seed}.dcm", seed, vendor) for seed in seeds]

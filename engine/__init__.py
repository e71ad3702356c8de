"""The engine: tensors and settings in, tensors and numbers out. Knows no DICOM, clock, network or environment."""

from __future__ import annotations

from engine.errors import DeviceFault, EngineError, InvalidBank, InvalidImage, InvalidReplay, InvalidSettings
from engine.pipeline import Engine
from engine.replay import REPLAY_TOLERANCE, is_curve, replay_curve
from engine.settings import METHODS, EngineSettings
from engine.style import (
    Bank,
    Exam,
    Reference,
    build_bank,
    describe_reference,
    dump_bank,
    load_bank,
    parse_bank,
    pixel_digest,
    with_reference,
    without_reference,
)
from engine.types import Alignment, Candidate, Conforming, Decided, Figure, Harmonized, Image, Refused, Trace
from engine.verify import FIGURES
from engine.version import ENGINE_VERSION
from engine.weights import bank_files


def default_banks() -> dict[str, Bank]:
    """The shipped banks by name, digests checked. Raises InvalidBank where a file was changed."""
    banks = [load_bank(path) for path in bank_files()]
    return {bank.name: bank for bank in banks}


__all__ = [
    "ENGINE_VERSION",
    "FIGURES",
    "METHODS",
    "REPLAY_TOLERANCE",
    "Alignment",
    "Bank",
    "Candidate",
    "Conforming",
    "Decided",
    "DeviceFault",
    "Engine",
    "EngineError",
    "EngineSettings",
    "Exam",
    "Figure",
    "Harmonized",
    "Image",
    "InvalidBank",
    "InvalidImage",
    "InvalidReplay",
    "InvalidSettings",
    "Reference",
    "Refused",
    "Trace",
    "bank_files",
    "build_bank",
    "default_banks",
    "describe_reference",
    "dump_bank",
    "is_curve",
    "load_bank",
    "parse_bank",
    "pixel_digest",
    "replay_curve",
    "with_reference",
    "without_reference",
]

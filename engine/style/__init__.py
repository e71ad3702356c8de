"""Say how an image looks and how far that is from a bank's preferred look. Knows no method that changes it."""

from __future__ import annotations

from engine.style.bank import Bank, Exam, Reference, build_bank, with_reference, without_reference
from engine.style.bank_file import dump_bank, load_bank, parse_bank
from engine.style.descriptor import Descriptor, Detail, describe
from engine.style.distance import Distribution, distance, distribution
from engine.style.reference import describe_reference, pixel_digest
from engine.style.similar import similar_references

__all__ = [
    "Bank",
    "Descriptor",
    "Detail",
    "Distribution",
    "Exam",
    "Reference",
    "build_bank",
    "describe",
    "describe_reference",
    "distance",
    "distribution",
    "dump_bank",
    "load_bank",
    "parse_bank",
    "pixel_digest",
    "similar_references",
    "with_reference",
    "without_reference",
]

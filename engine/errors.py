"""What can go wrong in the engine, as one tree. An outcome (refused, conforming) is a value and is not here."""

from __future__ import annotations


class EngineError(Exception):
    """Root of everything the engine raises on purpose."""


class InvalidImage(EngineError):
    """The pixels or their description break the contract of `Image`; the same input will fail again."""


class InvalidBank(EngineError):
    """A bank can't be used: unknown name, damaged file, digest that differs, or too few references."""


class InvalidSettings(EngineError):
    """A setting names something that does not exist or lies outside its range."""


class InvalidReplay(EngineError):
    """What a report states can't be applied here: an unknown method or version, or parameters that are not its own."""


class DeviceFault(EngineError):
    """The device failed (out of memory, lost): the same work may succeed later or elsewhere."""

"""Decide about images: align ► score ► choose ► harmonize ► score ► verify. The only place where the stages meet.

Knows no DICOM, no file and no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from engine.align import agreement, estimate, measure_layout
from engine.errors import InvalidBank
from engine.field import find_field
from engine.harmonize import HARMONIZERS, Proposal, Source, Target
from engine.harmonize.codes import grey_codes, grey_values
from engine.runtime import device_faults, resolve_device, weights_digest
from engine.settings import EngineSettings, check_methods
from engine.style import Bank, Distribution, Reference, describe, distance, distribution, similar_references
from engine.types import Alignment, Candidate, Conforming, Decided, Figure, Harmonized, Image, Refused, Trace
from engine.verify import check_tone
from engine.version import ENGINE_VERSION
from engine.working import to_working


@dataclass(frozen=True, slots=True)
class _Ready:
    """A bank with its distribution, worked out once."""

    bank: Bank
    centre: Distribution


@dataclass(frozen=True, slots=True)
class _Scored:
    """One image aligned and scored, before anything is tried."""

    source: Source
    alignment: Alignment
    anatomy: Figure
    references: tuple[Reference, ...]
    distance: float
    threshold: float


class Engine:
    """The engine with its settings and banks; it holds nothing of any image.

    Raises InvalidSettings where the device does not exist.
    """

    def __init__(self, settings: EngineSettings, banks: Mapping[str, Bank]) -> None:
        self._settings = settings
        self._settings_digest = settings.digest
        self._banks = {
            name: _Ready(bank, distribution([r.descriptor for r in bank.references])) for name, bank in banks.items()
        }
        self._device = resolve_device(settings.device)

    @property
    def device(self) -> torch.device:
        """The device that the engine computes on."""
        return self._device

    def run(self, images: Sequence[Image], bank: str, methods: Sequence[str] | None = None) -> list[Decided]:
        """Decide about each image, in order; images don't influence each other.

        bank: one of the engine's banks. methods: in order of harm, mildest first; None is the settings' own. Methods
        are tried until one is verified and conforming, so the trace holds the candidates up to that one.
        Raises InvalidBank on an unknown bank, InvalidSettings on an unknown method, DeviceFault where the device
        runs out of memory or fails.
        """
        if bank not in self._banks:
            raise InvalidBank(f"no bank is called {bank!r}; there are {', '.join(sorted(self._banks)) or 'none'}")
        chosen = self._settings.methods if methods is None else tuple(methods)
        check_methods(chosen, "methods")
        with device_faults(self._device):
            return [self._decide(image, self._banks[bank], chosen) for image in images]

    def _decide(self, image: Image, ready: _Ready, methods: tuple[str, ...]) -> Decided:
        scored = self._score(_on(image, self._device), ready)
        before, threshold = scored.distance, scored.threshold
        if not scored.anatomy.passed:
            trace = self._trace(ready.bank, scored, (), methods)
            return Refused(trace, f"the image's layout is not that of bank {ready.bank.name}'s exam", scored.anatomy)
        if before <= threshold:
            trace = self._trace(ready.bank, scored, (), methods)
            return Conforming(trace, f"style distance {before:.2f} is within the threshold {threshold:.2f}")
        tried: list[tuple[Candidate, Proposal]] = []
        for method in methods:
            tried.append(self._try(method, scored, ready))
            candidate = tried[-1][0]
            if candidate.verified and candidate.distance <= threshold:
                reason = (
                    f"{method} brought the style distance from {before:.2f} to {candidate.distance:.2f}, "
                    f"within the threshold {threshold:.2f}"
                )
                return self._harmonized(image, scored, ready, tried, tried[-1], methods, reason)
        return self._closest(image, scored, ready, tried, methods)

    def _closest(
        self,
        image: Image,
        scored: _Scored,
        ready: _Ready,
        tried: list[tuple[Candidate, Proposal]],
        methods: tuple[str, ...],
    ) -> Decided:
        """No method reached the threshold: take the verified one that came closest, if it is worth a change."""
        before = scored.distance
        wanted = before * (1 - self._settings.min_improvement)
        candidates = tuple(candidate for candidate, _ in tried)
        verified = [pair for pair in tried if pair[0].verified]
        if not verified:
            failed = next(f for f in candidates[0].figures if not f.passed)
            trace = self._trace(ready.bank, scored, candidates, methods)
            return Refused(trace, f"no method passed the anatomy check; {candidates[0].method} failed it", failed)
        best = min(verified, key=lambda pair: pair[0].distance)
        figure = Figure("distance_after", best[0].distance, wanted, at_least=False)
        if not figure.passed:
            trace = self._trace(ready.bank, scored, candidates, methods)
            reason = f"no method came close enough: {best[0].method} left {best[0].distance:.2f} of {before:.2f}"
            return Refused(trace, reason, figure)
        reason = (
            f"{best[0].method} brought the style distance from {before:.2f} to {best[0].distance:.2f}, "
            f"closer but not within the threshold {scored.threshold:.2f}"
        )
        return self._harmonized(image, scored, ready, tried, best, methods, reason)

    def _score(self, image: Image, ready: _Ready) -> _Scored:
        settings = self._settings
        working = to_working(image.values, image.padding)
        field = find_field(working)
        layout = measure_layout(working.grey, field.working)
        alignment = estimate(layout, ready.bank.frame, settings.min_alignment_confidence)
        descriptor, detail = describe(working.grey, field.working)
        inside = field.full(image.height, image.width, image.values.device)
        source = Source(image, grey_codes(image), inside, field, descriptor, detail)
        threshold = _or_own(settings.distance_threshold, ready.bank.threshold)
        least = _or_own(settings.min_anatomy_agreement, ready.bank.least_agreement)
        anatomy = Figure("anatomy_agreement", agreement(layout.geometry, ready.bank.frame), least)
        references = similar_references(ready.bank, layout.geometry, settings.similar_references)
        return _Scored(source, alignment, anatomy, references, distance(descriptor, ready.centre), threshold)

    def _try(self, method: str, scored: _Scored, ready: _Ready) -> tuple[Candidate, Proposal]:
        """Run one method, score its result in the same field as before, and verify it."""
        source = scored.source
        levels = source.image.levels
        proposal = HARMONIZERS[method].harmonize(source, Target(ready.centre, scored.references))
        # Padding is no image: it keeps its code, or the file's Pixel Padding Value would no longer name it.
        codes = torch.where(source.image.padding, source.codes, proposal.codes)
        proposal = Proposal(codes, proposal.lut, proposal.parameters)
        after = to_working(grey_values(proposal.codes, levels), source.image.padding)
        descriptor, _ = describe(after.grey, source.field.working)
        figures = check_tone(source.codes, proposal.codes, source.inside, levels, self._settings)
        return Candidate(method, distance(descriptor, ready.centre), figures, proposal.parameters), proposal

    def _harmonized(
        self,
        image: Image,
        scored: _Scored,
        ready: _Ready,
        tried: list[tuple[Candidate, Proposal]],
        winner: tuple[Candidate, Proposal],
        methods: tuple[str, ...],
        reason: str,
    ) -> Harmonized:
        candidate, proposal = winner
        home = image.values.device
        values = grey_values(proposal.codes, image.levels).to(home)
        curve = None if proposal.lut is None else grey_values(proposal.lut, image.levels).to(home)
        trace = self._trace(ready.bank, scored, tuple(c for c, _ in tried), methods)
        return Harmonized(trace, candidate, values, curve, reason)

    def _trace(self, bank: Bank, scored: _Scored, candidates: tuple[Candidate, ...], methods: tuple[str, ...]) -> Trace:
        return Trace(
            bank=bank.name,
            bank_digest=bank.digest,
            references=tuple(r.id for r in scored.references),
            alignment=scored.alignment,
            exposed_share=scored.source.field.share,
            distance_before=scored.distance,
            threshold=scored.threshold,
            candidates=candidates,
            engine_version=ENGINE_VERSION,
            settings_digest=self._settings_digest,
            weights_digest=weights_digest(
                {bank.name: bank.digest}, [(name, HARMONIZERS[name].version) for name in methods]
            ),
        )


def _or_own(setting: float | None, own: float) -> float:
    """What the settings say, or the bank's own value where they leave it to the bank."""
    return own if setting is None else setting


def _on(image: Image, device: torch.device) -> Image:
    """The image on the engine's device; the same object where it is there already."""
    if image.values.device.type == device.type:
        return image
    return Image(image.values.to(device), image.padding.to(device), image.levels, image.spacing_mm)

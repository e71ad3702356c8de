"""Decide about images: align ► score ► choose ► harmonize ► score ► verify. The only place where the stages meet.

Knows no DICOM, no file and no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from engine.align import agreement, estimate, measure_layout
from engine.errors import InvalidBank
from engine.field import FieldSource, find_field
from engine.harmonize import HARMONIZERS, Source, Target
from engine.harmonize.codes import change, count_codes, grey_codes, grey_values, keep_padding
from engine.replay import check_version
from engine.runtime import Place, first_that_holds, in_strips, resolve_device, weights_digest
from engine.settings import EngineSettings, check_methods
from engine.style import Bank, Distribution, Reference, describe, distance, distribution, similar_references
from engine.types import Alignment, Candidate, Conforming, Decided, Figure, Harmonized, Image, Refused, Trace
from engine.verify import check_tone, tone_of_pixels, tone_of_table
from engine.version import ENGINE_VERSION
from engine.working import to_working


@dataclass(frozen=True, slots=True)
class _Ready:
    """A bank with its distribution, worked out once."""

    bank: Bank
    centre: Distribution


@dataclass(frozen=True, slots=True)
class _Scored:
    """One image aligned and scored, before anything is tried. place, setbacks: where, and what failed before."""

    place: Place
    setbacks: tuple[str, ...]
    source: Source
    alignment: Alignment
    anatomy: Figure
    references: tuple[Reference, ...]
    distance: float
    threshold: float


@dataclass(frozen=True, slots=True)
class _Tried:
    """One method's result: measured, and at hand in case it wins. values: (1, H, W); curve: (levels,) or None."""

    candidate: Candidate
    values: torch.Tensor
    curve: torch.Tensor | None


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
        Where the device runs out of memory or fails, the image is worked on in strips, then on the CPU, with the same
        result; the trace says where. Raises InvalidBank on an unknown bank, InvalidSettings on an unknown method,
        DeviceFault where no way of working holds.
        """
        if bank not in self._banks:
            raise InvalidBank(f"no bank is called {bank!r}; there are {', '.join(sorted(self._banks)) or 'none'}")
        chosen = self._settings.methods if methods is None else tuple(methods)
        check_methods(chosen, "methods")
        return [self._held(image, self._banks[bank], chosen) for image in images]

    def replay(self, image: Image, bank: str, bank_digest: str, method: str, version: int) -> torch.Tensor:
        """The pixels that a method makes of an image, whatever their figures; for methods whose parameters alone don't
        say it. For those that are curves `replay_curve` needs no bank.

        Returns (1, H, W) float32 in [0, 1]. On the same software and device they are the same bits again.
        Raises InvalidBank where there is no bank of this name and digest, InvalidReplay where the method is unknown
        here in this version, DeviceFault.
        """
        ready = self._banks.get(bank)
        if ready is None or ready.bank.digest != bank_digest:
            there = "it has another content here" if ready else "it is not here"
            raise InvalidBank(f"bank {bank!r} with digest {bank_digest[:12]} is needed, and {there}")
        check_version(method, version)

        def work(place: Place, setbacks: tuple[str, ...]) -> torch.Tensor:
            scored = self._score(_on(image, place.home), ready, place, setbacks)
            return self._try(method, scored, ready).values.to(image.values.device)

        return first_that_holds(self._device, work)

    def _held(self, image: Image, ready: _Ready, methods: tuple[str, ...]) -> Decided:
        return first_that_holds(
            self._device, lambda place, setbacks: self._decide(image, ready, methods, place, setbacks)
        )

    def _decide(
        self, image: Image, ready: _Ready, methods: tuple[str, ...], place: Place, setbacks: tuple[str, ...] = ()
    ) -> Decided:
        scored = self._score(_on(image, place.home), ready, place, setbacks)
        before, threshold = scored.distance, scored.threshold
        if not scored.anatomy.passed:
            reason = f"the image's layout is not that of bank {ready.bank.name}'s exam"
            return Refused(self._trace(ready.bank, scored, [], methods), reason, scored.anatomy)
        if before <= threshold:
            reason = f"style distance {before:.2f} is within the threshold {threshold:.2f}"
            return Conforming(self._trace(ready.bank, scored, [], methods), reason)
        tried: list[_Tried] = []
        for method in methods:
            tried.append(self._try(method, scored, ready))
            if tried[-1].candidate.verified and tried[-1].candidate.distance <= threshold:
                break
        trace = self._trace(ready.bank, scored, tried, methods)
        return self._choose(trace, tried, image.values.device)

    def _choose(self, trace: Trace, tried: list[_Tried], home: torch.device) -> Harmonized | Refused:
        """The verified candidate that reached the threshold, else the verified one that came closest, if it is worth
        a change. Only the last tried can have reached it."""
        verified = [one for one in tried if one.candidate.verified]
        if not verified:
            first = tried[0].candidate
            failed = next(figure for figure in first.figures if not figure.passed)
            return Refused(trace, f"no method passed the anatomy check; {first.method} failed {failed.name}", failed)
        best = min(verified, key=lambda one: one.candidate.distance)
        if tried[-1].candidate.verified and tried[-1].candidate.distance <= trace.threshold:
            best = tried[-1]
        before, after = trace.distance_before, best.candidate.distance
        if after > trace.threshold:
            wanted = Figure("distance_after", after, before * (1 - self._settings.min_improvement), at_least=False)
            if not wanted.passed:
                reason = f"no method came close enough: {best.candidate.method} left {after:.2f} of {before:.2f}"
                return Refused(trace, reason, wanted)
        within = "within" if after <= trace.threshold else "closer but not within"
        reason = (
            f"{best.candidate.method} brought the style distance from {before:.2f} to {after:.2f}, "
            f"{within} the threshold {trace.threshold:.2f}"
        )
        curve = None if best.curve is None else best.curve.to(home)
        return Harmonized(trace, best.candidate, best.values.to(home), curve, reason)

    def _score(self, image: Image, ready: _Ready, place: Place, setbacks: tuple[str, ...]) -> _Scored:
        settings = self._settings
        working = to_working(image.values, image.padding)
        field = find_field(working)
        layout = measure_layout(working.grey, field.working)
        alignment = estimate(layout, ready.bank.frame, settings.min_alignment_confidence)
        descriptor, detail = describe(working.grey, field.working)
        inside = field.full(image.height, image.width, image.values.device)
        if field.source is not FieldSource.EVERYTHING:
            inside &= ~image.padding
        source = Source(image, grey_codes(image, place), inside, field, descriptor, detail)
        threshold = _or_own(settings.distance_threshold, ready.bank.threshold)
        least = _or_own(settings.min_anatomy_agreement, ready.bank.least_agreement)
        anatomy = Figure("anatomy_agreement", agreement(layout.geometry, ready.bank.frame), least)
        references = similar_references(ready.bank, layout.geometry, settings.similar_references)
        before = distance(descriptor, ready.centre)
        return _Scored(place, setbacks, source, alignment, anatomy, references, before, threshold)

    def _try(self, method: str, scored: _Scored, ready: _Ready) -> _Tried:
        """Run one method, score its result in the same field as before, and verify it."""
        source = scored.source
        image, levels = source.image, source.image.levels
        harmonizer = HARMONIZERS[method]
        proposal = harmonizer.harmonize(source, Target(ready.centre, scored.references))
        if proposal.lut is not None:
            curve = grey_values(proposal.lut, levels)
            values = change(source.codes, proposal.lut, image.padding, scored.place)
            tone = tone_of_table(count_codes(source.codes, source.inside, levels, scored.place), proposal.lut)
        else:
            assert proposal.codes is not None
            curve = None
            values = in_strips(scored.place, lambda codes: grey_values(codes, levels), proposal.codes)
            values = keep_padding(values, source.codes, image.padding, levels)
            tone = tone_of_pixels(source.codes, proposal.codes, source.inside, levels)
        descriptor, _ = describe(to_working(values, image.padding).grey, source.field.working)
        figures = check_tone(tone, levels, self._settings)
        after = distance(descriptor, ready.centre)
        candidate = Candidate(method, harmonizer.version, after, figures, proposal.parameters)
        return _Tried(candidate, values, curve)

    def _trace(self, bank: Bank, scored: _Scored, tried: Sequence[_Tried], methods: tuple[str, ...]) -> Trace:
        versions = [(name, HARMONIZERS[name].version) for name in methods]
        return Trace(
            bank=bank.name,
            bank_digest=bank.digest,
            references=tuple(r.id for r in scored.references),
            alignment=scored.alignment,
            exposed_share=scored.source.field.share,
            distance_before=scored.distance,
            threshold=scored.threshold,
            candidates=tuple(one.candidate for one in tried),
            engine_version=ENGINE_VERSION,
            settings_digest=self._settings_digest,
            weights_digest=weights_digest({bank.name: bank.digest}, versions),
            place=str(scored.place),
            setbacks=scored.setbacks,
        )


def _or_own(setting: float | None, own: float) -> float:
    """What the settings say, or the bank's own value where they leave it to the bank."""
    return own if setting is None else setting


def _on(image: Image, device: torch.device) -> Image:
    """The image on the engine's device; the same object where it is there already."""
    if image.values.device.type == device.type:
        return image
    return Image(image.values.to(device), image.padding.to(device), image.levels, image.spacing_mm)

"""One instance from its pixels through the engine to its results; the only step that knows the engine.

The engine's words (tensors, outcomes) are translated to the node's records here, in both directions.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import assert_never

import numpy as np
import torch

import engine
from dicom_node import routing
from dicom_node.engine_image import engine_image
from dicom_node.errors import BadInput, EngineFault, Park, SettingsInvalid, SpoolDamaged, Stop, Unreadable
from dicom_node.header import content_digest, dataset_digest
from dicom_node.ledger import InstanceRow, Ledger, NewObject
from dicom_node.pixels import Codes, DisplayImage, encode_codes, pixels_digest, read_display
from dicom_node.records import Decision, Header, Made, Measured, Outcome, Tried
from dicom_node.results.objects import Harmonization, make_objects, with_words
from dicom_node.routing import Exam
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.steps import reached

log = logging.getLogger(__name__)


class Processor:
    """The engine with the node's banks and routes. Holds nothing of any image."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsInvalid when a bank is damaged, and Stop when the device is not there."""
        self._settings = settings
        try:
            banks = engine.default_banks() | _banks_in(settings.banks)
            self._engine = engine.Engine(engine.EngineSettings(device=settings.work.device), banks)
        except engine.InvalidBank as fault:
            raise SettingsInvalid(str(fault)) from fault
        except engine.EngineError as fault:
            raise Stop(f"work.device: {fault}") from fault
        self.exams: Mapping[str, Exam] = {
            name: Exam(bank.exam.modalities, bank.exam.body_part, bank.exam.views) for name, bank in banks.items()
        }
        self.device = str(self._engine.device)

    def process(self, row: InstanceRow, *, spool: Spool, ledger: Ledger, clock: Callable[[], float]) -> None:
        """Decide about one claimed instance, spool what was made, and record both. Raises what the loop handles."""
        reached("process.begun")
        path = spool.at(row.path)
        if row.header is None or row.digest is None or not path.exists():
            raise SpoolDamaged(f"{row.path}: the spooled file is gone")
        if dataset_digest(path) != row.digest:
            raise SpoolDamaged(f"{row.path}: its bytes have changed on the disk: send the object again, then retry")
        begun = time.perf_counter()
        decision, made = self.decide(path, row.header, calling_ae=row.calling_ae, source_digest=row.digest)
        reached("process.decided")
        writing = time.perf_counter()
        route = next((r for r in self._settings.routes if r.name == decision.route), None)
        names = route.destinations if route else ()
        objects = [
            NewObject(
                item.kind,
                item.sop_class_uid,
                item.sop_instance_uid,
                spool.write_result(item.sop_instance_uid, item.content, named=ledger.names),
                names,
                content_digest(item.content),
            )
            for item in made
        ]
        reached("process.spooled")
        ended = time.perf_counter()
        seconds = {**decision.seconds, "write": round(ended - writing, 4), "total": round(ended - begun, 4)}
        decision = dataclasses.replace(decision, seconds=seconds)
        ledger.instances.decide(row, decision, objects, now=clock())
        log.info("instance %d: %s", row.id, decision.outcome.value)

    def decide(
        self, path: Path, header: Header, *, calling_ae: str, source_digest: str
    ) -> tuple[Decision, tuple[Made, ...]]:
        """The outcome of one instance and the objects made from it. A function of the file and the settings alone,
        but for `Decision.seconds`.
        """
        chosen = routing.decide(header, calling_ae=calling_ae, settings=self._settings, banks=self.exams)
        exam = routing.describe(header)
        if isinstance(chosen, routing.PassBy):
            return self._passed(path, chosen, exam, source_digest), ()
        start = time.perf_counter()
        try:
            image = read_display(path)
            decided, ran_s = self._run(image, chosen)
        except (Unreadable, engine.InvalidImage) as fault:
            unread = self._decision(Outcome.UNREADABLE, str(fault), exam, chosen.route.name, source_digest)
            return unread, ()
        for setback in decided.trace.setbacks:
            log.warning("worked on %s, because of: %s", decided.trace.place, setback)
        decision = self._translated(decided, image, exam, chosen.route.name, source_digest)
        seconds = {"engine": ran_s, "decode": time.perf_counter() - start - ran_s}
        made: tuple[Made, ...] = ()
        if isinstance(decided, engine.Harmonized):
            codes = encode_codes(_numpy(decided.values), image.bits)
            decision = dataclasses.replace(decision, pixels_digest=pixels_digest(codes))
            began = time.perf_counter()
            curve = None if decided.curve is None else decided.curve.cpu().numpy()
            changed = Harmonization(source=path, header=header, image=image, codes=codes, curve=curve)
            decision, made = make_objects(changed, decision, chosen.route.objects, self._settings.site)
            if made:
                seconds["encode"] = time.perf_counter() - began
        return dataclasses.replace(decision, seconds={k: round(v, 4) for k, v in seconds.items()}), made

    def _passed(self, path: Path, chosen: routing.PassBy, exam: str, source_digest: str) -> Decision:
        """An image that a route takes but no bank fits is decoded all the same: damage is said as early as possible."""
        route = chosen.route.name if chosen.route else ""
        if chosen.route is not None:
            try:
                read_display(path)
            except Unreadable as fault:
                return self._decision(Outcome.UNREADABLE, str(fault), exam, route, source_digest)
        return self._decision(Outcome.PASSED, chosen.reason, exam, route, source_digest)

    def decide_picture(
        self, image: DisplayImage, bank: str, methods: tuple[str, ...], *, source_digest: str
    ) -> tuple[Decision, Codes | None]:
        """The outcome of an image that is no DICOM object, and its new grey codes where it was harmonized.

        Raises Unreadable, EngineFault, Park.
        """
        decided = self._guarded(image, bank, methods)
        decision = self._translated(decided, image, "", "", source_digest)
        if not isinstance(decided, engine.Harmonized):
            return decision, None
        codes = encode_codes(_numpy(decided.values), image.bits)
        decision = dataclasses.replace(decision, pixels_digest=pixels_digest(codes))
        return with_words(codes, image.bits, decision, self._settings.site.visible_label)

    def replay(self, image: DisplayImage, bank: str, bank_digest: str, method: str, version: int) -> Codes:
        """The grey codes that a method makes of an image, for methods that are no curves.

        Raises BadInput where bank, method or version are not those of here, Unreadable, EngineFault.
        """
        try:
            values = self._engine.replay(engine_image(image), bank, bank_digest, method, version)
        except (engine.InvalidBank, engine.InvalidReplay) as fault:
            raise BadInput(str(fault)) from fault
        except engine.DeviceFault as fault:
            raise EngineFault(str(fault)) from fault
        return encode_codes(_numpy(values), image.bits)

    def _run(self, image: DisplayImage, chosen: routing.Routed) -> tuple[engine.Decided, float]:
        start = time.perf_counter()
        decided = self._guarded(image, chosen.bank, chosen.route.methods)
        return decided, time.perf_counter() - start

    def _guarded(self, image: DisplayImage, bank: str, methods: tuple[str, ...]) -> engine.Decided:
        try:
            return self._engine.run([engine_image(image)], bank, methods)[0]
        except engine.InvalidImage as fault:
            raise Unreadable(str(fault)) from fault
        except engine.DeviceFault as fault:
            raise EngineFault(str(fault)) from fault
        except (engine.InvalidBank, engine.InvalidSettings) as fault:
            raise Park(str(fault)) from fault

    def _decision(self, outcome: Outcome, reason: str, exam: str, route: str, source_digest: str) -> Decision:
        return Decision(
            outcome=outcome,
            reason=reason,
            exam=exam,
            route=route,
            engine_version=engine.ENGINE_VERSION,
            settings_digest=self._settings.result_digest(),
            source_digest=source_digest,
        )

    def _translated(
        self, decided: engine.Decided, image: DisplayImage, exam: str, route: str, source_digest: str
    ) -> Decision:
        trace = decided.trace
        decision = dataclasses.replace(
            self._decision(Outcome.CONFORMING, decided.reason, exam, route, source_digest),
            bank=trace.bank,
            bank_digest=trace.bank_digest,
            references=trace.references,
            distance_before=trace.distance_before,
            threshold=trace.threshold,
            exposed_share=trace.exposed_share,
            alignment={f.name: str(getattr(trace.alignment, f.name)) for f in dataclasses.fields(trace.alignment)},
            tried=tuple(_tried(candidate) for candidate in trace.candidates),
            settings_digest=_combined(self._settings.result_digest(), trace.settings_digest),
            weights_digest=trace.weights_digest,
            notes=image.notes,
            software=software(),
            device=device_class(trace.place),
        )
        match decided:
            case engine.Conforming():
                return decision
            case engine.Harmonized(chosen=chosen):
                return dataclasses.replace(
                    decision,
                    outcome=Outcome.HARMONIZED,
                    display_digest=pixels_digest(encode_codes(image.values, image.bits)),
                    method=chosen.method,
                    distance_after=chosen.distance,
                    figures=_figures(chosen.figures),
                )
            case engine.Refused(deciding=deciding):
                figures = _figures((deciding,)) if deciding else ()
                return dataclasses.replace(decision, outcome=Outcome.REFUSED, figures=figures)
        assert_never(decided)


def _banks_in(folder: Path) -> dict[str, engine.Bank]:
    """The site's banks; one of the same name replaces an embedded one."""
    found = [engine.load_bank(path) for path in sorted(folder.glob("*.bank.json"))] if folder.is_dir() else []
    return {bank.name: bank for bank in found}


def _combined(*digests: str) -> str:
    """One digest over the node's settings and the engine's."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _tried(candidate: engine.Candidate) -> Tried:
    return Tried(
        method=candidate.method,
        distance=candidate.distance,
        verified=candidate.verified,
        figures=_figures(candidate.figures),
        version=candidate.version,
        parameters={name: _exact(value) for name, value in candidate.parameters.items()},
    )


def _exact(value: float | int | str | tuple[float, ...]) -> str:
    """Text that reads back to the same bits: Python's repr of a float is the shortest that does."""
    return " ".join(map(repr, value)) if isinstance(value, tuple) else value if isinstance(value, str) else repr(value)


def _figures(figures: tuple[engine.Figure, ...]) -> tuple[Measured, ...]:
    return tuple(Measured(f.name, f.value, f.limit, f.at_least, f.passed) for f in figures)


def _numpy(values: torch.Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    array: np.ndarray[tuple[int, int], np.dtype[np.float32]] = values[0].cpu().numpy()
    return array


TOLERANCE = engine.REPLAY_TOLERANCE
"""Root mean square difference in grey, of 1, up to which a replay elsewhere counts as the same change."""


def is_curve(method: str) -> bool:
    """Whether the parameters of this method alone say what it does."""
    return engine.is_curve(method)


def replay_curve(image: DisplayImage, method: str, version: int, parameters: Mapping[str, str]) -> Codes:
    """The grey codes that a curve makes of an image, on any machine; parameters as they are reported.

    Raises BadInput where the method is unknown here in this version or the parameters are not its own, Unreadable.
    """
    try:
        numbers = {name: float(value) for name, value in parameters.items()}
        values = engine.replay_curve(engine_image(image), method, version, numbers)
    except ValueError as fault:
        raise BadInput(f"a parameter of {method} in the report is no number") from fault
    except engine.InvalidReplay as fault:
        raise BadInput(str(fault)) from fault
    return encode_codes(_numpy(values), image.bits)


def software() -> str:
    """What numbers are computed with. Where it and the device class are the same, so are all bits."""
    return f"engine {engine.ENGINE_VERSION}, torch {torch.__version__}, numpy {np.__version__}"


def device_class(place: str) -> str:
    """The kind of device that `place`, an engine's word for where it computed, was on."""
    if place.startswith("cuda"):
        return f"cuda {torch.cuda.get_device_name()}"
    return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def compute_facts(settings: Settings) -> str:
    """What the engine would compute on, once a small sum on it came out right. Raises Stop where it does not."""
    try:
        device = engine.Engine(engine.EngineSettings(device=settings.work.device), {}).device
        right = float(torch.ones(1000, device=device).sum()) == 1000
    except (engine.EngineError, RuntimeError) as fault:
        raise Stop(f"work.device: {fault}") from fault
    if not right:
        raise Stop(f"work.device: {device} computes wrongly: check driver and hardware, or set cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return f"{device} ({name}), torch {torch.__version__}, engine {engine.ENGINE_VERSION}"

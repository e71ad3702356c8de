"""Every class of object from one image, by the node's own steps. Judges nothing.

The limits of the engine are lifted, so that every image whose pixels can be read is changed, whatever it shows: what
is validated are the objects, not the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import engine
from dicom_node.errors import Unreadable
from dicom_node.header import content_digest, dataset_digest, read_header
from dicom_node.process import Processor
from dicom_node.records import Made, Outcome, Reported
from dicom_node.report import select
from dicom_node.results.structured_report import make_report
from dicom_node.settings import Match, ResultObject, Route, Settings, Site

KINDS: tuple[str, ...] = get_args(ResultObject)
BANK = "chest_frontal"
ROUTE = Route(name="validated", match=Match(modality=()), bank=BANK, objects=KINDS)
SETTINGS = Settings(routes=(ROUTE,), site=Site(institution="Klinik", station="RAY1", timezone="+0100"))
LIMITLESS = engine.EngineSettings(
    device="cpu",
    distance_threshold=0.0,
    min_improvement=0.0,
    min_anatomy_agreement=-1.0,
    min_kept_codes_share=0.0,
    max_clipped_share=1.0,
    min_slope=0.0,
    max_slope=1e6,
    max_inverted_share=1.0,
    max_tone_residual=1.0,
)


@dataclass(frozen=True)
class Object:
    """One object made, with the name of the image it was made from."""

    image: str
    kind: str
    path: Path


@dataclass(frozen=True)
class FromImage:
    """What was made of one image; nothing, and why, where it can't be placed in a study."""

    image: str
    outcome: str
    objects: tuple[Object, ...] = ()
    why: str = ""


class Maker:
    """The node's steps without limits, writing into one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processor = Processor(SETTINGS)
        self._processor._engine = engine.Engine(LIMITLESS, engine.default_banks())

    def make(self, image: str, path: Path) -> FromImage:
        """Every object of one image. The selection is of those that need a look, so it is made as if this did."""
        try:
            header = read_header(path)
        except Unreadable as fault:
            return FromImage(image, "parked", why=str(fault))
        digest = dataset_digest(path)
        decision, made = self._processor.decide(path, header, calling_ae="", source_digest=digest)
        results = tuple((one.sop_class_uid, one.sop_instance_uid) for one in made)
        digests = {one.sop_instance_uid: content_digest(one.content) for one in made}
        one = Reported(source=path, header=header, decision=decision, results=results, digests=digests)
        flagged = replace(decision, outcome=Outcome.REFUSED, route=ROUTE.name, reason="for the sake of validation")
        (_,), selection = select([replace(one, decision=flagged)], SETTINGS)
        assert selection is not None
        report = make_report([one], SETTINGS.site)
        return FromImage(image, decision.outcome, self._written(image, (*made, selection.made, report)))

    def _written(self, image: str, made: Sequence[Made]) -> tuple[Object, ...]:
        out = []
        for one in made:
            path = self._folder / image / f"{one.kind}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(one.content)
            out.append(Object(image, str(one.kind), path))
        return tuple(out)

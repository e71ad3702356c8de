"""Make what a route asks for of one harmonized image. Knows no class of object beyond its maker."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicom_node.display import Codes, DisplayImage, pixels_digest
from dicom_node.records import Decision, Header, Made, ResultKind
from dicom_node.results import label
from dicom_node.results.derived_image import make_derived_image
from dicom_node.results.presentation_state import make_presentation_state
from dicom_node.results.secondary_capture import make_secondary_capture
from dicom_node.settings import Site

WITH_PIXELS = frozenset({ResultKind.SECONDARY_CAPTURE, ResultKind.DERIVED_IMAGE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Harmonization:
    """One original and what became of it.

    image: as read from `source`; codes: (H, W) its harmonized grey codes; curve: (levels,) float32 in [0, 1], what each
    of its grey codes became, None where the change is no curve.
    """

    source: Path
    header: Header
    image: DisplayImage
    codes: Codes
    curve: NDArray[np.float32] | None


def make_objects(
    of: Harmonization, decision: Decision, wanted: Collection[str], site: Site
) -> tuple[Decision, tuple[Made, ...]]:
    """The objects of the kinds `wanted`, and the decision with what is to be said of them.

    The same inputs give the same bytes. Raises Unreadable where the original can't be read any more.
    """
    made: list[Made | None] = []
    notes: tuple[str, ...] = ()
    drawn, sent = with_words(of.codes, of.image.bits, decision, site.visible_label)
    if WITH_PIXELS & set(wanted) and drawn.label != site.visible_label:
        # A site that wants the words in every changed image must get none without them.
        notes = (drawn.notes[-1], "no image was made: site.visible_label asks for words in it")
    elif WITH_PIXELS & set(wanted):
        pixels = (of.source, sent, of.image.bits, drawn, of.header, site)
        if ResultKind.SECONDARY_CAPTURE in wanted:
            made.append(make_secondary_capture(*pixels))
        if ResultKind.DERIVED_IMAGE in wanted:
            derived, notes = make_derived_image(*pixels)
            made.append(derived)
        # Where no image could be made, nothing is said of pixels sent or of words in them.
        decision = drawn if any(made) else decision
    if ResultKind.PRESENTATION_STATE in wanted:
        state, more = make_presentation_state(of.source, of.image, of.curve, decision, of.header, site)
        made.append(state)
        notes = (*notes, *more)
    decision = replace(decision, notes=tuple(dict.fromkeys((*decision.notes, *notes))))
    return decision, tuple(one for one in made if one is not None)


def with_words(codes: Codes, bits: int, decision: Decision, words: str) -> tuple[Decision, Codes]:
    """The codes to send, with a site's words drawn in where there are any, and the decision that says so."""
    if not words:
        return replace(decision, sent_digest=decision.pixels_digest), codes
    sent = label.drawn(codes, bits, words)
    if sent is None:
        rows, columns = codes.shape
        notes = (*decision.notes, f"the visible label does not fit in {columns}x{rows} pixels and was not drawn")
        return replace(decision, sent_digest=decision.pixels_digest, notes=notes), codes
    return replace(decision, label=words, sent_digest=pixels_digest(sent)), sent

"""Build the presentation state that shows an original as its harmonized pixels. Makes no pixels and stores nothing.

Source: PS3.3 A.33.1 (Grayscale Softcopy Presentation State), C.11.8 (Softcopy VOI LUT), C.11.6 (Softcopy Presentation
LUT), PS3.4 N.2 (its transformations replace the image's own, Photometric Interpretation included).

The whole chain from stored value to harmonized grey is one VOI LUT with an entry for every value that can be stored,
16 bits each, so nothing is rounded. The original's rescale goes before it where that keeps whole numbers apart, for
the sake of viewers that apply it whatever the state says; else the state says that there is none. MONOCHROME1 is
answered by the shape INVERSE and entries that it inverts: a viewer that inverts because of either comes out right.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_node.display import DisplayImage, WordTable, encode_codes
from dicom_node.greyscale import is_for_processing
from dicom_node.records import Decision, Header, Made, ResultKind
from dicom_node.results import anatomy, changed_image, copying, identity, overlays
from dicom_node.results.copying import Copier
from dicom_node.results.encoding import part10
from dicom_node.settings import Site
from dicom_node.tolerant import items, number, quiet, read, text, values

SERIES_NUMBER = 9103
LABEL = "HARMONIZED"
ENTRY_BITS = 16
MOST_ENTRIES = 1 << 16
LOWEST, HIGHEST = -(1 << 15), (1 << 16) - 1
"""What the first value mapped can be, written as signed or as unsigned."""
OVERLAY_LAYER, WORDS_LAYER = "OVERLAYS", "WORDS"


class _Rescale(NamedTuple):
    """Modality LUT of the state: value = slope * stored + intercept."""

    slope: float
    intercept: float
    kind: str


_NONE = _Rescale(1.0, 0.0, "US")


def make_presentation_state(
    source: Path, image: DisplayImage, curve: NDArray[np.float32] | None, decision: Decision, header: Header, site: Site
) -> tuple[Made | None, tuple[str, ...]]:
    """The state that shows `source` as harmonized, and notes on what was repaired or stood in the way.

    image: as read from `source`; curve: (levels,) float32 in [0, 1], what each of its grey codes becomes, None where
    the change is no curve. The same inputs give the same bytes. None where no state can show the change. Raises
    Unreadable where the original can't be read.
    """
    if curve is None or image.words is None:
        return None, (f"no presentation state: {decision.method} is no curve of the grey values",)
    if not header.series_instance_uid:
        return None, ("no presentation state: the original states no series, so that none can refer to it",)
    original, _ = read(source)
    state = Dataset()
    with quiet():
        copier = copying.patient_and_study(original, state)
        _put_series(state, original, header, decision, site, copier)
        _put_reference(state, header)
        _put_area(state, header, copier)
        _put_grey_scale(state, original, image, image.words, curve)
        _put_layers(state, original, header, site)
        recoded = copying.choose_charset(original, state)
        content = part10(state)
    if recoded:
        copier.note(recoded)
    made = Made(
        kind=ResultKind.PRESENTATION_STATE,
        sop_class_uid=str(state.SOPClassUID),
        sop_instance_uid=str(state.SOPInstanceUID),
        content=content,
    )
    return made, copier.notes


def _put_series(
    state: Dataset, original: Dataset, header: Header, decision: Decision, site: Site, copier: Copier
) -> None:
    """SOP Common, Presentation Series, General Equipment, Presentation State Identification."""
    made_by = identity.equipment([decision])
    sop_class = uid.GrayscaleSoftcopyPresentationStateStorage
    instance = identity.result_uid(ResultKind.PRESENTATION_STATE, header, decision)
    state.SOPClassUID, state.SOPInstanceUID = sop_class, instance
    state.SeriesInstanceUID = identity.result_series_uid(sop_class, instance, header, decision)
    state.Modality, state.SeriesNumber, state.InstanceNumber = "PR", SERIES_NUMBER, 1
    copier.copy(state, ("BodyPartExamined",))
    side = anatomy.side(original)
    # Source: PS3.3 C.7.3.1 (2C): absent where there is only one of the part, empty where the side is not known.
    if text(state, "BodyPartExamined") not in anatomy.UNPAIRED:
        state.Laterality = side if side in ("R", "L") else None
    changed_image.put_derivation(state, original, header, decision)
    for keyword in ("ImageType", "DerivationDescription", "DerivationCodeSequence", "SourceImageSequence"):
        delattr(state, keyword)
    changed_image.put_equipment(state, site, made_by)
    state.ContributingEquipmentSequence = changed_image.contributions(original, site, made_by)
    state.CodingSchemeIdentificationSequence = identity.coding_schemes()
    state.ContentLabel = LABEL
    state.ContentDescription = changed_image.derivation(decision)[:64]
    state.ContentCreatorName = None
    moment = copying.moment(original) or copying.NO_MOMENT
    state.PresentationCreationDate, state.PresentationCreationTime = moment


def _referenced(header: Header) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.sop_class_uid, header.sop_instance_uid
    return item


def _put_reference(state: Dataset, header: Header) -> None:
    """Source: PS3.3 C.11.11."""
    series = Dataset()
    series.SeriesInstanceUID = header.series_instance_uid
    series.ReferencedImageSequence = [_referenced(header)]
    state.ReferencedSeriesSequence = [series]


def _put_area(state: Dataset, header: Header, copier: Copier) -> None:
    """All of the image, as large as the viewer likes, and its shutter. Source: PS3.3 C.10.4, C.7.6.11."""
    area, spaced = Dataset(), Dataset()
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [header.columns, header.rows]
    area.PresentationSizeMode = "SCALE TO FIT"
    copier.copy_positive(spaced, ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"))
    spacing = spaced.get("PixelSpacing") or spaced.get("ImagerPixelSpacing")
    if spacing:
        area.PresentationPixelSpacing = spacing
    else:
        area.PresentationPixelAspectRatio = spaced.get("PixelAspectRatio") or [1, 1]
    state.DisplayedAreaSelectionSequence = [area]
    copier.copy(state, changed_image.SHUTTER)
    changed_image.settle_shutter(state, copier)
    if "ShutterShape" in state:
        state.ShutterPresentationValue = 0


def _put_grey_scale(
    state: Dataset, original: Dataset, image: DisplayImage, words: WordTable, curve: NDArray[np.float32]
) -> None:
    """Modality LUT, Softcopy VOI LUT, Softcopy Presentation LUT."""
    greys = np.where(words.padding, np.float32(0), curve[encode_codes(words.values, image.bits)])
    entries = np.rint(greys.astype(np.float64) * (2**ENTRY_BITS - 1)).astype(np.int64)
    inverse = text(original, "PhotometricInterpretation").upper() == "MONOCHROME1"
    if inverse:
        entries = 2**ENTRY_BITS - 1 - entries
    state.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    stored = _stored(words)
    rescale = _rescale(original)
    found = _by_value(stored * np.float64(rescale.slope) + rescale.intercept, entries)
    if found is None:
        rescale, found = _NONE, _by_value(stored, entries)
    assert found is not None  # stored values are whole, different, and fit in 16 bits
    first, table = found
    state.RescaleIntercept, state.RescaleSlope, state.RescaleType = rescale.intercept, rescale.slope, rescale.kind
    softcopy = Dataset()
    softcopy.VOILUTSequence = [_lut_item(first, table)]
    state.SoftcopyVOILUTSequence = [softcopy]


def _stored(words: WordTable) -> NDArray[np.float64]:
    count = len(words.values)
    stored = np.arange(count, dtype=np.float64)
    return np.where(stored >= count // 2, stored - count, stored) if words.signed else stored


def _rescale(original: Dataset) -> _Rescale:
    """The original's own, where it is one and was applied to the values."""
    slope, intercept = number(original, "RescaleSlope"), number(original, "RescaleIntercept")
    if is_for_processing(original) or items(original, "ModalityLUTSequence") or not slope:
        return _NONE
    checked = {key: copying.repaired(key, value) for key in ("RescaleType",) for value in values(original, key)[:1]}
    return _Rescale(slope, intercept or 0.0, checked.get("RescaleType") or "US")


def _by_value(at: NDArray[np.float64], entries: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]] | None:
    """First value and one entry for each whole number from it on; None where the values have no such table.

    Between values that can occur the table goes straight, for viewers that enlarge before they look up.
    """
    order = np.argsort(at, kind="stable")
    at, entries = at[order], entries[order]
    low, high = float(at[0]), float(at[-1])
    fits = low >= LOWEST and high <= (HIGHEST if low >= 0 else -LOWEST - 1) and high - low < MOST_ENTRIES
    if not fits or (at != np.rint(at)).any():
        return None
    first = int(low)
    wanted = np.arange(first, int(high) + 1)
    return first, np.rint(np.interp(wanted, at, entries)).astype(np.int64)


def _lut_item(first: int, table: NDArray[np.int64]) -> Dataset:
    """Source: PS3.3 C.11.2.1.1 (65536 entries are written as 0), PS3.5 6.2 (OW, as US ends at 32767 entries)."""
    item = Dataset()
    count = len(table) % MOST_ENTRIES
    signed = first < 0
    descriptor = [count - MOST_ENTRIES if signed and count > -LOWEST - 1 else count, first, ENTRY_BITS]
    item.add(DataElement(Tag("LUTDescriptor"), "SS" if signed else "US", descriptor))
    item.LUTExplanation = "Display and harmonization in one"
    item.add(DataElement(Tag("LUTData"), "OW", table.astype("<u2").tobytes()))
    return item


def _put_layers(state: Dataset, original: Dataset, header: Header, site: Site) -> None:
    """What lies over the pixels: the original's overlays, which a state hides unless it activates them, and the site's
    words. Source: PS3.3 C.11.7 (Overlay Activation), C.10.5 (Graphic Annotation), C.10.7 (Graphic Layer)."""
    layers = []
    active = list(overlays.groups(original))
    for group in active:
        state.add(DataElement(Tag(group, 0x1001), "CS", OVERLAY_LAYER))
    if active:
        layers.append(OVERLAY_LAYER)
    if site.visible_label:
        state.GraphicAnnotationSequence = [_words(site.visible_label, header)]
        layers.append(WORDS_LAYER)
    if layers:
        state.GraphicLayerSequence = [_layer(name, order) for order, name in enumerate(layers, start=1)]


def _layer(name: str, order: int) -> Dataset:
    layer = Dataset()
    layer.GraphicLayer, layer.GraphicLayerOrder = name, order
    return layer


def _words(words: str, header: Header) -> Dataset:
    """The words in the top left corner of the display area, whatever part of the image is there."""
    said = Dataset()
    said.BoundingBoxAnnotationUnits = "DISPLAY"
    said.UnformattedTextValue = words
    said.BoundingBoxTopLeftHandCorner, said.BoundingBoxBottomRightHandCorner = [0.01, 0.01], [0.6, 0.06]
    said.BoundingBoxTextHorizontalJustification = "LEFT"
    annotation = Dataset()
    annotation.ReferencedImageSequence = [_referenced(header)]
    annotation.GraphicLayer = WORDS_LAYER
    annotation.TextObjectSequence = [said]
    return annotation

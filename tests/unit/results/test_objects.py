"""What a route asks for of one image is made, and the decision says what was sent."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.display import encode_codes, pixels_digest
from dicom_node.header import read_header
from dicom_node.pixels import read_display
from dicom_node.records import Decision, Made
from dicom_node.results import label
from dicom_node.results.objects import Harmonization, make_objects
from dicom_node.settings import Site
from tests import dicom_files
from tests.unit.results.builders import SITE, decision

EVERY = ("secondary_capture", "derived_image", "presentation_state", "structured_report", "key_object_selection")
WORDS = "NOT ORIGINAL"
LABELLED = SITE.model_copy(update={"visible_label": WORDS})


def make(
    folder: Path, wanted: tuple[str, ...], site: Site = SITE, side: int = 200, kind: str = "CR"
) -> tuple[Harmonization, Decision, tuple[Made, ...]]:
    file = dicom_files.write(folder / "a.dcm", dicom_files.dataset(kind, dicom_files.ramp(side, side)))
    image = read_display(file)
    curve = np.sqrt(np.arange(4096) / 4095).astype(np.float32)
    codes = encode_codes(curve[encode_codes(image.values, 12)], 12)
    of = Harmonization(source=file, header=read_header(file), image=image, codes=codes, curve=curve)
    decided, made = make_objects(of, decision(file, pixels_digest=pixels_digest(codes)), wanted, site)
    return of, decided, made


@pytest.mark.parametrize("wanted", [(), *((one,) for one in EVERY), EVERY, EVERY[::-1]])
def test_what_is_wanted_of_an_image_is_made_and_nothing_else(tmp_path: Path, wanted: tuple[str, ...]) -> None:
    _, _, made = make(tmp_path, wanted)
    assert [one.kind.value for one in made] == [one for one in EVERY[:3] if one in wanted]
    assert len({one.sop_instance_uid for one in made}) == len(made)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    assert make(tmp_path, EVERY, LABELLED)[1:] == make(tmp_path, EVERY, LABELLED)[1:]


def test_without_words_what_is_sent_is_what_the_engine_gave(tmp_path: Path) -> None:
    of, decided, made = make(tmp_path, EVERY)
    assert (decided.label, decided.sent_digest) == ("", decided.pixels_digest)
    for one in made[:2]:
        image = dcmread(BytesIO(one.content))
        assert pixels_digest(image.pixel_array) == decided.sent_digest
        assert np.array_equal(image.pixel_array, of.codes)


def test_words_are_in_every_image_that_is_sent_and_in_its_digest(tmp_path: Path) -> None:
    of, decided, made = make(tmp_path, EVERY, LABELLED)
    expected = label.drawn(of.codes, 12, WORDS)
    assert expected is not None
    assert decided.label == WORDS
    assert decided.pixels_digest == pixels_digest(of.codes) != decided.sent_digest == pixels_digest(expected)
    for one in made[:2]:
        image = dcmread(BytesIO(one.content))
        assert np.array_equal(image.pixel_array, expected)
        assert image.BurnedInAnnotation == "YES"


def test_a_burned_in_text_of_ours_is_said_though_the_original_has_none(tmp_path: Path) -> None:
    file = dicom_files.write(
        tmp_path / "a.dcm", dicom_files.dataset("CR", dicom_files.ramp(200, 200), BurnedInAnnotation="NO")
    )
    image, header = read_display(file), read_header(file)
    codes = encode_codes(image.values, 12)
    of = Harmonization(source=file, header=header, image=image, codes=codes, curve=None)
    for site, stated in ((SITE, "NO"), (LABELLED, "YES")):
        _, made = make_objects(of, decision(file), EVERY[:2], site)
        assert [dcmread(BytesIO(one.content)).BurnedInAnnotation for one in made] == [stated, stated]


def test_an_image_that_can_not_bear_the_words_is_not_made(tmp_path: Path) -> None:
    _, decided, made = make(tmp_path, EVERY, LABELLED, side=20)
    assert (decided.label, decided.sent_digest) == ("", "")
    assert "the visible label does not fit in 20x20 pixels and was not drawn" in decided.notes
    assert "no image was made: site.visible_label asks for words in it" in decided.notes
    assert [one.kind.value for one in made] == ["presentation_state"]


def test_nothing_is_said_to_be_sent_where_no_image_is(tmp_path: Path) -> None:
    _, decided, _ = make(tmp_path, ("presentation_state",), LABELLED)
    assert (decided.label, decided.sent_digest) == ("", "")


def test_why_there_is_no_derived_image_is_in_the_decision(tmp_path: Path) -> None:
    _, decided, made = make(tmp_path, EVERY, kind="SC")
    assert [one.kind.value for one in made] == ["secondary_capture", "presentation_state"]
    assert any(note.startswith("no derived image: ") for note in decided.notes)


def test_nothing_is_said_to_be_sent_where_the_only_image_can_not_be_made(tmp_path: Path) -> None:
    _, decided, made = make(tmp_path, ("derived_image",), LABELLED, kind="SC")
    assert made == ()
    assert (decided.label, decided.sent_digest) == ("", "")

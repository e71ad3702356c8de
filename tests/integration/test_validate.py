"""The validators of others before every class of object from every odd image, and proof that they can say no."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests import dicom_files, made
from tests.made.table import PARKED
from tests.peers import require
from tests.validate import report
from tests.validate.accepted import ACCEPTED, FAULTS, reason_for
from tests.validate.objects import KINDS, FromImage, Maker
from tests.validate.run import Table, real_images, validate
from tests.validate.validators import OF_ONE, PROGRAMS, Level, Remark, dcentvfy, dciodvfy, dcmpschk, dsrdump, pixelmed

# Our own warnings about invalid values are what many of the images are about.
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[FromImage]:
    """Every class of object from every odd image, and from a real one of each vendor, class and transfer syntax."""
    folder = tmp_path_factory.mktemp("validated")
    maker = Maker(folder / "objects")
    real = real_images(dicom_files.DATA, short=True) if dicom_files.DATA.is_dir() else {}
    return [maker.make(name, path) for name, path in {**made.write(folder / "images"), **real}.items()]


@pytest.fixture(scope="module")
def table(results: list[FromImage]) -> Table:
    require(*PROGRAMS)
    return validate(results, every_shape=False)


def test_every_class_of_object_that_a_route_can_ask_for_was_made(results: list[FromImage]) -> None:
    counts = {kind: sum(thing.kind == kind for one in results for thing in one.objects) for kind in KINDS}
    assert min(counts.values()) > 100, counts
    parked = {one.image for one in results if not one.objects}
    assert parked == {one.name for one in made.EVERY if one.outcome == PARKED}


def test_the_validators_find_no_error_and_no_warning_without_a_reason(results: list[FromImage], table: Table) -> None:
    assert report.met(results, table), "\n".join(report.lines(results, table))


def test_each_validator_looked_at_each_class_that_it_knows(table: Table) -> None:
    assert {name for _, name in table} == set(PROGRAMS)
    assert all(cell.files for cell in table.values())


def test_every_accepted_remark_has_a_reason_and_happens(table: Table) -> None:
    if not dicom_files.DATA.is_dir():
        pytest.skip(f"no X-rays in {dicom_files.DATA}, of which some remarks are")
    happened = {(name, reason) for (_, name), cell in table.items() for reason in cell.accepted}
    listed = {(one.validator, one.reason) for one in (*ACCEPTED, *FAULTS)}
    assert all(reason for _, reason in listed)
    assert listed == happened, "what is accepted and never said hides what will be said one day"


def one_of(results: list[FromImage], kind: str) -> Path:
    return next(thing.path for one in results for thing in one.objects if thing.kind == kind and one.image == "zone")


def broken(path: Path, target: Path, change: Callable[[Dataset], object]) -> Path:
    ds = dcmread(path)
    change(ds)
    ds.save_as(target)
    return target


def _drop(*keywords: str) -> Callable[[Dataset], object]:
    return lambda ds: [delattr(ds, keyword) for keyword in keywords]


def _mistitle(ds: Dataset) -> None:
    ds.ConceptNameCodeSequence[0].CodeValue = "999999"


def _misvalue(ds: Dataset) -> None:
    ds.ContentSequence[0].ValueType = "NONSENSE"


BREAKS: tuple[tuple[str, str, Callable[[Dataset], object]], ...] = (
    ("dciodvfy", "secondary_capture", _drop("ConversionType")),
    ("dciodvfy", "derived_image", _drop("PresentationIntentType")),
    ("dciodvfy", "presentation_state", _drop("PresentationLUTShape")),
    ("dciodvfy", "structured_report", _drop("CompletionFlag")),
    ("dciodvfy", "key_object_selection", _drop("InstanceNumber")),
    ("dcmpschk", "presentation_state", _drop("DisplayedAreaSelectionSequence")),
    ("dsrdump", "structured_report", _misvalue),
    ("dsrdump", "key_object_selection", _misvalue),
    ("DicomSRValidator", "structured_report", _mistitle),
)


@pytest.mark.parametrize(("validator", "kind", "change"), BREAKS, ids=lambda one: one if isinstance(one, str) else "")
def test_a_validator_says_no_to_a_broken_object(
    results: list[FromImage], tmp_path: Path, validator: str, kind: str, change: Callable[[Dataset], object]
) -> None:
    require(validator)
    path = broken(one_of(results, kind), tmp_path / "broken.dcm", change)
    told = OF_ONE[validator](path)
    assert [one.text for one in told if not reason_for(validator, "zone", one)]


def test_dcentvfy_says_no_to_two_patients_in_one_study(results: list[FromImage], tmp_path: Path) -> None:
    require("dcentvfy")
    paths = [one_of(results, kind) for kind in ("secondary_capture", "derived_image")]

    def rename(ds: Dataset) -> None:
        ds.PatientName = "Roe^Richard"

    told = dcentvfy(paths[0], broken(paths[1], tmp_path / "other.dcm", rename))
    assert any("PatientName" in one.text for one in told if not reason_for("dcentvfy", "zone", one))


@pytest.mark.parametrize("look", [dciodvfy, dcmpschk, dsrdump, dcentvfy])
@pytest.mark.parametrize("content", [b"", b"no DICOM object at all, but some bytes"], ids=["empty", "text"])
def test_silence_about_what_is_no_object_is_no_approval(
    tmp_path: Path, look: Callable[[Path], list[Remark]], content: bytes
) -> None:
    require(*PROGRAMS)
    file = tmp_path / "no-object"
    file.write_bytes(content)
    assert [one for one in look(file) if not reason_for(look.__name__, "", one)]
    assert [one for one in look(tmp_path / "no-file") if not reason_for(look.__name__, "", one)]


def test_pixelmeds_silence_is_no_approval_either(tmp_path: Path) -> None:
    require("DicomSRValidator")
    assert any("did not come to its end" in one.text for one in pixelmed(tmp_path / "no-file"))


def test_an_error_is_never_accepted_for_every_image() -> None:
    for one in ACCEPTED:
        assert not reason_for(one.validator, "any", Remark(Level.ERROR, one.pattern.replace("\\", "")))
    assert all(one.image for one in FAULTS)

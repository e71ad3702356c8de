"""The public X-rays, whole and damaged, from DCMTK through the node to a real Orthanc with storage commitment."""

from __future__ import annotations

import io
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID, generate_uid

from dicom_node.pictures import write_png
from dicom_node.pixels import read_display
from dicom_node.results.report_text import parse_report
from tests.dicom_files import DATA
from tests.node import Node, data_set, node, radiograph
from tests.peers import ENVIRONMENT, LOOPBACK, Orthanc, free_port, orthanc, require, storescu

pytestmark = [pytest.mark.peers, pytest.mark.data]

# DCMTK's storescu proposes compressed syntaxes only when told which one.
PROPOSE = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
WHOLE = (
    "wg04/RG2_UNC.dcm",
    "wg04/RG2_J2KR.dcm",
    "wg04/RG2_JLSL.dcm",
    "wg04/RG2_JPLL.dcm",
    "wg04/RG2_RLE.dcm",
    "wg04/RG1_JLSN.dcm",
    "wg04/RG1_J2KI.dcm",
    "pylib/RG2_JPLY_fixed.dcm",
    "pylib/KODAK_CR500_hand_J2KR.dcm",
    "nih_dcm/NIH_00000001_000.dcm",
    "rsna/RSNA_012a5620.dcm",
    "fodicom/GE_Senographe_Essential_MLO.dcm",
)
"""One or more of every transfer syntax in the public set, and every body part."""
UNDECODABLE = ("wg04/RG2_JPLY.dcm", "wg04/MG1_JPLY.dcm")
"""12-bit JPEG, process 4, with tables that no decoder takes; see the data's index."""
CUT = ("wg04/RG2_UNC.dcm", "wg04/RG2_JLSL.dcm", "rsna/RSNA_012a5620.dcm")
SHARE = 0.6
INVALID = "1.2.826.0.1.3680043.10.1.80"


@dataclass
class Sent:
    """One file that was sent and where it came from."""

    path: Path
    uid: str
    study: str
    origin: str


@dataclass
class Story:
    """The node and Orthanc after everything has come to rest."""

    node: Node
    pacs: Orthanc
    whole: list[Sent]
    unreadable: list[Sent]
    torn: Sent
    invalid: Sent
    folder: Path

    @property
    def sent(self) -> list[Sent]:
        return [*self.whole, *self.unreadable, self.torn, self.invalid]

    def held(self, uid: str) -> Path:
        """An object as Orthanc gives it back."""
        path = self.folder / f"{uid}.dcm"
        if not path.exists():
            path.write_bytes(self.pacs.file(uid))
        return path

    def reported(self) -> dict[str, dict[str, object]]:
        """Every row of every report in Orthanc, by source."""
        uids = self.node.results("structured_report")
        rows = [row for uid in uids for row in parse_report(self.held(uid))]
        assert len({row["source_instance"] for row in rows}) == len(rows)
        return {row["source_instance"]: row for row in rows}


def _fresh(folder: Path, names: tuple[str, ...], seen: set[str], mark: str) -> list[Sent]:
    """Copies, each with a SOP Instance UID of its own; where it has one already, the very bytes."""
    found = []
    for name in names:
        path = folder / f"{mark}-{Path(name).name}"
        ds = dcmread(DATA / name, force=True)
        if str(ds.SOPInstanceUID) in seen:
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[mark, name])
            ds.save_as(path)
        else:
            path.write_bytes((DATA / name).read_bytes())
        seen.add(str(ds.SOPInstanceUID))
        found.append(Sent(path, str(ds.SOPInstanceUID), str(ds.StudyInstanceUID), name))
    return found


def _cut(sent: Sent) -> Sent:
    """Pixel data cut inside: the data set around it stays whole, so that any sender takes it."""
    ds = dcmread(sent.path)
    if ds.file_meta.TransferSyntaxUID.is_encapsulated:
        frame = get_frame(ds.PixelData, 0, number_of_frames=1)
        ds.PixelData = encapsulate([frame[: int(len(frame) * SHARE)]])
    else:
        ds.PixelData = ds.PixelData[: int(len(ds.PixelData) * SHARE) // 2 * 2]
    ds.save_as(sent.path)
    return sent


def _torn(folder: Path, seen: set[str]) -> Sent:
    """A file of which the end is missing, as an interrupted copy leaves it."""
    (sent,) = _fresh(folder, (CUT[0],), seen, "torn")
    sent.path.write_bytes(sent.path.read_bytes()[: int(sent.path.stat().st_size * SHARE)])
    return sent


def _invalid(folder: Path) -> Sent:
    """A radiograph with values that no VR allows, an odd group below 0009 and empty attributes of type 2."""
    path = radiograph(
        folder,
        f"{INVALID}.1",
        study=INVALID,
        PatientAge="60",
        PatientSex="W",
        PatientBirthDate="",
        StudyTime="",
        AccessionNumber="",
        StudyDate="2024.02.03",
    )
    ds = dcmread(path)
    ds.add_new(0x00050010, "LO", "VENDOR")
    ds.add_new(0x00051001, "LO", "what an old vendor left")
    ds.save_as(path)
    return Sent(path, f"{INVALID}.1", INVALID, "invalid values")


def _banks(made: Node, folder: Path) -> None:
    """A bank for each body part, of the same images as another vendor would show them, so that they get changed."""
    pictures = folder / "preferred"
    pictures.mkdir()
    for name, body_part, modality, origins in (
        ("hip", "HIP", "CR", ("wg04/RG2_UNC.dcm",)),
        ("hand", "HAND", "CR", ("pylib/KODAK_CR500_hand_J2KR.dcm",)),
        ("breast", "BREAST", "MG", ("fodicom/GE_Senographe_Essential_MLO.dcm",)),
    ):
        files = []
        for origin in origins:
            shown = read_display(DATA / origin).values[::2, ::2]
            for gamma in (0.5, 0.55, 0.6):
                files.append(pictures / f"{name}-{gamma}.png")
                write_png(files[-1], shown**gamma)
        exam = ("--modality", modality, "--body-part", body_part)
        done = made.cli("references", "add", name, *map(str, files), *exam, "--provenance", "test")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    require("Orthanc", "storescu", "dciodvfy")
    if not DATA.exists():
        pytest.skip(f"no public X-rays at {DATA}")
    folder, port = tmp_path_factory.mktemp("pacs"), free_port()
    seen: set[str] = set()
    whole = _fresh(folder, WHOLE, seen, "whole")
    unreadable = [*_fresh(folder, UNDECODABLE, seen, "undecodable"), *map(_cut, _fresh(folder, CUT, seen, "cut"))]
    torn, invalid = _torn(folder, seen), _invalid(folder)
    with orthanc(folder, node=("EVENRAY", LOOPBACK, port)) as pacs:
        where = {"kind": "dimse", "ae_title": "ORTHANC", "host": LOOPBACK, "port": pacs.port, "commitment": True}
        # Orthanc never answers an object of which the end is missing: not tried for an hour here, as it would be.
        where["dimse_timeout_s"] = 15
        sections = {
            "assembly": {"quiet_s": 12, "quiet_after_release_s": 12},
            "deliver": {"retry": {"attempts": 2, "first_s": 0.5}},
        }
        with node(folder, {"pacs": where}, port=port, start=False, **sections) as made:
            _banks(made, folder)
            made.start()
            groups = defaultdict(list)
            for sent in [*whole, *unreadable, invalid]:
                groups[str(dcmread(sent.path, stop_before_pixels=True).file_meta.TransferSyntaxUID)].append(sent.path)
            assert groups.keys() == PROPOSE.keys()
            for syntax, paths in groups.items():
                done = storescu(paths, "EVENRAY", LOOPBACK, port, "-R", PROPOSE[syntax], timeout_s=120)
                assert done.returncode == 0, f"{UID(syntax).name}: {done.stdout}{done.stderr}"
            made.accept(torn.path)
            made.wait_settled(400)
            out = folder / "back"
            out.mkdir()
            yield Story(made, pacs, whole, unreadable, torn, invalid, out)


def test_orthanc_holds_the_originals_the_changed_images_and_one_report_a_study_and_nothing_else(story: Story) -> None:
    outcomes = story.node.outcomes()
    harmonized = [uid for uid, outcome in outcomes.items() if outcome == "harmonized"]
    captures = story.node.results("secondary_capture")
    assert len(harmonized) >= 6, Counter(outcomes.values())
    assert len(captures) == len(harmonized)
    reports = story.node.results("structured_report")
    assert len(reports) == len({sent.study for sent in story.sent})
    # Whether an archive takes the torn file is its own affair; see the test of it.
    originals = {sent.uid for sent in story.sent} - {story.torn.uid}
    assert set(story.pacs.uids()) - {story.torn.uid} == {*originals, *captures, *reports}


def test_every_delivery_is_committed_by_orthanc_and_originals_arrive_byte_for_byte(story: Story) -> None:
    query = "SELECT d.state, d.note, o.sop_instance_uid AS uid FROM delivery d JOIN object o ON o.id = d.object"
    for row in story.node.rows(query):
        if row["uid"] != story.torn.uid:
            assert (row["state"], row["note"]) == ("delivered", "storage commitment")
    # Compared with what was received: DCMTK's sender writes a data set anew, without the padding of some, for one.
    query = "SELECT path, sop_instance_uid AS uid FROM instance"
    received = {row["uid"]: story.node.spool / row["path"] for row in story.node.rows(query)}
    for sent in [*story.whole, *story.unreadable, story.invalid]:
        # Orthanc itself drops elements of the groups that PS3.5 7.8 forbids; it is told nothing else than we were.
        if data_set(received[sent.uid])[:2] != b"\x05\x00":
            assert data_set(story.held(sent.uid)) == data_set(received[sent.uid]), sent.origin
        assert dcmread(story.held(sent.uid)).PixelData == dcmread(received[sent.uid]).PixelData, sent.origin


def test_the_torn_file_is_delivered_or_set_aside_where_a_person_sees_it(story: Story) -> None:
    query = "SELECT d.id, d.state FROM delivery d JOIN object o ON o.id = d.object WHERE o.sop_instance_uid = ?"
    (row,) = story.node.rows(query, story.torn.uid)
    shown = [one["id"] for one in _attention(story.node)]
    assert (row["state"], shown) in (("delivered", []), ("parked", [row["id"]]))


def _attention(made: Node) -> list[dict[str, object]]:
    with made.ledger() as ledger:
        return ledger.attention()


def test_every_result_lies_in_the_study_of_its_source(story: Story) -> None:
    studies = {sent.uid: sent.study for sent in story.sent}
    patients = {sent.uid: _patient(sent.path) for sent in story.whole}
    for uid in story.node.results("secondary_capture"):
        made = dcmread(story.held(uid), stop_before_pixels=True)
        (source,) = (str(item.ReferencedSOPInstanceUID) for item in made.SourceImageSequence)
        assert str(made.StudyInstanceUID) == studies[source]
        if source in patients:
            assert (str(made.PatientName), made.PatientID) == patients[source]
    for uid in story.node.results("structured_report"):
        report = dcmread(story.held(uid))
        named = {row["source_instance"] for row in parse_report(story.held(uid))}
        assert {studies[source] for source in named} == {str(report.StudyInstanceUID)}


def _patient(path: Path) -> tuple[str, str]:
    ds = dcmread(path, stop_before_pixels=True)
    return str(ds.get("PatientName", "")), ds.get("PatientID", "")


def test_what_no_decoder_takes_and_what_is_cut_off_is_unreadable_with_the_reason_in_the_report(story: Story) -> None:
    rows = story.reported()
    for sent in [*story.unreadable, story.torn]:
        row = rows[sent.uid]
        assert (sent.origin, row["outcome"]) == (sent.origin, "unreadable")
        assert len(str(row["reason"])) > 20, sent.origin
        assert row["results"] == []
    for sent in [*(s for s in story.unreadable if s.path.name.startswith("cut-")), story.torn]:
        assert re.search(r"[Ss]end (the image|it) again", str(rows[sent.uid]["reason"])), "the remedy is named"


def test_damaged_images_disturb_no_other(story: Story) -> None:
    outcomes = story.node.outcomes()
    assert outcomes.keys() == {sent.uid for sent in story.sent}
    assert {outcomes[sent.uid] for sent in story.whole} <= {"harmonized", "conforming", "refused", "passed"}
    sources = set()
    for uid in story.node.results("secondary_capture"):
        made = dcmread(story.held(uid), stop_before_pixels=True)
        sources |= {str(item.ReferencedSOPInstanceUID) for item in made.SourceImageSequence}
    assert not sources & {sent.uid for sent in [*story.unreadable, story.torn]}
    assert "Traceback" not in story.node.log()
    assert "unexpected fault" not in story.node.log()


def test_every_result_is_valid_whatever_its_source_states(story: Story) -> None:
    faults = {}
    for uid in story.node.results():
        command = ["dciodvfy", str(story.held(uid))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT)
        errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
        if errors:
            faults[uid] = errors[:3]
    assert faults == {}


def test_the_report_names_what_was_repaired_and_the_image_has_no_invalid_value(story: Story) -> None:
    row = story.reported()[story.invalid.uid]
    assert row["outcome"] == "harmonized"
    said = " ".join(row["notes"]) if isinstance(row["notes"], list) else ""
    for keyword in ("PatientAge", "PatientSex", "StudyDate"):
        assert keyword in said, row["notes"]
    (capture,) = (
        uid for uid in story.node.results("secondary_capture") if _source(story.held(uid)) == story.invalid.uid
    )
    made = dcmread(io.BytesIO(story.held(capture).read_bytes()))
    assert made.get("PatientSex", "") == ""
    assert made.get("PatientAge", "060Y") == "060Y"
    assert "AccessionNumber" in made
    assert not [element.tag for element in made if element.tag.group % 2 and element.tag.group < 9]


def _source(path: Path) -> str:
    made: Dataset = dcmread(path, stop_before_pixels=True)
    return str(made.SourceImageSequence[0].ReferencedSOPInstanceUID)

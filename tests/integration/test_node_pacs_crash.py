"""Public X-rays to a real Orthanc, each process killed on the way: the same end as without."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dicom_files import DATA
from tests.node import Node, node, uid_of
from tests.peers import LOOPBACK, Orthanc, free_port, orthanc, require

pytestmark = [
    pytest.mark.peers,
    pytest.mark.data,
    # The library leaves the socket of a peer that died to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
End = tuple[list[str], dict[str, bytes], dict[str, str]]
"""UIDs in Orthanc, bytes of the results in it, outcomes."""

# A study each, so that what is one batch does not depend on how long a killed process takes to come back.
FILES = tuple(
    DATA / name
    for name in (
        "rsna/RSNA_012a5620.dcm",
        "rsna/RSNA_009eb222.dcm",
        "siim/SIIM_sample.dcm",
        "nih_dcm/NIH_00000001_000.dcm",
        "wg04/RG1_JLSN.dcm",
        "wg04/RG2_JPLY.dcm",
        "wg04/RG2_RLE.dcm",
    )
)


def _deliveries(made: Node) -> int:
    return int(made.one("SELECT count(*) FROM delivery WHERE state = 'delivered'"))


def _run(folder: Path, *, kill: bool) -> End:
    """Send everything; what Orthanc holds at the end, the bytes of the results in it, the outcomes."""
    port = free_port()
    with orthanc(folder, node=("EVENRAY", LOOPBACK, port)) as pacs:
        where = {"kind": "dimse", "ae_title": "ORTHANC", "host": LOOPBACK, "port": pacs.port, "commitment": True}
        where |= {"commitment_timeout_s": 5, "commitment_wait_s": 0.2}
        with node(folder, {"pacs": where}, port=port) as made:
            if kill:
                _send_and_kill(made)
            else:
                made.accept(*FILES)
            made.wait_settled(300)
            return _end(made, pacs)


def _send_and_kill(made: Node) -> None:
    """Each process in turn, at a moment when it has something in hand."""
    made.accept(*FILES[:4])
    made.wait(lambda: made.one("SELECT count(*) FROM instance WHERE state = 'claimed'"), 60, "an image is claimed")
    made.kill("work")
    made.wait(lambda: _deliveries(made) > 0, 120, "something is delivered")
    made.kill("deliver")
    made.kill("listen")
    made.insist(FILES[4:])


def _end(made: Node, pacs: Orthanc) -> End:
    assert made.counts()["delivery"].keys() == {"delivered"}, "Orthanc has confirmed every object"
    return pacs.uids(), {uid: pacs.file(uid) for uid in made.results()}, made.outcomes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> End:
    require("Orthanc")
    if not DATA.exists():
        pytest.skip(f"no public X-rays at {DATA}")
    return _run(tmp_path_factory.mktemp("undisturbed"), kill=False)


def test_after_each_process_was_killed_orthanc_holds_the_same_objects_to_the_byte(
    undisturbed: End, tmp_path: Path
) -> None:
    uids, results, outcomes = undisturbed
    assert {uid_of(path) for path in FILES} < set(uids)
    assert "harmonized" in outcomes.values()
    assert "unreadable" in outcomes.values()
    assert _run(tmp_path, kill=True) == (uids, results, outcomes)

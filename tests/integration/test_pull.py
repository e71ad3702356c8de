"""`evenray pull` from real archives into a real node: the same bytes, each once, whatever happens in between."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import evt

from dicom_node.marks import uid_from_hash
from dicom_node.pull import Asked, Pull, Tally
from dicom_node.settings_file import load
from dicom_node.sources.query import wanted
from dicom_node.stopping import Stopping
from dicom_node.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE, JPEG_2000_LOSSLESS, JPEG_LS, RLE
from tests import dicom_files
from tests.certificates import Authority
from tests.dicom_files import DATA
from tests.node import ROOT, Node, association, data_set, node, store, study, uid_of
from tests.peers import LOOPBACK, free_port, orthanc
from tests.query_retrieve import Archive, dcmqrscp, to_source

STUDY = "1.2.3.77"
SYNTAXES = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, RLE, JPEG_LS, JPEG_2000_LOSSLESS)


def made(folder: Path, uid: str = STUDY, count: int = 5, syntaxes: tuple[str, ...] = SYNTAXES) -> list[Path]:
    """Small radiographs of one study in two series."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for n in range(count):
        ds = dicom_files.dataset(
            "CR", study=uid, series=f"{uid}.{8 + n % 2}", instance=f"{uid}.9.{n}", AccessionNumber=f"A{uid[-2:]}"
        )
        found.append(dicom_files.write(folder / f"{uid}.{n}.dcm", ds, syntaxes[n % len(syntaxes)]))
    return found


def fill(port: int, files: list[Path], called: str) -> None:
    with association(port, files, called=called) as link:
        assert [store(link, path) for path in files] == [0] * len(files)


def kept(running: Node) -> dict[str, Path]:
    """The originals that the ledger has, by UID; each once."""
    rows = running.rows("SELECT sop_instance_uid AS uid, path FROM instance WHERE state <> 'duplicate'")
    assert len({row["uid"] for row in rows}) == len(rows)
    return {row["uid"]: running.spool / row["path"] for row in rows}


@contextmanager
def receiving(tmp_path: Path, sources: dict[str, Any], port: int | None = None, **sections: Any) -> Iterator[Node]:
    """A node that only receives: what it has taken in stays as it is."""
    with node(tmp_path / "node", role="listen", port=port, sources=sources, **sections) as running:
        running.wait(lambda: has_ledger(running), 60, "there is a ledger")
        yield running


def has_ledger(running: Node) -> bool:
    return bool(running.rows("SELECT 1 FROM sqlite_master WHERE name = 'instance'"))


def pull(running: Node, question: Any, **options: Any) -> Tally:
    """A pull in this process."""
    settings = load(running.config)
    with running.ledger() as ledger:
        stopping = options.pop("stopping", None) or Stopping()
        per_minute = options.pop("per_minute", 100000)
        return Pull(settings, "pacs", ledger, stopping=stopping, per_minute=per_minute, **options).run(question)


@pytest.mark.peers
@pytest.mark.parametrize("method", ["get", "move"])
def test_a_study_of_orthanc_arrives_as_it_lies_there(tmp_path: Path, method: str) -> None:
    files, port = made(tmp_path / "files"), free_port()
    with orthanc(tmp_path, node=("EVENRAY", LOOPBACK, port)) as pacs:
        fill(pacs.port, files, "ORTHANC")
        with receiving(tmp_path, to_source(pacs, method=method), port) as running:
            assert pull(running, wanted(studies=(STUDY,))).fetched == 5
            found = kept(running)
            again = pull(running, wanted(accession="A77", dates="20240203", modalities=("CR", "DX")))
            assert (again.fetched, again.here, again.failed) == (0, 5, [])
            senders = {row["calling_ae"] for row in running.rows("SELECT calling_ae FROM instance")}
    assert set(found) == {uid_of(path) for path in files}
    for path in files:
        original, arrived = dcmread(path), dcmread(found[uid_of(path)])
        assert arrived.PixelData == original.PixelData
        if original.file_meta.TransferSyntaxUID != IMPLICIT_LITTLE:
            assert data_set(found[uid_of(path)]) == data_set(path)
    assert senders == {"ORTHANC"}


@pytest.mark.peers
@pytest.mark.parametrize("method", ["auto", "move"])
def test_a_study_of_dcmtk_arrives_as_it_lies_there(tmp_path: Path, method: str) -> None:
    port = free_port()
    files = made(tmp_path / "files", syntaxes=(EXPLICIT_LITTLE,))
    others = made(tmp_path / "files", uid="1.2.3.78", count=2, syntaxes=(EXPLICIT_LITTLE,))
    with (
        dcmqrscp(tmp_path, [*files, *others], node=("EVENRAY", port)) as pacs,
        receiving(tmp_path, to_source(pacs, method=method), port) as running,
    ):
        done = running.cli("pull", "pacs", "--accession", "A77", "--date", "20240101-20240301", "--modality", "CR,DX")
        assert done.returncode == 0, done.stdout + done.stderr
        found = kept(running)
        log = pacs.log.read_text()
    assert {uid: data_set(path) for uid, path in found.items()} == {uid_of(path): data_set(path) for path in files}
    assert ("Received Get SCP" in log, "Received Move SCP" in log) == (method == "auto", method == "move")


@pytest.mark.peers
@pytest.mark.data
def test_the_pixels_of_real_images_arrive_byte_for_byte(tmp_path: Path) -> None:
    names = ("RG2_UNC", "RG2_J2KR", "RG2_JLSL", "RG2_JPLL", "RG2_RLE")
    files = [DATA / "wg04" / f"{name}.dcm" for name in names]
    if not all(path.exists() for path in files):
        pytest.skip("the public images are not here")
    by_uid = {uid_of(path): path for path in files}
    with orthanc(tmp_path) as pacs:
        fill(pacs.port, list(by_uid.values()), "ORTHANC")
        with receiving(tmp_path, to_source(pacs, method="get")) as running:
            uids = sorted({str(dcmread(path, stop_before_pixels=True).StudyInstanceUID) for path in by_uid.values()})
            studies = [word for uid in uids for word in ("--study", uid)]
            done = running.cli("pull", "pacs", *studies, "--modality", "all")
            assert done.returncode == 0, done.stdout + done.stderr
            found = kept(running)
    assert set(found) == set(by_uid)
    for uid, path in by_uid.items():
        # Orthanc writes the elements around it anew.
        sent, arrived = dcmread(path), dcmread(found[uid])
        assert arrived.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
        assert arrived.PixelData == sent.PixelData


def slowly(seconds: float) -> Any:
    """Send one image after the other with a pause behind each."""

    def send(archive: Archive, event: evt.Event) -> Iterator[Any]:
        found = archive.wanted(event)
        yield len(found)
        for path in found:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, dcmread(path)
            archive.ended.wait(seconds)

    return send


def started(running: Node, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dicom_node", "pull", "pacs", *arguments, "--config", str(running.config)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("method", ["get", "move"])
def test_a_killed_pull_goes_on_and_fetches_nothing_twice(tmp_path: Path, method: str) -> None:
    files, port = made(tmp_path / "files", count=12), free_port()
    with Archive(files, moves=("EVENRAY", port)) as archive:
        archive.get = slowly(0.25)
        sources = archive.source()
        sources["pacs"]["method"] = method
        with receiving(tmp_path, sources, port) as running:
            first = started(running, "--study", STUDY)
            running.wait(lambda: len(kept(running)) >= 3, 30, "some images have arrived")
            first.kill()
            first.communicate()
            before = set(kept(running))
            assert len(before) < 12
            requests = len(archive.requests(f"C-{method.upper()}"))
            done = running.cli("pull", "pacs", "--study", STUDY, "--json")
            assert done.returncode == 0, done.stdout + done.stderr
            # Nothing came twice, not even as a repetition that the node would have set aside.
            rows = running.rows("SELECT sop_instance_uid AS uid, count(*) AS n FROM instance GROUP BY 1")
            assert {row["uid"]: row["n"] for row in rows} == {uid_of(path): 1 for path in files}
            later = archive.requests(f"C-{method.upper()}")[requests:]
    again = {uid for asked in later for uid in asked}
    assert not again & before
    assert json.loads(done.stdout)["here"] == 12 - len(again)


def test_what_a_killed_pull_asked_for_may_still_arrive_and_is_waited_for(tmp_path: Path) -> None:
    files = made(tmp_path / "files", count=5)
    late = files[:3]
    with Archive(files) as archive, receiving(tmp_path, archive.source()) as running:

        def arrive() -> None:
            for path in late:
                archive.ended.wait(1)
                running.accept(path)

        (running.state / "pull").mkdir()
        Asked(running.state / "pull").begin([uid_of(path) for path in late])
        arriving = threading.Thread(target=arrive)
        arriving.start()
        tally = pull(running, wanted(studies=(STUDY,)))
        arriving.join()
        assert set(kept(running)) == {uid_of(path) for path in files}
    assert (tally.fetched, tally.here) == (2, 3)
    assert {uid for uid, _ in archive.given} == {uid_of(path) for path in files[3:]}


def test_ctrl_c_cancels_in_order_and_the_next_pull_goes_on(tmp_path: Path) -> None:
    files = made(tmp_path / "files", count=10)
    with Archive(files) as archive:
        archive.get = slowly(0.5)
        with receiving(tmp_path, archive.source()) as running:
            first = started(running, "--study", STUDY)
            running.wait(lambda: len(kept(running)) >= 1, 30, "an image has arrived")
            first.send_signal(signal.SIGINT)
            output, errors = first.communicate(timeout=30)
            assert first.returncode == 130, output + errors
            assert "the same command goes on from here" in output
            assert archive.cancelled == 1
            assert 1 <= len(kept(running)) < 10
            archive.get = Archive.send
            assert running.cli("pull", "pacs", "--study", STUDY).returncode == 0
            assert len(kept(running)) == 10
    assert Counter(uid for uid, status in archive.given if status == 0) == {uid_of(path): 1 for path in files}


def test_no_more_images_a_minute_are_asked_for_than_was_set(tmp_path: Path) -> None:
    files = [path for n in range(3) for path in made(tmp_path / "files", f"1.2.3.{n + 10}", 2)]
    stopping = Stopping()
    paused_at: list[int] = []

    def changed(tally: Tally) -> None:
        if "pace" in tally.doing:
            paused_at.append(tally.fetched)
            stopping.ask()

    with Archive(files) as archive, receiving(tmp_path, archive.source()) as running:
        # An image in five minutes: the first study is there at once, the second one would begin in ten minutes.
        tally = pull(running, wanted(dates="20240203"), per_minute=0.2, stopping=stopping, changed=changed)
    assert tally.interrupted
    assert paused_at[0] == tally.fetched == 2
    assert sum(map(len, archive.requests("C-GET"))) == 2


def test_nothing_is_fetched_while_the_queue_is_long(tmp_path: Path) -> None:
    files = [path for n in range(4) for path in made(tmp_path / "files", f"1.2.3.{n + 10}", 2)]
    with Archive(files) as archive, receiving(tmp_path, archive.source(), pull={"queue_limit": 4}) as running:
        stopping = Stopping()
        said: list[str] = []

        def changed(tally: Tally) -> None:
            if "images wait in the node" in tally.doing:
                said.append(tally.doing)
                stopping.ask()

        tally = pull(running, wanted(dates="20240203"), stopping=stopping, changed=changed)
        assert tally.interrupted
        assert said[0] == "waiting: 4 images wait in the node"
        assert tally.fetched == len(kept(running)) == 4


def test_what_is_here_and_what_evenray_made_is_not_fetched(tmp_path: Path) -> None:
    files = made(tmp_path / "files", count=3)
    of_a_report = uid_from_hash(b"own" * 8)
    own = dicom_files.dataset("SC", study=STUDY, series=f"{STUDY}.99", instance=of_a_report)
    renamed = dicom_files.dataset("SC", study=STUDY, series=f"{STUDY}.98", instance="1.2.9.1")
    renamed.SeriesDescription = "Evenray harmonized"
    made_here = [dicom_files.write(tmp_path / f"own{n}.dcm", ds) for n, ds in enumerate((own, renamed))]
    with Archive([*files, *made_here]) as archive, receiving(tmp_path, archive.source()) as running:
        running.accept(files[1])
        tally = pull(running, wanted(studies=(STUDY,)))
    assert (tally.fetched, tally.here, tally.own, tally.failed) == (2, 1, 2, [])
    assert {uid for uid, _ in archive.given} == {uid_of(files[0]), uid_of(files[2])}


def test_a_dry_run_shows_what_would_be_fetched_and_nobody_s_name(tmp_path: Path) -> None:
    files = made(tmp_path / "files", count=4)
    with Archive(files) as archive, receiving(tmp_path, archive.source()) as running:
        running.accept(files[0])
        asked = running.cli("pull", "pacs", "--patient", "P1", "--dry-run")
        told = json.loads(running.cli("pull", "pacs", "--patient", "P1", "--dry-run", "--json").stdout)
        assert len(kept(running)) == 1
    assert asked.returncode == 0, asked.stderr
    assert "1 study matches; 3 images to fetch, 1 already here" in asked.stdout
    assert STUDY in asked.stdout
    assert "Doe" not in asked.stdout + asked.stderr
    assert (told["plans"][0]["to_fetch"], told["plans"][0]["here"], told["fetched"]) == (3, 1, 0)
    assert {what for what, _ in archive.asked} == {"C-FIND"}


def test_a_limit_leaves_the_rest_for_the_next_time(tmp_path: Path) -> None:
    files = made(tmp_path / "files", count=6)
    with Archive(files) as archive, receiving(tmp_path, archive.source()) as running:
        counts = [running.cli("pull", "pacs", "--study", STUDY, "--limit", "4", "--json") for _ in range(3)]
    assert [json.loads(one.stdout)["fetched"] for one in counts] == [4, 2, 0]


@pytest.mark.peers
def test_an_archive_is_harmonized_and_its_results_are_not_fetched_again(tmp_path: Path) -> None:
    files, port = study(tmp_path / "files", STUDY, count=2), free_port()
    with orthanc(tmp_path, node=("EVENRAY", LOOPBACK, port)) as pacs:
        fill(pacs.port, files, "ORTHANC")
        where = {"kind": "dimse", "ae_title": "ORTHANC", "host": LOOPBACK, "port": pacs.port}
        routes = [{"name": "radiographs", "originals": "keep", "destinations": ["pacs"]}]
        with node(tmp_path / "node", {"pacs": where}, port=port, sources=to_source(pacs), routes=routes) as running:
            running.wait(lambda: has_ledger(running), 60, "there is a ledger")
            assert running.cli("pull", "pacs", "--study", STUDY).returncode == 0
            running.wait(lambda: len(running.results()) > len(files), 120, "there are results and a report")
            running.wait_settled()
            results = running.results()
            assert set(results) <= set(pacs.uids())
            again = json.loads(running.cli("pull", "pacs", "--study", STUDY, "--modality", "ALL", "--json").stdout)
            assert (again["fetched"], again["here"], again["own"]) == (0, len(files), len(results))


def test_images_are_handed_to_a_listener_under_tls(tmp_path: Path) -> None:
    files = made(tmp_path / "files", count=3)
    authority = Authority(tmp_path)
    ours = authority.issue("node")
    tls = {"certificate": str(ours.certificate), "key": str(ours.key), "trusted": str(authority.file)}
    with Archive(files) as archive, receiving(tmp_path, archive.source(), listen={"tls": tls}) as running:
        tally = pull(running, wanted(studies=(STUDY,)))
        assert tally.fetched == 3, tally
        assert set(kept(running)) == {uid_of(path) for path in files}

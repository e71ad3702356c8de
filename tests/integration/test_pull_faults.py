"""`evenray pull` where the archive, or the node, does not do its part: a sentence, an exit code, and nothing lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import evt

from dicom_node import pull as pulling
from dicom_node.errors import AlreadyRunning
from dicom_node.pull import alone
from dicom_node.sources.query import wanted
from tests.integration.test_pull import STUDY, kept, made, pull, receiving
from tests.node import uid_of
from tests.peers import LOOPBACK, free_port
from tests.query_retrieve import Archive, Matches


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long waits before another attempt."""
    monkeypatch.setattr(pulling, "WAITS_S", (0.05, 0.05))


@pytest.mark.usefixtures("quick")
def test_what_can_not_be_fetched_is_tried_again_alone_and_listed(tmp_path: Path) -> None:
    files = made(tmp_path / "files", count=5)
    bad = uid_of(files[2])

    def partly(archive: Archive, event: evt.Event) -> Iterator[Any]:
        found = archive.wanted(event)
        yield len(found)
        for path in found:
            if uid_of(path) != bad:
                yield 0xFF00, dcmread(path)
        yield 0xA702, None

    with Archive(files) as archive:
        archive.get = partly
        with receiving(tmp_path, archive.source()) as running:
            tally = pull(running, wanted(studies=(STUDY,)))
            assert set(kept(running)) == {uid_of(path) for path in files} - {bad}
    assert tally.fetched == 4
    assert [(one.study_instance_uid, one.sop_instance_uid) for one in tally.failed] == [(STUDY, bad)]
    assert "0xA702" in tally.failed[0].why
    assert Counter(uid for asked in archive.requests("C-GET") for uid in asked)[bad] == 3
    assert archive.requests("C-GET")[1:3] == [[bad], [bad]]


@pytest.mark.usefixtures("quick")
def test_an_archive_that_goes_away_ends_the_pull_and_the_next_one_goes_on(tmp_path: Path) -> None:
    files = [path for n in range(3) for path in made(tmp_path / "files", f"1.2.3.{n + 10}", 2)]
    with Archive(files) as archive, receiving(tmp_path, archive.source()) as running:

        def dying(one: Archive, event: evt.Event) -> Iterator[Any]:
            if len(kept(running)) >= 2:
                event.assoc.abort()
                return iter([0])
            return one.send(event)

        archive.get = dying
        tally = pull(running, wanted(dates="20240203"))
        assert tally.fetched == 2
        assert "no response to C-GET" in tally.stopped
        archive.get = Archive.send
        assert pull(running, wanted(dates="20240203")).fetched == 4
        assert set(kept(running)) == {uid_of(path) for path in files}


@pytest.mark.usefixtures("quick")
def test_what_an_archive_claims_to_have_sent_but_did_not_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "ARRIVE_S", 0.5)
    files, port = made(tmp_path / "files", count=1), free_port()

    def lying(_archive: Archive, _event: evt.Event) -> Iterator[Any]:
        yield LOOPBACK, port, {"ae_title": "EVENRAY"}
        yield 0

    with Archive(files, gets=False, moves=("EVENRAY", port)) as archive:
        archive.move = lying
        with receiving(tmp_path, archive.source(), port) as running:
            tally = pull(running, wanted(studies=(STUDY,)))
    assert tally.fetched == 0
    assert "did not arrive" in tally.failed[0].why


def test_what_an_archive_counts_but_does_not_list_is_said(tmp_path: Path) -> None:
    files = made(tmp_path / "files", count=2)

    def short(archive: Archive, event: evt.Event) -> Matches:
        for status, match in archive.matches(event):
            if match and "NumberOfSeriesRelatedInstances" in match:
                match.NumberOfSeriesRelatedInstances = 3
            yield status, match

    with Archive(files) as archive:
        archive.find = short
        with receiving(tmp_path, archive.source()) as running:
            tally = pull(running, wanted(studies=(STUDY,)))
    assert tally.fetched == 2
    assert [one.why for one in tally.failed] == ["the archive counts 4 more than it lists"]


def test_every_fault_of_a_pull_is_a_sentence_and_an_exit_code(tmp_path: Path) -> None:
    files = made(tmp_path / "files", count=1)
    with Archive(files) as archive, receiving(tmp_path, archive.source()) as running:
        unknown = running.cli("pull", "elsewhere", "--study", STUDY)
        nothing = running.cli("pull", "pacs")
        missing = running.cli("pull", "pacs", "--study", "1.2.99")
        none = running.cli("pull", "pacs", "--accession", "NONE")
        with alone(running.state / "pull"), pytest.raises(AlreadyRunning):
            pull(running, wanted(studies=(STUDY,)))
        running.terminate()
        stopped = running.cli("pull", "pacs", "--study", STUDY)
    assert (unknown.returncode, nothing.returncode, missing.returncode, none.returncode) == (2, 2, 1, 0)
    assert "no source is called so; known: pacs" in unknown.stderr
    assert "give --study" in nothing.stderr
    assert "1.2.99" in missing.stdout
    assert stopped.returncode == 2
    assert "the node does not receive" in stopped.stderr

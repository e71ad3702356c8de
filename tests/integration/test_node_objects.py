"""A node whose route asks for every object: all of them reach the PACS, confirmed, and alike in a second node."""

from __future__ import annotations

from pathlib import Path

from dicom_node.records import ResultKind
from tests.node import archive, contents, node, study, to_archive, uid_of
from tests.peers import free_port

STUDY = "1.2.826.0.1.3680043.10.1.61"
SITE = {"visible_label": "HARMONIZED - NOT ORIGINAL"}


def _run(folder: Path, files: list[Path]) -> tuple[dict[str, bytes], dict[str, list[str]]]:
    port = free_port()
    route = {"name": "all", "destinations": ["pacs"], "objects": [kind for kind in ResultKind if kind != "original"]}
    with (
        archive(folder, port) as pacs,
        node(folder, to_archive(pacs.port), port=port, routes=[route], site=SITE) as made,
    ):
        made.accept(*files)
        made.wait_settled()
        assert made.counts()["delivery"].keys() == {"delivered"}
        return contents(pacs), {kind: made.results(kind) for kind in ResultKind}


def test_every_object_is_delivered_and_the_same_in_two_fresh_nodes(tmp_path: Path) -> None:
    # Three that are harmonized, one that is near, one that is refused.
    files = study(tmp_path / "in", STUDY, 5)
    first, made = _run(tmp_path / "one", files)
    second, _ = _run(tmp_path / "two", files[::-1])
    assert {kind: len(uids) for kind, uids in made.items()} == {
        "original": 0,
        "secondary_capture": 3,
        "derived_image": 3,
        "presentation_state": 3,
        "structured_report": 1,
        "key_object_selection": 1,
    }
    every = {uid for uids in made.values() for uid in uids}
    assert first.keys() == second.keys() == {*every, *map(uid_of, files)}
    assert [uid for uid in first if first[uid] != second[uid]] == []

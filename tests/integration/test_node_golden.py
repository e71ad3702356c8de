"""Same original, same settings, same weights: same UIDs and bytes, in two nodes that know nothing of each other."""

from __future__ import annotations

from pathlib import Path

from tests.node import archive, contents, node, study, to_archive, uid_of
from tests.peers import free_port

STUDY = "1.2.826.0.1.3680043.10.1.60"


def _run(folder: Path, files: list[Path]) -> tuple[dict[str, bytes], list[str]]:
    port = free_port()
    with archive(folder, port) as pacs, node(folder, to_archive(pacs.port), port=port) as made:
        made.accept(*files)
        made.wait_settled()
        assert made.counts()["delivery"].keys() == {"delivered"}
        return contents(pacs), made.results()


def test_the_same_input_gives_the_same_bytes_in_two_fresh_nodes(tmp_path: Path) -> None:
    files = study(tmp_path / "in", STUDY, 5)
    first, made = _run(tmp_path / "one", files)
    # Another order, another port, another folder, another time.
    second, _ = _run(tmp_path / "two", files[::-1])
    assert len(made) == 4, "three secondary captures and a report"
    assert first.keys() == second.keys() == {*made, *map(uid_of, files)}
    assert [uid for uid in first if first[uid] != second[uid]] == []

"""The demo's folder: replaced only where a demo made it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.demo.place import cleared
from dicom_node.errors import BadInput


def test_an_earlier_demo_is_replaced_but_not_what_a_person_put_beside_it(tmp_path: Path) -> None:
    with cleared(tmp_path / "out") as place:
        (place.pictures / "1.png").write_bytes(b"old")
        place.archive.mkdir()
        place.overview.write_bytes(b"old")
    (place.root / "my notes.txt").write_text("keep")
    with cleared(tmp_path / "out") as again:
        assert not list(again.pictures.iterdir())
        assert not again.archive.exists()
        assert not again.overview.exists()
        assert (again.root / "my notes.txt").read_text() == "keep"


def test_a_folder_that_no_demo_made_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with pytest.raises(BadInput, match="no demo made it"), cleared(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(BadInput, match="not a folder"), cleared(tmp_path / "out"):
        pass


def test_two_demos_in_one_folder_do_not_mix(tmp_path: Path) -> None:
    with cleared(tmp_path), pytest.raises(BadInput, match="another demo"), cleared(tmp_path):
        pass


def test_a_link_in_the_folder_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("keep")
    with cleared(tmp_path / "out") as place:
        pass
    place.reports.rmdir()
    place.reports.symlink_to(tmp_path / "precious")
    with cleared(tmp_path / "out"):
        assert not place.reports.is_symlink()
    assert (tmp_path / "precious" / "file").read_text() == "keep"

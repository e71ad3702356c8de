"""Which files a command means."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.commands.inputs import files_of
from dicom_node.errors import BadInput


def test_a_folder_gives_its_files_in_order_without_hidden_ones_and_the_index(tmp_path: Path) -> None:
    for name in ("b/2.dcm", "a/1.dcm", ".DS_Store", ".git/x", "DICOMDIR", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(f.relative_to(tmp_path)) for f in files_of([tmp_path])] == ["a/1.dcm", "b/2.dcm", "c"]


def test_a_file_that_is_named_twice_or_lies_in_a_named_folder_counts_once(tmp_path: Path) -> None:
    file = tmp_path / "x.dcm"
    file.touch()
    assert files_of([file, tmp_path, tmp_path / "." / "x.dcm"]) == [file]


def test_a_hidden_file_that_is_named_is_meant(tmp_path: Path) -> None:
    (tmp_path / ".x.dcm").touch()
    assert files_of([tmp_path / ".x.dcm"]) == [tmp_path / ".x.dcm"]


def test_a_path_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"gone: no such file or folder: check the path"):
        files_of([tmp_path / "gone"])

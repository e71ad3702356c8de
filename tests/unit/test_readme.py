"""What the README shows is what the program says."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.settings_reference import entries, markdown
from dicom_node.states import Batch, Delivery, Instance, Object, Promise, diagram

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("kind", [Instance, Batch, Delivery, Object, Promise])
def test_the_state_diagrams_are_the_state_tables(kind: type[Instance]) -> None:
    assert diagram(kind) in README


def test_the_settings_are_all_there_with_their_defaults() -> None:
    assert markdown() in README


def test_every_setting_says_what_it_means() -> None:
    assert [entry.path for entry in entries() if not entry.meaning] == []


def test_every_file_that_is_linked_is_there() -> None:
    links = [part.partition(")")[0] for part in README.split("](")[1:]]
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []

"""`kill -9` at every named step of every process: nothing is lost, nothing is sent under other UIDs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dicom_node.steps import REGISTER
from tests.soak.forks import nursery
from tests.soak.matrix import Matrix

pytestmark = [pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    with nursery() as loaded:
        yield Matrix(tmp_path_factory.mktemp("steps"), loaded)


@pytest.mark.parametrize("step", REGISTER)
def test_a_kill_at_this_step_changes_nothing(matrix: Matrix, step: str) -> None:
    matrix.kill_at(step)

"""`kill -9` at the steps between the file, the ledger and the answer. All steps are killed at by `make soak`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.soak.forks import nursery
from tests.soak.matrix import Matrix
from tests.soak.scenarios import without_scenario

pytestmark = [
    # The library leaves the socket of a peer that died to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
BETWEEN = (
    "spool.keep.begun",
    "instance.new.receive.begun",
    "receive.kept",
    "process.spooled",
    "instance.claimed.decide.done",
    "deliver.answered",
)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    with nursery() as loaded:
        yield Matrix(tmp_path_factory.mktemp("steps"), loaded)


def test_every_named_step_has_a_scenario_in_which_it_is_killed() -> None:
    assert without_scenario() == []


@pytest.mark.parametrize("step", BETWEEN)
def test_a_kill_between_file_ledger_and_answer_changes_nothing(matrix: Matrix, step: str) -> None:
    matrix.kill_at(step)

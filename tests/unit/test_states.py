"""The state tables: every row is taken, everything else is refused, and nothing is a dead end by accident."""

from __future__ import annotations

from itertools import product

import pytest

from dicom_node.errors import IllegalStep
from dicom_node.states import TABLE, Batch, Delivery, Instance, Object, Promise, after, diagram

WORK = (Instance, Batch, Delivery, Promise)
KINDS = (*WORK, Object)
ROWS = {(type(before), before, step): then for before, step, then in TABLE}
FINAL = {
    Instance: {Instance.EXPIRED, Instance.DUPLICATE},
    Batch: {Batch.REPORTED, Batch.VOID},
    Delivery: {Delivery.DELIVERED},
    # A peer may ask again whatever was answered.
    Promise: set(),
    Object: {Object.EXPIRED},
}


def test_no_step_leads_to_two_states() -> None:
    assert len(ROWS) == len(TABLE)


@pytest.mark.parametrize(("before", "step", "then"), TABLE)
def test_every_row_is_taken(before: Instance, step: str, then: Instance) -> None:
    assert after(before, step) is then
    assert type(before) is type(then), "a step never leads to another kind of thing"


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_without_a_row_raises(kind: type[Instance]) -> None:
    steps = {step for _, step, _ in TABLE}
    for state, step in product(kind, steps):
        if (kind, state, step) not in ROWS:
            with pytest.raises(IllegalStep, match=step):
                after(state, step)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_named_final_states_have_no_way_out(kind: type[Instance]) -> None:
    stuck = {state for state in kind if not any(before is state for before, _, _ in TABLE)}
    assert stuck == FINAL[kind]


@pytest.mark.parametrize("kind", WORK)
def test_what_is_parked_can_be_retried(kind: type[Instance]) -> None:
    assert (kind, kind["PARKED"], "retry") in ROWS


@pytest.mark.parametrize("kind", KINDS)
def test_every_state_can_be_reached_from_the_first(kind: type[Instance]) -> None:
    first = next(iter(kind))
    reached, edge = {first}, [first]
    while edge:
        here = edge.pop()
        fresh = {then for before, _, then in TABLE if before is here} - reached
        reached |= fresh
        edge += fresh
    assert reached == set(kind)


def test_the_diagram_shows_every_row_of_its_kind() -> None:
    text = diagram(Delivery)
    assert text.startswith("stateDiagram-v2")
    assert text.count("-->") == sum(isinstance(before, Delivery) for before, _, _ in TABLE)


def test_a_file_leaves_only_what_is_reported_or_came_back() -> None:
    leaving = {(type(before), before) for before, step, _ in TABLE if step == "expire"}
    assert leaving == {(Instance, Instance.REPORTED), (Instance, Instance.OWN), (Object, Object.KEPT)}

"""Whatever bytes come in, the fast reader of associations tells the story of the slow one, and files end in a word.

Short: some thousands of cases, always the same. `make soak` runs a million others.
"""

from __future__ import annotations

import random
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.codecs import Frame, decode
from dicom_node.errors import Unreadable
from dicom_node.upper_layer import read_request
from tests import raw_peer
from tests.mutation import association, corpus, damaged
from tests.raw_peer import COMMAND, LAST, command, p_data, pdv, store
from tests.soak import damaged_files
from tests.two_readers import Case, compare

SEEDS = corpus("associations")
RLE = "1.2.840.10008.1.2.5"


@pytest.mark.parametrize("part", range(4))
def test_damaged_associations_are_read_as_the_slow_reader_reads_them(part: int) -> None:
    endings = set()
    for number in range(part * 1000, (part + 1) * 1000):
        chance = random.Random(number)
        endings.add(compare(Case.by_chance(association(SEEDS, chance), chance)).ending)
    assert endings == {"released", "aborted", "closed", "protocol error"}


@pytest.mark.parametrize("content", SEEDS)
def test_recorded_associations_are_read_to_their_end(content: bytes) -> None:
    for buffer in (16, 100, 4096):
        assert compare(Case(content, buffer=buffer)).ending in ("released", "aborted")


_FRAGMENTS = st.lists(
    st.tuples(
        st.sampled_from([1, 3, 5]),
        st.sampled_from([0, 1, 2, 3]),
        st.one_of(st.binary(max_size=40), st.sampled_from([command(1), command(0x30, data=raw_peer.NO_DATA)])),
    ),
    max_size=8,
)


@given(_FRAGMENTS, st.sampled_from([16, 64, 0]), st.sampled_from([0, 7, 100]))
def test_any_order_of_fragments_is_read_as_the_slow_reader_reads_it(
    fragments: list[tuple[int, int, bytes]], buffer: int, peer_max: int
) -> None:
    stream = b"".join(p_data(pdv(content, context=cx, control=bits)) for cx, bits, content in fragments)
    compare(Case(stream, buffer=buffer, cuts=(len(stream) // 2,) if buffer == 0 else (), peer_max=peer_max))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_fault_in_words(content: bytes) -> None:
    for whole in (content, command(1)[:-4] + content):
        with suppress(ValueError):
            read_request(whole)


@pytest.mark.parametrize("uid", ["1.2.\xe4", "\xff", "1.2\x85"])
def test_a_uid_that_is_no_text_is_refused_and_said_back_as_it_came(uid: str) -> None:
    story = compare(Case(store(b"x", instance=uid)))
    assert [(status, uids[1]) for _, _, _, status, uids in story.answers] == [(0xC000, uid.encode("latin-1"))]
    assert not story.kept


def test_damaged_files_end_in_a_picture_or_in_words(tmp_path: Path) -> None:
    seeds, ends = corpus("files"), set()
    path = tmp_path / "damaged.dcm"
    for number in range(1500):
        path.write_bytes(damaged_files.case(seeds, number))
        ends.add(damaged_files.read(path))
    assert ends == {"picture", "no picture", "no header"}


@given(st.binary(max_size=80), st.integers(0, 15))
def test_rle_segments_that_do_not_fit_are_unreadable(tail: bytes, segments: int) -> None:
    """A panic of the decoder's Rust code would end the worker."""
    data = struct.pack("<16I", segments, 64, *range(65, 79)) + tail
    try:
        words, _ = decode(Frame(data, RLE, 4, 5, bits_allocated=16, bits_stored=12, signed=False))
    except Unreadable:
        return
    assert words.shape == (4, 5)


def test_damage_is_a_function_of_its_seed() -> None:
    one, other = (association(SEEDS, random.Random(7)) for _ in range(2))
    assert one == other
    assert damaged(one, random.Random(8)) != one


def test_a_data_set_that_nobody_takes_is_dropped_and_the_next_object_is_kept() -> None:
    nameless = p_data(pdv(command(1, instance=""), control=COMMAND | LAST)) + p_data(pdv(b"dropped", control=LAST))
    story = compare(Case(nameless + store(b"kept")))
    assert [kept.content for kept in story.kept] == [b"kept"]


@pytest.mark.parametrize("number", [20274105, 20279661, 20284070])
def test_files_that_once_were_a_fault_are_told_in_words(number: int, tmp_path: Path) -> None:
    """Empty pixel data, and pixel data of a VR that there is not."""
    path = tmp_path / "damaged.dcm"
    path.write_bytes(damaged_files.case(corpus("files"), number))
    assert damaged_files.read(path) == "no picture"

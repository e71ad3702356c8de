"""What a file claims is held against what is there: no length, stream or sequence takes more than it may."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import pytest

from dicom_node.bounded import KEPT, Allowance, Bounded, Inflated
from dicom_node.errors import Unreadable
from dicom_node.header import dataset_digest, read_header
from dicom_node.memory import at_most
from dicom_node.pixels import read_display
from tests.bombs import BOMBS, element, file_of, header

MIB = 1 << 20
SEED = 20260102
QUICK = {
    "length of pixels": "cut off",
    "rows and columns": "no radiograph has more",
    "JPEG 2000, 16 components of 65535 squared": "65535x65535 of 16",
    "HTJ2K, 16 components of 65535 squared": "65535x65535 of 16",
    "JPEG-LS, 255 components of 65535 squared": "65535x65535 of 255",
    "deflated pixels": "no radiograph is like that",
    "deep sequences": "damaged",
    "RLE": "damaged",
}


def plenty() -> Allowance:
    return Allowance(most_bytes=100 * MIB, most_reads=100_000, what="it")


def deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def test_what_is_inflated_piece_by_piece_is_what_was_deflated(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    content = b"".join(chance.randbytes(50) * chance.randint(1, 2000) for _ in range(200))
    packed = tmp_path / "packed"
    packed.write_bytes(deflate(content))
    with packed.open("rb") as file:
        inflated, at = Inflated(file, plenty()), 0
        while at < len(content):
            count = chance.choice((1, 8, 100, 70_000, 3 * MIB))
            assert inflated.read(count) == content[at : at + count]
            at = inflated.seek(at + count - chance.randint(0, 4))
            if chance.random() < 0.3:
                at = inflated.seek(chance.randint(0, 2 * MIB), 1)
        assert inflated.read(10) == b""


def test_a_deflated_stream_is_not_read_backwards_beyond_what_is_held(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(deflate(bytes(20 * MIB)))
    with packed.open("rb") as file:
        inflated = Inflated(file, plenty())
        inflated.seek(10 * MIB)
        inflated.read(5 * MIB)
        inflated.seek(15 * MIB - KEPT)
        with pytest.raises(ValueError, match="backwards"):
            inflated.seek(0)


def test_a_deflated_stream_that_is_cut_off_is_not_the_end(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(deflate(random.Random(SEED).randbytes(1000))[:500])
    with packed.open("rb") as file, pytest.raises(zlib.error, match="truncated"):
        Inflated(file, plenty()).read(1000)


@pytest.mark.parametrize("reads", [1, 1000])
def test_more_than_is_allowed_is_refused_in_bytes_and_in_pieces(tmp_path: Path, reads: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(2000))
    allowance = Allowance(most_bytes=1500, most_reads=100, what="it")
    with path.open("rb") as file, pytest.raises(Unreadable, match="no radiograph is like that"):
        _read_in(Bounded(file, allowance), reads)
    assert allowance.spent


def test_a_length_beyond_the_end_of_the_file_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with path.open("rb") as file, at_most(64 * MIB):
        assert Bounded(file, plenty()).read(0xFFFFFFFE) == b"abc"


def test_an_object_of_gigabytes_that_is_no_image_is_admitted_without_being_held(tmp_path: Path) -> None:
    path = file_of(
        tmp_path / "large.dcm", header("1.2.3") + element(0x0042, 0x0011, "OB", b"", length=300 << 20), "1.2.3"
    )
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + (300 << 20))
    with at_most(64 * MIB):
        found = read_header(path)
        assert len(dataset_digest(path)) == 64
    assert (found.sop_instance_uid, found.has_pixels) == ("1.2.3", False)


@pytest.mark.parametrize("name", QUICK)
def test_a_bomb_is_unreadable_and_takes_little(name: str, tmp_path: Path) -> None:
    path = BOMBS[name](tmp_path / "bomb.dcm", "1.2.3")
    with at_most(512 * MIB), pytest.raises(Unreadable, match=QUICK[name]):
        _read_all(path)


def _read_in(bounded: Bounded, reads: int) -> None:
    for _ in range(reads):
        bounded.read(2000 // reads)


def _read_all(path: Path) -> None:
    read_header(path)
    read_display(path)


def test_a_sequence_that_is_too_long_to_look_into_counts_as_absent(tmp_path: Path) -> None:
    path = BOMBS["wide sequence"](tmp_path / "bomb.dcm", "1.2.3")
    with at_most(128 * MIB):
        assert read_header(path).body_part == "CHEST"


def test_a_limit_of_memory_ends_with_its_block() -> None:
    with pytest.raises(MemoryError), at_most(16 * MIB):
        bytearray(64 * MIB)
    assert len(bytearray(64 * MIB)) == 64 * MIB

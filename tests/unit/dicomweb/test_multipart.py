"""Multipart bodies: what is written is read back, however the pieces fall, and what is no body ends in a fault."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.dicomweb import Body, MultipartInvalid, Part, Parts, boundary_of
from dicom_node.dicomweb import multipart as own
from dicom_node.errors import SpoolDamaged

MOST = 1 << 20


def _reader(body: bytes, pieces: list[int]) -> Callable[[int], bytes]:
    """Gives pieces of these lengths, over and over."""
    stream, lengths = BytesIO(body), iter(pieces * (len(body) + 1))
    return lambda count: stream.read(min(count, next(lengths)))


def _read(body: bytes, boundary: bytes = b"b", pieces: list[int] | None = None, most: int = MOST) -> list[bytes]:
    parts, found = Parts(_reader(body, pieces or [1 << 16]), boundary), []
    while True:
        content = bytearray()
        if not parts.next(content.extend, most=most):
            return found
        found.append(bytes(content))


# Near misses of the delimiter in every position.
CONTENT = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"b", b"x", b"\r\n--", b"\r\n\r\n", b"--"]), max_size=12).map(
    b"".join
)


@given(st.lists(CONTENT, min_size=1, max_size=4), st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_every_part_is_read_back_wherever_the_pieces_end(contents: list[bytes], pieces: list[int]) -> None:
    if any(b"\r\n--b" in b"\r\n" + content for content in contents):
        return
    body = b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n" for content in contents)
    assert _read(body + b"--b--", pieces=pieces) == contents


def test_a_body_written_from_files_is_read_back_and_has_the_length_that_it_says(tmp_path: Path) -> None:
    contents = [b"", b"\r\n--", bytes(range(256)) * 1000]
    parts = []
    for n, content in enumerate(contents):
        (tmp_path / str(n)).write_bytes(content)
        parts.append(Part(tmp_path / str(n), len(content)))
    moved: list[int] = []
    body = Body(parts, moved.append)
    raw = b"".join(body)
    assert len(raw) == len(body)
    assert sum(moved) == sum(map(len, contents))
    kind, boundary = boundary_of(body.content_type)
    assert kind == "multipart/related"
    assert _read(raw, boundary) == contents
    assert b"".join(body) == raw, "it can be sent again"


@pytest.mark.parametrize("size", [0, 9, 11])
def test_a_file_of_another_length_is_not_sent_to_its_end(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    with pytest.raises(SpoolDamaged, match="length changed"):
        b"".join(Body([Part(tmp_path / "file", 10)], lambda _count: None))
    with pytest.raises(SpoolDamaged, match="can't be read"):
        b"".join(Body([Part(tmp_path / "gone", 10)], lambda _count: None))


@pytest.mark.parametrize(
    ("body", "contents"),
    [
        (b"a preamble\r\n--b\r\nX: y\r\n\r\none\r\n--b--\r\nan epilogue", [b"one"]),
        (b"\r\n--b \r\nX: y\r\n\r\none\r\n--b--", [b"one"]),
        (b"--b\r\n\r\none\r\n--b--", [b"one"]),
        (b"--b--", []),
    ],
    ids=["preamble", "padding", "no header fields", "no part"],
)
def test_what_the_rules_allow_is_read(body: bytes, contents: list[bytes]) -> None:
    assert _read(body) == contents


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no delimiter at all",
        b"x" * 100000,
        b"--b\r\nX: y\r\n\r\ncut off",
        b"--b\r\nX: y",
        b"--b\r\n" + b"X: y\r\n" * 100000,
        b"--b\r\nX: y\r\n\r\n" + b"z" * (MOST + 1) + b"\r\n--b--",
        b"--b\r\nX: y\r\n\r\none\r\n--b",
    ],
    ids=[
        "empty",
        "no delimiter",
        "long preamble",
        "cut off",
        "cut in a header",
        "endless header",
        "too long",
        "no end",
    ],
)
def test_what_is_no_body_or_too_much_is_a_fault(body: bytes) -> None:
    with pytest.raises(MultipartInvalid):
        _read(body)


def test_no_more_is_held_than_a_piece_of_a_part() -> None:
    held = 0

    def read(count: int) -> bytes:
        nonlocal held
        held = max(held, len(parts._held) if parts else 0)
        return b"y" * count

    parts: Parts | None = None
    body = BytesIO(b"--b\r\n\r\n")
    parts = Parts(lambda count: body.read(count) or read(count), b"b")
    with pytest.raises(MultipartInvalid, match="longer"):
        parts.next(lambda _piece: None, most=MOST)
    assert held <= own.PIECE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', ("multipart/related", b"abc")),
        ('Multipart/Related; boundary="a b:c"; type=application/dicom', ("multipart/related", b"a b:c")),
        ("application/dicom", ("application/dicom", b"")),
        ("text/html; charset=utf-8", ("text/html", b"")),
        ("", ("text/plain", b"")),
        ("multipart/related; boundary=" + "x" * 500, ("multipart/related", b"x" * 70)),
    ],
)
def test_the_boundary_is_read_from_the_header_field(text: str, expected: tuple[str, bytes]) -> None:
    assert boundary_of(text) == expected


def test_without_a_boundary_there_are_no_parts() -> None:
    with pytest.raises(MultipartInvalid, match="without a boundary"):
        _read(b"--\r\n", b"")

"""Damaged byte strings without end, each a function of its seed: by structure where it is known, else byte by byte.

Knows the framing of PDUs and PDVs, and no node code.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

CORPUS = Path(__file__).parent / "soak" / "corpus"
"""Recorded associations, and every input that once found something."""
NUMBERS = (0, 1, 2, 3, 4, 5, 6, 7, 0x7F, 0x80, 0xFF, 0x100, 0x101, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x10000)
LARGE = (0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF)
Pdv = tuple[int, int, int, bytes]
"""Claimed length (-1: the true one), context, control header, content."""


def corpus(kind: str) -> list[bytes]:
    """Every input that is kept of a kind, in an order that is always the same."""
    return [path.read_bytes() for path in sorted((CORPUS / kind).iterdir()) if path.is_file()]


def damaged(content: bytes, chance: random.Random, *, most: int = 6) -> bytes:
    """Some bytes of it changed, lost, doubled or moved."""
    raw = bytearray(content)
    for _ in range(chance.randint(1, most)):
        at = chance.randrange(len(raw) + 1)
        match chance.randrange(7):
            case 0 if at < len(raw):
                raw[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(raw):
                raw[at] = chance.randrange(256)
            case 2:
                order, width = chance.choice(((">", "H"), ("<", "H"), (">", "I"), ("<", "I")))
                number = chance.choice(NUMBERS if width == "H" else (*NUMBERS, *LARGE))
                found = struct.pack(order + width, number & (0xFFFF if width == "H" else 0xFFFFFFFF))
                raw[at : at + len(found)] = found
            case 3:
                del raw[at : at + _length(chance, len(raw))]
            case 4:
                raw[at:at] = raw[at : at + _length(chance, len(raw))]
            case 5:
                raw[at:at] = chance.randbytes(_length(chance, 64))
            case _:
                del raw[chance.randint(at, len(raw)) :]
    return bytes(raw)


def _length(chance: random.Random, most: int) -> int:
    return min(most, chance.choice((1, 1, 2, 4, 6, 8, 12, 16, 100, 1000)))


def split_pdus(stream: bytes) -> list[tuple[int, bytes]]:
    """PDUs by type, the last perhaps cut off."""
    found, at = [], 0
    while at + 6 <= len(stream):
        kind, length = struct.unpack_from(">BxI", stream, at)
        found.append((kind, stream[at + 6 : at + 6 + length]))
        at += 6 + length
    return found


def split_pdvs(body: bytes) -> list[Pdv]:
    found: list[Pdv] = []
    at = 0
    while at + 6 <= len(body):
        length, context, control = struct.unpack_from(">IBB", body, at)
        found.append((-1, context, control, body[at + 6 : at + 4 + max(2, length)]))
        at += max(6, 4 + length)
    return found


def joined(pdvs: Sequence[Pdv]) -> bytes:
    return b"".join(
        struct.pack(">IBB", len(content) + 2 if claimed < 0 else claimed, context, control) + content
        for claimed, context, control, content in pdvs
    )


def _pdu(kind: int, body: bytes, claimed: int = -1) -> bytes:
    return struct.pack(">BBI", kind, 0, len(body) if claimed < 0 else claimed) + body


def association(seeds: Sequence[bytes], chance: random.Random, *, most: int = 4096) -> bytes:
    """The stream of an accepted association, made of recorded ones, with its framing kept right where it is not hit."""
    pdus = split_pdus(chance.choice(seeds))
    if chance.random() < 0.2:
        pdus = [*pdus[: chance.randrange(len(pdus) + 1)], *split_pdus(chance.choice(seeds))]
    for _ in range(chance.choice((0, 1, 1, 2, 3, 5))):
        if pdus:
            _STEPS[chance.randrange(len(_STEPS))](pdus, chance)
    stream = b"".join(_pdu(kind, body, _claim(chance, body)) for kind, body in pdus)
    if chance.random() < 0.4:
        stream = damaged(stream, chance, most=3)
    return stream[:most]


def _claim(chance: random.Random, body: bytes) -> int:
    if chance.random() < 0.98:
        return -1
    return chance.choice((*NUMBERS, *LARGE, len(body) + 1, max(0, len(body) - 1)))


def _drop(pdus: list[tuple[int, bytes]], chance: random.Random) -> None:
    del pdus[chance.randrange(len(pdus))]


def _double(pdus: list[tuple[int, bytes]], chance: random.Random) -> None:
    pdus.insert(chance.randrange(len(pdus) + 1), chance.choice(pdus))


def _swap(pdus: list[tuple[int, bytes]], chance: random.Random) -> None:
    a, b = chance.randrange(len(pdus)), chance.randrange(len(pdus))
    pdus[a], pdus[b] = pdus[b], pdus[a]


def _other(pdus: list[tuple[int, bytes]], chance: random.Random) -> None:
    kind = chance.choice((0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 0x2A, 0xFF))
    pdus.insert(chance.randrange(len(pdus) + 1), (kind, bytes(chance.choice((0, 3, 4, 4, 5, 68)))))


def _merge(pdus: list[tuple[int, bytes]], chance: random.Random) -> None:
    at = chance.randrange(len(pdus))
    if at + 1 < len(pdus) and pdus[at][0] == pdus[at + 1][0] == 4:
        pdus[at : at + 2] = [(4, pdus[at][1] + pdus[at + 1][1])]


def _cut_up(pdus: list[tuple[int, bytes]], chance: random.Random) -> None:
    """A PDV in two, in one PDU or in two."""
    at, pdvs, n = _some_pdv(pdus, chance)
    if n < 0:
        return
    claimed, context, control, content = pdvs[n]
    place = chance.randrange(len(content) + 1)
    pdvs[n : n + 1] = [(claimed, context, control & ~2, content[:place]), (-1, context, control, content[place:])]
    if chance.random() < 0.5:
        pdus[at : at + 1] = [(4, joined(pdvs[: n + 1])), (4, joined(pdvs[n + 1 :]))]
    else:
        pdus[at] = (4, joined(pdvs))


def _bend(pdus: list[tuple[int, bytes]], chance: random.Random) -> None:
    """Another context, control header, content or length of a PDV."""
    at, pdvs, n = _some_pdv(pdus, chance)
    if n < 0:
        return
    claimed, context, control, content = pdvs[n]
    match chance.randrange(5):
        case 0:
            context = chance.choice((0, 1, 2, 3, 5, 19, 255))
        case 1:
            control = chance.choice((0, 1, 2, 3, 0xFC, 0xFF, 0x80))
        case 2:
            content = damaged(content, chance, most=2)
        case 3:
            content = _command_bent(content, chance)
        case _:
            claimed = chance.choice((*NUMBERS, *LARGE, len(content), len(content) + 1, len(content) + 3))
    pdvs[n] = (claimed, context, control, content)
    pdus[at] = (4, joined(pdvs))


def _command_bent(content: bytes, chance: random.Random) -> bytes:
    """One element of a command set with another value, its lengths right."""
    elements, at = [], 0
    while at + 8 <= len(content):
        group, element, length = struct.unpack_from("<HHI", content, at)
        elements.append((group, element, content[at + 8 : at + 8 + length]))
        at += 8 + length
    if not elements:
        return content
    n = chance.randrange(len(elements))
    group, element, value = elements[n]
    short = struct.pack(
        "<H", chance.choice((0, 1, 0x0101, 0x20, 0x30, 0x0FFF, 0x8001, 0x8030, chance.randrange(65536)))
    )
    uid = chance.choice(
        (b"", b" ", b"\0", b"1.2.3", b"1" * 64, b"1" * 65, b"../../x", b"1\n2", b"1\x7f", b"\xe4", b"a b")
    )
    elements[n] = (group, element, chance.choice((short, short, uid, uid, b"", value * 2, chance.randbytes(3))))
    if chance.random() < 0.1:
        elements.insert(n, elements[chance.randrange(len(elements))])
    return b"".join(struct.pack("<HHI", g, e, len(v)) + v for g, e, v in elements)


def _some_pdv(pdus: list[tuple[int, bytes]], chance: random.Random) -> tuple[int, list[Pdv], int]:
    at = chance.randrange(len(pdus))
    pdvs = split_pdvs(pdus[at][1]) if pdus[at][0] == 4 else []
    return at, pdvs, chance.randrange(len(pdvs)) if pdvs else -1


_STEPS: tuple[Callable[[list[tuple[int, bytes]], random.Random], None], ...] = (
    *(_drop, _double, _swap, _other, _merge),
    *(_cut_up, _cut_up, _bend, _bend, _bend, _bend),
)

"""What the receivers of a node must know of each other: associations that are open, connections of the last minute.

Files that they share, each with a part that only its receiver writes. Knows no connection.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

STEP_S = 10
"""The minute goes on in steps of this length."""
STEPS = 60 // STEP_S
ADDRESSES = 512
"""Addresses of which one receiver knows when they connected; one more takes the place of the one seen longest ago."""


def _number(address: str) -> int:
    """What stands for an address; never 0."""
    return zlib.crc32(address.encode()) or 1


class _File:
    """A file that the receivers share, in memory, and the turn to look at it and change it with no other in between."""

    def __init__(self, path: Path, size: int) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if os.fstat(self._handle).st_size < size:
            # With its room on the disk: a hole in it would kill who writes there when the disk is full.
            os.posix_fallocate(self._handle, 0, size)
        self.map = mmap.mmap(self._handle, size)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """The kernel lets go of it when its holder dies."""
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._handle, fcntl.LOCK_UN)

    def close(self) -> None:
        self.map.close()
        os.close(self._handle)


class Headcount:
    """How many associations each receiver of the node has, and with whom, in a file that they share.

    A slot is the count, and for each association a number that stands for the peer's address.
    """

    _NUMBER = struct.Struct("=I")

    def __init__(self, path: Path, *, slot: int, slots: int, most: int) -> None:
        """`most`: associations of one receiver."""
        self._most = most
        self._length = self._NUMBER.size * (1 + most)
        self._slot, self._slots = slot, slots
        self._file = _File(path, self._length * slots)
        self._map = self._file.map
        self.alone = self._file.alone
        """While this lasts no other receiver is in it: what is published goes by what was looked at."""
        self.publish([])

    def publish(self, addresses: Sequence[str]) -> None:
        """The peers of this receiver's associations."""
        numbers = [_number(address) for address in addresses[: self._most]]
        struct.pack_into(f"={1 + len(numbers)}I", self._map, self._slot * self._length, len(addresses), *numbers)

    def others(self) -> int:
        """The associations of all other receivers."""
        return sum(count for count, _ in self._other_slots())

    def others_of(self, address: str) -> int:
        """Those with one peer."""
        number = _number(address)
        return sum(numbers.count(number) for _, numbers in self._other_slots())

    def _other_slots(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        for slot in range(self._slots):
            if slot != self._slot:
                start = slot * self._length
                (count,) = self._NUMBER.unpack_from(self._map, start)
                there = min(count, self._most)
                yield count, struct.unpack_from(f"={there}I", self._map, start + self._NUMBER.size)

    def close(self) -> None:
        self.publish([])
        self._file.close()


class Frequency:
    """How often each address has connected in the last minute, to any receiver, in a file that they share.

    A slot is a row of entries: the number of an address, the step of its last connection, the second at which it was
    complained of, and a count for each of the last steps. The clock is the machine's monotonic one, which all processes
    share and nobody sets back; what an earlier start of the machine has left is of no step that counts.
    """

    _NUMBER = struct.Struct("=I")
    _ENTRY = struct.Struct(f"={3 + STEPS}I")

    def __init__(
        self, path: Path, *, slot: int, slots: int, clock: Callable[[], float] = time.monotonic, room: int = ADDRESSES
    ) -> None:
        """`room`: addresses that one receiver remembers."""
        self._length = self._ENTRY.size * room
        self._slot, self._slots, self._clock, self._room = slot, slots, clock, room
        self._file = _File(path, self._length * slots)
        self._map = self._file.map
        start = slot * self._length
        self._map[start : start + self._length] = bytes(self._length)
        self._places: dict[int, int] = {}

    def admit(self, address: str, most: int) -> bool:
        """Whether the address has had fewer connections than `most` in the last minute; then this one counts, too."""
        number, step = _number(address), int(self._clock()) // STEP_S
        place = self._place(number)
        with self._file.alone():
            told, counts = self._entry(place, number, step)
            if sum(counts) + sum(sum(self._entry(other, number, step)[1]) for other in self._elsewhere(number)) >= most:
                return False
            counts[step % STEPS] += 1
            self._ENTRY.pack_into(self._map, place, number, step, told, *counts)
        return True

    def worth_telling(self, address: str) -> bool:
        """Whether no receiver has complained of the address for a minute; the caller does it now."""
        number, now = _number(address), int(self._clock())
        place = self._place(number)
        for one in (place, *self._elsewhere(number)):
            there, _, told, *_ = self._ENTRY.unpack_from(self._map, one)
            if there == number and told and 0 <= now - told < STEP_S * STEPS:
                return False
        _, counts = self._entry(place, number, now // STEP_S)
        self._ENTRY.pack_into(self._map, place, number, now // STEP_S, max(1, now), *counts)
        return True

    def _place(self, number: int) -> int:
        """Where the address's entry of ours is; the one used longest ago makes room for a new one."""
        found = self._places.pop(number, None)
        if found is None:
            if len(self._places) >= self._room:
                found = self._places.pop(next(iter(self._places)))
            else:
                found = self._slot * self._length + len(self._places) * self._ENTRY.size
        # Behind all others: the last one used.
        self._places[number] = found
        return found

    def _elsewhere(self, number: int) -> Iterator[int]:
        """Where the address's entries of the other receivers are."""
        wanted = self._NUMBER.pack(number)
        for start in range(0, self._slots * self._length, self._length):
            if start == self._slot * self._length:
                continue
            at = self._map.find(wanted, start, start + self._length)
            while at >= 0 and (at - start) % self._ENTRY.size:
                # A count, or a part of two, that looks like it.
                at = self._map.find(wanted, at + 1, start + self._length)
            if at >= 0:
                yield at

    def _entry(self, place: int, number: int, step: int) -> tuple[int, list[int]]:
        """When it was complained of, and the counts of the last minute; nought is what was longer ago."""
        there, last, told, *counts = self._ENTRY.unpack_from(self._map, place)
        if there != number:
            return 0, [0] * STEPS
        if not 0 <= step - last < STEPS:
            return told, [0] * STEPS
        for passed in range(last + 1, step + 1):
            counts[passed % STEPS] = 0
        return told, counts

    def close(self) -> None:
        self._file.close()

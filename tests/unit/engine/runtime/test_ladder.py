"""Memory that runs out: smaller pieces, then the CPU, then a fault; never other pixels."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import METHODS, Bank, DeviceFault, Engine, EngineSettings, Harmonized, Image, build_bank
from engine.runtime import Place, count_in_strips, first_that_holds, in_strips, places
from tests.unit.engine.pictures import EXAM, chest, image_of, references

ROOT = Path(__file__).parents[4]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIDE = 2400


@pytest.fixture(scope="module")
def bank() -> Bank:
    return build_bank("drawn", EXAM, references(6))


def test_a_gpu_is_tried_whole_then_in_strips_then_the_cpu_likewise() -> None:
    assert [str(place) for place in places(CUDA)] == [
        "cuda",
        "cuda in strips of 256 rows",
        "cpu",
        "cpu in strips of 256 rows",
    ]
    assert [str(place) for place in places(CPU)] == ["cpu", "cpu in strips of 256 rows"]


def test_an_image_in_strips_stays_off_the_device() -> None:
    assert [place.home.type for place in places(CUDA)] == ["cuda", "cpu", "cpu", "cpu"]


@pytest.mark.parametrize("rows", [1, 7, 256, 1000])
def test_strips_put_together_are_the_whole(rows: int) -> None:
    codes = torch.arange(300 * 20, dtype=torch.int32).reshape(1, 300, 20) % 97
    place = Place(CPU, rows)
    assert torch.equal(in_strips(place, lambda c: c * 2, codes), codes * 2)
    counted = count_in_strips(place, lambda c: torch.bincount(c.flatten(), minlength=100), codes)
    assert torch.equal(counted, torch.bincount(codes.flatten(), minlength=100))


def test_the_first_rung_that_holds_is_taken_and_told_what_failed_before() -> None:
    def work(place: Place, failed: tuple[str, ...]) -> tuple[str, ...]:
        if place.rows is None:
            raise torch.OutOfMemoryError("CUDA out of memory\nand a hint")
        return failed

    assert first_that_holds(CPU, work) == ("cpu: out of memory (CUDA out of memory)",)


def test_every_failure_is_named_when_nothing_holds() -> None:
    def work(place: Place, _: tuple[str, ...]) -> None:
        raise MemoryError(f"on {place}")

    with pytest.raises(DeviceFault, match=r"on cpu\); cpu in strips of 256 rows: .*on cpu in strips"):
        first_that_holds(CPU, work)


def test_a_fault_that_is_not_the_devices_is_not_tried_again() -> None:
    tried: list[Place] = []

    def work(place: Place, _: tuple[str, ...]) -> None:
        tried.append(place)
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        first_that_holds(CPU, work)
    assert len(tried) == 1


@pytest.mark.parametrize("method", METHODS)
def test_strips_give_the_same_bits_as_the_whole_image(method: str, bank: Bank) -> None:
    shown = image_of(chest(seed=50) ** 1.9)
    padding = torch.zeros_like(shown.padding)
    padding[:, :40, :50] = True
    image = Image(torch.where(padding, torch.zeros(()), shown.values), padding, shown.levels)
    settings = EngineSettings(device="cpu", max_tone_residual=1.0, max_clipped_share=1.0, max_slope=1e6, min_slope=0.0)
    engine = Engine(settings, {bank.name: bank})
    ready = engine._banks[bank.name]
    whole = engine._decide(image, ready, (method,), Place(CPU))
    strips = engine._decide(image, ready, (method,), Place(CPU, 37))
    assert whole.trace == strips.trace
    assert whole.trace.place != strips.trace.place
    assert isinstance(whole, Harmonized)
    assert isinstance(strips, Harmonized)
    assert torch.equal(whole.values, strips.values)


def limited(headroom_mib: int) -> None:
    """A real limit on the address space of this process, from where it is now."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (headroom_mib << 20), hard))


def unlimited() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def decide_with_little_room() -> None:
    """In a process of its own: decide about an image with plenty of room, with far too little, and with plenty."""
    bank = build_bank("drawn", EXAM, references(6))
    engine = Engine(EngineSettings(device="cpu"), {"drawn": bank})
    tone = chest(seed=50) ** 1.9
    large = image_of(np.kron(tone, np.ones((SIDE // tone.shape[0] + 1,) * 2))[:SIDE, :SIDE])
    for headroom in (4000, 10, 4000):
        limited(headroom)
        try:
            (decided,) = engine.run([large], "drawn")
            assert isinstance(decided, Harmonized)
            said = hashlib.sha256(decided.values.numpy().tobytes()).hexdigest()
            del decided
        except DeviceFault as fault:
            said = str(fault)
        finally:
            unlimited()
        print(json.dumps(said), flush=True)


def work_with_little_room() -> None:
    """In a process of its own: a step whose middle is larger than the room there is, but for strips."""
    image = torch.rand(1, 4096, 4096)
    wanted = float((image[:, -1].double() * 3).sum())
    limited(150)
    made, failed = first_that_holds(
        CPU, lambda place, failed: (in_strips(place, lambda x: (x.double() * 3).float(), image), failed)
    )
    unlimited()
    assert float(made[:, -1].double().sum()) == pytest.approx(wanted)
    print(json.dumps(failed))


def in_child(function: str) -> list[str]:
    code = f"from {__name__} import {function}; {function}()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
        # One arena: what a thread frees is then at hand for all, and the limit means what it says.
        env={**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_memory_that_really_runs_out_leads_to_strips() -> None:
    (line,) = in_child("work_with_little_room")
    (failed,) = json.loads(line)
    assert "cpu: out of memory" in failed


def test_an_engine_without_memory_says_so_and_works_as_before_once_there_is_some() -> None:
    before, without, after = (json.loads(line) for line in in_child("decide_with_little_room"))
    assert before == after
    assert "cpu: out of memory" in without
    assert "cpu in strips of 256 rows: cpu: out of memory" in without

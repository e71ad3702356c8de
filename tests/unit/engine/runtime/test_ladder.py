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
HEADROOM_MIB = (10, 60, 80, 100, 1000)
"""From too little for anything to more than enough for an image of SIDE squared."""


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


def run_out_of_memory() -> None:
    """In a process of its own: decide with ever more room under a real limit; one line of JSON for each."""
    bank = build_bank("drawn", EXAM, references(6))
    engine = Engine(EngineSettings(device="cpu"), {"drawn": bank})
    tone = chest(seed=50) ** 1.9
    large = image_of(np.kron(tone, np.ones((SIDE // tone.shape[0] + 1,) * 2))[:SIDE, :SIDE])
    engine.run([image_of(tone)], "drawn")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    for headroom in HEADROOM_MIB:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + (headroom << 20), hard))
        try:
            (decided,) = engine.run([large], "drawn")
            assert isinstance(decided, Harmonized)
            digest = hashlib.sha256(decided.values.numpy().tobytes()).hexdigest()
            said = {"place": decided.trace.place, "setbacks": decided.trace.setbacks, "digest": digest}
            del decided
        except DeviceFault as fault:
            said = {"fault": str(fault)}
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        print(json.dumps({"headroom": headroom, **said}), flush=True)


def test_memory_that_really_runs_out_leads_to_strips_with_the_same_pixels_then_to_a_fault() -> None:
    code = f"from {__name__} import run_out_of_memory; run_out_of_memory()"
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
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(runs) == len(HEADROOM_MIB)
    assert "out of memory" in runs[0]["fault"]
    assert runs[-1]["place"] == "cpu"
    strips = [run for run in runs if "strips" in run.get("place", "")]
    assert strips, done.stdout
    assert all("out of memory" in run["setbacks"][0] for run in strips)
    assert {run["digest"] for run in runs if "digest" in run} == {runs[-1]["digest"]}

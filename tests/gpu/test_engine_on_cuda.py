"""The engine on CUDA decides as it does on the CPU, to the bit. Skipped where there is no CUDA device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from engine import METHODS, Decided, Engine, EngineSettings, Harmonized, Image, default_banks
from engine.phantom import VENDORS, make_phantom
from engine.runtime import Place

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
ROOM = 96 << 20
"""Bytes that the process may hold on the device: too few for an image of 4096 squared, enough for its strips."""


def image_of(vendor: str, size: int) -> Image:
    shown = torch.from_numpy(make_phantom(1, vendor, size).shown)[None]
    return Image(shown, torch.zeros_like(shown, dtype=torch.bool), levels=4096)


def assert_same(one: Decided, other: Decided) -> None:
    assert type(one) is type(other)
    assert one.trace == other.trace
    if isinstance(one, Harmonized) and isinstance(other, Harmonized):
        assert torch.equal(one.values.cpu(), other.values.cpu())


@pytest.fixture
def little_room() -> Iterator[None]:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(ROOM / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("vendor", sorted(VENDORS))
def test_cuda_and_cpu_give_the_same_bits(vendor: str, method: str) -> None:
    image = image_of(vendor, 512)
    on_cpu, on_cuda = (
        Engine(EngineSettings(device=device), default_banks()).run([image], "chest_frontal", [method])[0]
        for device in ("cpu", "cuda")
    )
    assert_same(on_cpu, on_cuda)


def test_strips_on_cuda_give_the_same_bits() -> None:
    image = image_of("Meridian", 512)
    engine = Engine(EngineSettings(device="cuda"), default_banks())
    ready = engine._banks["chest_frontal"]
    whole, strips = (
        engine._decide(image, ready, ("fitted_curve",), Place(engine.device, rows)) for rows in (None, 100)
    )
    assert_same(whole, strips)


@pytest.mark.usefixtures("little_room")
def test_a_gpu_that_is_full_leads_to_strips_with_the_same_pixels() -> None:
    image = image_of("Meridian", 4096)
    (on_cpu,) = Engine(EngineSettings(device="cpu"), default_banks()).run([image], "chest_frontal")
    (on_cuda,) = Engine(EngineSettings(device="cuda"), default_banks()).run([image], "chest_frontal")
    assert on_cuda.trace.place == "cuda in strips of 256 rows"
    assert "out of memory" in on_cuda.trace.setbacks[0]
    assert_same(on_cpu, on_cuda)


def test_a_gpu_without_any_room_leads_to_the_cpu() -> None:
    image = image_of("Meridian", 512)
    engine = Engine(EngineSettings(device="cuda"), default_banks())
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-9)
    try:
        (decided,) = engine.run([image], "chest_frontal")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert decided.trace.place == "cpu"
    assert len(decided.trace.setbacks) == 2

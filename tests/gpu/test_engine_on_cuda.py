"""The engine on CUDA decides as it does on the CPU. Skipped where there is no CUDA device."""

from __future__ import annotations

import pytest
import torch

from engine import Engine, EngineSettings, Harmonized, Image, default_banks
from engine.phantom import VENDORS, make_phantom

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.mark.parametrize("vendor", sorted(VENDORS))
def test_cuda_and_cpu_decide_alike_and_to_the_same_grey_codes(vendor: str) -> None:
    shown = torch.from_numpy(make_phantom(1, vendor, 512).shown)[None]
    image = Image(shown, torch.zeros_like(shown, dtype=torch.bool), levels=4096)
    on_cpu, on_cuda = (
        Engine(EngineSettings(device=device), default_banks()).run([image], "chest_frontal")[0]
        for device in ("cpu", "cuda")
    )
    assert type(on_cpu) is type(on_cuda)
    assert on_cuda.trace.distance_before == pytest.approx(on_cpu.trace.distance_before, rel=1e-4)
    if isinstance(on_cpu, Harmonized) and isinstance(on_cuda, Harmonized):
        difference = (on_cpu.values - on_cuda.values.cpu()).abs().max()
        assert float(difference) <= 1.01 / 4095

"""What a process must load for the part of the destinations that it uses."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["dicom_node.destinations.commitment", "dicom_node.destinations"])
def test_a_receiver_takes_commitment_reports_without_loading_numpy_or_decoders(module: str) -> None:
    program = f"""
import sys
sys.modules["numpy"] = None
import {module}
loaded = [name for name in sys.modules if name.startswith("dicom_node.")]
assert not [name for name in loaded if name.endswith((".dimse", ".transcode", ".folder", ".codecs"))], loaded
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr

"""The independent judge of ../shared/acceptance, which knows nothing of this code, on a running node and Orthanc."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from dicom_node.settings import ResultObject
from tests.node import ROOT, node
from tests.peers import ENVIRONMENT, LOOPBACK, free_port, orthanc, require

pytestmark = [pytest.mark.peers, pytest.mark.data]

SHARED = ROOT.parent / "shared"
JUDGE = SHARED / "acceptance" / "roundtrip.py"
FILES, INDEX = SHARED / "data" / "dicom", SHARED / "data" / "index.csv"
QUIET_S = 10
"""Without a new object in the PACS for this long, the judge takes the node to be done."""


@pytest.mark.parametrize("more", [{}, {"objects": list(get_args(ResultObject))}], ids=["as_shipped", "every_object"])
def test_the_independent_judge_finds_no_fault_between_modality_and_pacs(tmp_path: Path, more: dict[str, Any]) -> None:
    missing = [str(path) for path in (JUDGE, FILES, INDEX) if not path.exists()]
    if missing:
        pytest.skip(f"the judge or its data is not here: {', '.join(missing)}")
    require("Orthanc", "storescu", "echoscu", "dciodvfy", "DicomSRValidator", "dcmpschk")
    port = free_port()
    with orthanc(tmp_path, node=("EVENRAY", LOOPBACK, port)) as pacs:
        where = {"kind": "dimse", "ae_title": "ORTHANC", "host": LOOPBACK, "port": pacs.port, "commitment": True}
        quiet = {"quiet_s": 4, "quiet_after_release_s": 2}
        routes = [{"name": "radiographs", "destinations": ["pacs"], **more}]
        with node(tmp_path, {"pacs": where}, port=port, assembly=quiet, routes=routes) as made:
            command = [sys.executable, str(JUDGE), "--node", f"EVENRAY@{LOOPBACK}:{port}", "--pacs", pacs.url]
            command += ["--files", str(FILES), "--index", str(INDEX), "--quiet", str(QUIET_S), "--timeout", "300"]
            environment = {**os.environ, **ENVIRONMENT, "PYTHONWARNINGS": "ignore"}
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=900, check=False, env=environment, cwd=tmp_path
            )
            verdict = (done.stdout.strip().splitlines() or [""])[-1]
            faults = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
            assert faults == [], made.log()[-3000:]
            assert re.fullmatch(r"[1-9]\d* passed, 0 failed", verdict), done.stdout[-2000:] + done.stderr[-2000:]
            assert done.returncode == 0
            assert set(made.counts()["delivery"]) == {"delivered"}

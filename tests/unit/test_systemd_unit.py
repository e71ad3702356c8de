"""The unit file: what systemd says of it, and what must fit to the settings' defaults."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_node.exits import Exit
from dicom_node.settings import Settings
from dicom_node.supervise import DRAIN_MARGIN_S

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "evenray.service"
PROGRAM = "/opt/evenray/bin/evenray"


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    unit.read(UNIT)
    return unit["Service"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not there")
def test_systemd_finds_no_fault_in_it(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    text = UNIT.read_text()
    assert PROGRAM in text
    unit.write_text(text.replace(PROGRAM, str(Path(sys.executable).with_name("evenray"))))
    ran = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60, check=False)
    said = ran.stdout + ran.stderr
    assert (ran.returncode, [line for line in said.splitlines() if UNIT.name in line]) == (0, []), said


def test_it_waits_for_ready_and_for_signs_of_life(service: configparser.SectionProxy) -> None:
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) >= 30
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == str(int(Exit.USAGE))


def test_a_stop_waits_longer_than_the_node_drains(service: configparser.SectionProxy) -> None:
    assert int(service["TimeoutStopSec"]) > Settings().listen.drain_s + DRAIN_MARGIN_S
    assert service["KillMode"] == "mixed"


def test_it_may_write_its_state_and_nothing_else(service: configparser.SectionProxy) -> None:
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ReadWritePaths"] in service["ExecStart"]

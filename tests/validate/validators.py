"""Run one validator of others on files and say what it said, line by line. Judges nothing, and trusts no silence.

A validator that crashed, was given no file, or talked of something else has found nothing wrong either: what it must
have said when it is done is looked for, and each line that is not understood counts as an error.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.peers import ENVIRONMENT

LONGEST_S = 600
# Java 17 refuses PixelMed's style sheet without the first three; the others halve its time, most of which goes into
# compiling code for a single run.
JAVA = (
    "-Djdk.xml.xpathTotalOpLimit=0 -Djdk.xml.xpathExprGrpLimit=0 -Djdk.xml.xpathExprOpLimit=0"
    " -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
)


class Level(StrEnum):
    """What a line of a validator is."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Remark:
    """One thing that a validator said of files."""

    level: Level
    text: str


def dciodvfy(path: Path) -> list[Remark]:
    """dicom3tools: modules and attributes of any object. It names the IOD that it took the object for."""
    done = _run("dciodvfy", path)
    iod, remarks = "", []
    for line in _lines(done):
        if re.fullmatch(r"[A-Za-z0-9]+", line):
            iod = line
        else:
            remarks.append(_of_dicom3tools(line))
    if not iod:
        remarks.append(Remark(Level.ERROR, "dciodvfy did not say which object it checked"))
    return _with_status(done, remarks)


def dcentvfy(*paths: Path) -> list[Remark]:
    """dicom3tools: whether the objects of one study agree about patient, study, series and equipment."""
    done = _run("dcentvfy", *paths)
    # It names the files of each difference, which differ from run to run.
    told = [re.sub(r" for file <.*", "", line) for line in _lines(done)]
    return _with_status(done, [_of_dicom3tools(line) for line in told])


def dcmpschk(path: Path) -> list[Remark]:
    """DCMTK: a presentation state, as one that would show it reads it."""
    done = _run("dcmpschk", "-v", path)
    said = "\n".join(_lines(done))
    # A remark takes several lines, the first of which does not start with blanks or an element.
    found = re.findall(
        r"^([EFW]): (?! |\(|Testing|Test passed|Test failed)(.+(?:\n[EFW]: (?: |\().+)*)", said, re.MULTILINE
    )
    remarks = [Remark(Level.WARNING if level == "W" else Level.ERROR, " ".join(text.split())) for level, text in found]
    passed = "Pass 3" in said and "Test passed" in said
    if not passed and not ("Test failed" in said and remarks):
        remarks.append(Remark(Level.ERROR, "dcmpschk did not say that the test was passed"))
    return _with_status(done, remarks)


def dsrdump(path: Path) -> list[Remark]:
    """DCMTK: a structured report, read into a tree by its rules and printed."""
    done = _run("dsrdump", path)
    remarks = [
        Remark(Level.WARNING if line.startswith("W:") else Level.ERROR, line)
        for line in map(str.strip, done.stderr.splitlines())
        if line
    ]
    if "<CONTAINER:" not in done.stdout:
        remarks.append(Remark(Level.ERROR, "dsrdump printed no content"))
    return _with_status(done, remarks)


def pixelmed(path: Path) -> list[Remark]:
    """PixelMed's validator of reports, as the IHE Connectathons use it: the IOD and the templates of its content."""
    done = _run("DicomSRValidator", path, JAVA_TOOL_OPTIONS=JAVA)
    remarks = []
    for line in done.stdout.splitlines():
        if line.startswith(("Error", "Warning")):
            level = Level.ERROR if line.startswith("Error") else Level.WARNING
            remarks.append(Remark(level, re.sub(r"^(\w+: )[\d.]+: ", r"\1", line)))
    if "IOD validation complete" not in done.stdout or "Root Template Validation Complete" not in done.stdout:
        said = " ".join((done.stdout + done.stderr).split())[-200:]
        remarks.append(Remark(Level.ERROR, f"DicomSRValidator did not come to its end: {said}"))
    return _with_status(done, remarks)


OF_ONE: dict[str, Callable[[Path], list[Remark]]] = {
    "dciodvfy": dciodvfy,
    "dcmpschk": dcmpschk,
    "dsrdump": dsrdump,
    "DicomSRValidator": pixelmed,
}
"""Those that look at one file."""
PROGRAMS = (*OF_ONE, "dcentvfy")


def _run(program: str, *arguments: Path | str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=LONGEST_S,
        env={**os.environ, **ENVIRONMENT, **more},
    )


def _lines(done: subprocess.CompletedProcess[str]) -> Sequence[str]:
    return [line.rstrip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]


def _of_dicom3tools(line: str) -> Remark:
    """Error, Warning, or something that it did not expect itself."""
    return Remark(Level.WARNING if line.startswith("Warning - ") else Level.ERROR, line)


def _with_status(done: subprocess.CompletedProcess[str], remarks: list[Remark]) -> list[Remark]:
    """A bad exit status without a reason is one."""
    if done.returncode and not any(one.level is Level.ERROR for one in remarks):
        remarks.append(Remark(Level.ERROR, f"{done.args[0]} ended with {done.returncode} and gave no reason"))
    return remarks

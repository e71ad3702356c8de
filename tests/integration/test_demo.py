"""`evenray demo` as a person runs it: a real node, real associations, files and pictures that can be looked at."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from dicom_node.demo.archive import Archive
from dicom_node.demo.findings import MISSING, read_back
from dicom_node.demo.given import Given
from dicom_node.demo.study import ROOMS, make_study
from dicom_node.results.report_text import parse_report
from tests.peers import LOOPBACK, free_port, wait_until

DATA = Path(__file__).parents[3] / "shared" / "data" / "dicom"
SMALL = (320, 268)
PATIENCE_S = 240


def demo(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; warnings of Python are errors, as in every test."""
    return subprocess.run(
        command(out, *options),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error", "COLUMNS": "120"},
    )


def command(out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "dicom_node", "demo", "--out", str(out), *options]


def left_running(out: Path) -> list[str]:
    """Processes that were started with a path of this demo."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(str(out).encode() in word for word in words):
            found.append(b" ".join(words).decode())
    return found


def rows_of(said: str) -> list[str]:
    """The first line of every row of the table of decisions."""
    table = said[said.index("What was decided") : said.index("Where the harmonized images are")]
    return [line for line in table.splitlines() if re.match(r"│ +\d+ │", line)]


def contrast(path: Path) -> float:
    return float(np.asarray(Image.open(path).convert("L")).std())


def check_that_damage_in_the_archive_is_noticed(out: Path, copy: Path) -> None:
    """What the demo says of the archive is read from its bytes: one other byte, or a missing report, is a finding."""
    sent = [
        Given(n, path.stem, path, str(dcmread(path, stop_before_pixels=True).SOPInstanceUID))
        for n, path in enumerate(sorted((out / "sent").iterdir()), start=1)
    ]
    shutil.copytree(out / "archive", copy)
    held = Archive(copy, "PACS", LOOPBACK, free_port())
    held.start()
    held.stop()
    sound = read_back(sent, held.instances(), {})
    assert [one.faults for one in sound] == [()] * len(sent)
    original, image = sound[0].original, sound[1].image
    assert original is not None
    assert image is not None
    for path in (original, image):
        path.write_bytes(path.read_bytes()[:-4] + b"\0\1\0\1")
    damaged = read_back(sent, held.instances(), {})
    assert damaged[0].faults == ("its original reached the archive with other bytes",)
    assert damaged[1].faults == ("its harmonized image has other pixels than its report says",)
    missing = read_back(sent, [], {sent[0].uid: "parked: why"})
    assert [one.outcome for one in missing] == [MISSING] * len(sent)
    assert missing[0].reason == "parked: why"


def test_the_demo_shows_the_main_job_and_leaves_nothing_running(tmp_path: Path) -> None:
    out = tmp_path / "shown"
    done = demo(out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert left_running(out) == []

    rows = rows_of(done.stdout)
    assert [row.split("│")[2].strip() for row in rows] == [room.vendor for room in ROOMS]
    assert sum("harmonized" in row for row in rows) >= 3
    assert max(map(len, rows)) <= 120
    assert "All is well: 5 images, 5 outcomes" in done.stdout

    originals = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in (out / "sent").iterdir()}
    (text,) = (out / "reports").iterdir()
    for uid in originals:
        assert uid in text.read_text()
        assert uid in done.stdout
        # Byte for byte what was sent, as a real archive would have it.
        assert (out / "archive" / f"{uid}.dcm").exists()
    made = re.findall(r"archive/\S+\.dcm", done.stdout)
    assert len(made) == len(list((out / "pictures").glob("*-after.png"))) >= 3
    for path in (out / "overview.png", *(out / "pictures").iterdir()):
        assert contrast(path) > 20, path
    assert "PHANTOM" not in done.stdout + (out / "node.log").read_text()

    check_that_damage_in_the_archive_is_noticed(out, tmp_path / "damaged")

    again = demo(out)
    assert again.returncode == 0, again.stdout + again.stderr
    # The same originals and settings: the same results under the same UIDs.
    assert re.findall(r"archive/\S+\.dcm", again.stdout) == made


def test_a_folder_that_no_demo_made_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    done = demo(tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr == f"evenray: {tmp_path}: this folder is not empty and no demo made it: name another with --out\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_persons_folder_with_garbage_and_repeated_uids_is_shown_and_not_changed(tmp_path: Path) -> None:
    folder, out = tmp_path / "mine", tmp_path / "shown"
    folder.mkdir()
    make_study(folder, size=SMALL)
    again = dcmread(folder / "1-norlund.dcm")
    again.ImageComments = "other bytes under the same UID"
    again.save_as(folder / "1-repeated.dcm")
    (folder / "5-graven.dcm").unlink()
    (folder / "garbage.dcm").write_bytes(bytes(range(256)) * 40)
    (folder / "copy.dcm").write_bytes((folder / "2-umbra.dcm").read_bytes())
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done = demo(out, "--input", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    said = " ".join(done.stdout.split())
    assert "1 file is no DICOM object, left out: garbage.dcm" in said
    assert "1 file holds the same data set as another file, left out" in said
    assert "1 file carries a UID that another file carries already" in said
    reports = [path for path in (out / "archive").iterdir() if dcmread(path).Modality == "SR"]
    assert sum(len(parse_report(path)) for path in reports) == 5
    assert "All is well: 5 images, 5 outcomes" in done.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_nothing_is_left_running_when_the_demo_is_stopped(tmp_path: Path, number: signal.Signals, code: int) -> None:
    out = tmp_path / "stopped"
    log = out / "node.log"
    process = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: log.exists() and "listens as" in log.read_text(), 60, "the node listens")
        process.send_signal(number)
        assert process.wait(60) == code
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not left_running(out), 60, "every process of the node has ended")


@pytest.mark.data
def test_the_public_files_are_shown_within_a_minute(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not there")
    begun = time.monotonic()
    done = demo(tmp_path / "shown", "--input", str(DATA))
    took = time.monotonic() - begun
    assert done.returncode == 0, done.stdout + done.stderr
    files = sum(path.is_file() for path in DATA.rglob("*"))
    assert len(rows_of(done.stdout)) == files
    assert "carry a UID that another file carries already" in done.stdout
    assert "conforming" in done.stdout
    assert "harmonized" in done.stdout
    assert done.stderr == ""
    print(f"\n{files} files in {took:.0f} s")

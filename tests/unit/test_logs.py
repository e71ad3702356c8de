"""One event a line, as text or as JSON, whatever a peer calls itself."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator

import pytest

from dicom_node.logs import to_stderr
from dicom_node.settings import Logs

UID = "1.2.826.0.1.3680043.10.1.7"


@pytest.fixture(autouse=True)
def _as_before(recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("dicom_node")
    handlers, level, our_level = root.handlers, root.level, ours.level
    of_threads = threading.excepthook
    yield
    threading.excepthook = of_threads
    root.handlers = handlers
    root.setLevel(level)
    ours.setLevel(our_level)


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_json_names_time_level_role_event_and_ids(capsys: pytest.CaptureFixture[str]) -> None:
    to_stderr("work", Logs(format="json"))
    log = logging.getLogger("dicom_node.test")
    log.info("received instance %d: %s, %d bytes from %s", 12, UID, 99, "127.0.0.1:11112")
    (line,) = _lines(capsys)
    said = json.loads(line)
    assert said.pop("time").endswith("Z")
    assert said.pop("pid") > 1
    assert said == {
        "level": "info",
        "role": "work",
        "event": f"received instance 12: {UID}, 99 bytes from 127.0.0.1:11112",
        "where": "dicom_node.test",
        "instance": 12,
        "uids": [UID],
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_title_with_a_line_break_makes_no_second_line(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    to_stderr("receive 0", Logs(format=form))
    logging.getLogger("dicom_node.test").warning(
        "refused %s", "EVIL\n2026-01-01T00:00:00.000Z INFO serve: all is well\x1b"
    )
    assert len(_lines(capsys)) == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_text_of_an_exception_is_not_written(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    to_stderr("work", Logs(format=form))
    try:
        raise ValueError("Doe^Jane")
    except ValueError:
        logging.getLogger("dicom_node.test").exception("unexpected")
    (line,) = _lines(capsys)
    assert "ValueError" in line
    assert "Doe" not in line


def test_the_level_is_the_least_that_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    to_stderr("work", Logs(level="warning"))
    log = logging.getLogger("dicom_node.test")
    log.info("quiet")
    log.warning("loud")
    logging.getLogger("pydicom").error("(0010,0010) PN 'Doe^Jane'")
    (line,) = _lines(capsys)
    assert line.endswith("WARNING work: loud")


@pytest.mark.parametrize("library", ["pydicom", "pynetdicom.acse"])
def test_what_a_library_quotes_is_not_written_whatever_level_it_gives_itself(
    library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    to_stderr("work", Logs())
    its = logging.getLogger(library)
    level = its.level
    try:
        # pydicom does so when it is imported, which may be later.
        its.setLevel(logging.WARNING)
        its.error("Invalid value for VR PN: 'Doe^Jane'")
    finally:
        its.setLevel(level)
    assert _lines(capsys) == []


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_thread_that_ends_by_an_exception_leaves_one_line(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    to_stderr("receive 0", Logs(format=form))
    thread = threading.Thread(target=lambda: {}["Doe^Jane"])
    thread.start()
    thread.join()
    (line,) = _lines(capsys)
    assert "a thread ended: KeyError in <lambda>" in line
    assert "Doe" not in line

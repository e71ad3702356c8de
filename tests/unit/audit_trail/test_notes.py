"""Notes are durable, for the node alone, bounded, and tell a killed node from one that was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dicom_node.audit_trail import Alerts, Notes, Presence, notes
from dicom_node.settings import Settings
from tests.peers import wait_until


def _settings(folder: Path, transport: str = "udp") -> Settings:
    return Settings.model_validate({"state_dir": str(folder), "audit": {"transport": transport}})


def _all(made: Notes) -> list[dict[str, Any]]:
    return [notes.read(path) for path in made.pending()]


def test_a_note_is_whole_and_for_the_node_alone(tmp_path: Path) -> None:
    made = Notes(_settings(tmp_path))
    made.write("start", at=5.0, pid=1)
    made.asked("pacs", sop_class_uid="1.2", transfer_syntax_uid="1.3", query=b"\x00P1")
    first, second = _all(made)
    assert first == {"kind": "start", "at": 5.0, "pid": 1}
    assert second["query"] == "AFAx"
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "audit").rglob("*")} == {0}


def test_without_a_repository_nothing_is_noted(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "none")
    Notes(settings).write("start")
    alerts = Alerts(Notes(settings))
    alerts.refused("why", "192.0.2.1")
    alerts.close()
    presence = Presence(settings, 1.0)
    presence.started()
    presence.stopped("asked")
    assert not list(tmp_path.rglob("*"))


def test_a_damaged_note_is_none(tmp_path: Path) -> None:
    for content in ("", "[]", '{"kind": 1}', "\udcff".encode(errors="surrogateescape")):
        path = tmp_path / "note.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        assert notes.read(path) == {}


def test_a_full_disk_is_said_and_stops_nobody(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "audit").write_text("a file where the folder should be")
    Notes(_settings(tmp_path)).write("start")
    assert "an audit note (start) could not be kept" in caplog.text


def test_a_start_after_a_stop_is_a_start_alone_and_after_a_kill_tells_of_it(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    first = Presence(settings, 0.0)
    first.started()
    first.stopped("asked by SIGTERM")
    Presence(settings, 10.0).started()
    Presence(settings, 20.0).started()
    found = _all(Notes(settings))
    assert [one["kind"] for one in found] == ["start", "stop", "start", "killed", "start"]
    assert found[3]["at"] == 20.0
    assert found[1]["why"] == "asked by SIGTERM"


def test_who_switches_the_audit_trail_on_again_was_not_killed(tmp_path: Path) -> None:
    Presence(_settings(tmp_path), 0.0).started()
    Presence(_settings(tmp_path, "none"), 1.0).started()
    Presence(_settings(tmp_path), 2.0).started()
    assert [one["kind"] for one in _all(Notes(_settings(tmp_path)))] == ["start", "start"]


def test_many_refusals_of_one_address_are_two_notes(tmp_path: Path) -> None:
    made = Notes(_settings(tmp_path))
    alerts = Alerts(made)
    alerts.refused("its title is unknown", "192.0.2.1", "STRANGER")
    wait_until(made.pending, 5, "the first is noted at once")
    for _ in range(500):
        alerts.refused("its title is unknown", "192.0.2.1", "STRANGER")
    alerts.close()
    found = _all(made)
    assert [one["count"] for one in found] == [1, 500]
    assert {(one["title"], one["address"]) for one in found} == {("STRANGER", "192.0.2.1")}


def test_refusals_go_on_being_noted_window_after_window(tmp_path: Path) -> None:
    made = Notes(_settings(tmp_path))
    alerts = Alerts(made, window_s=0.05)
    for n in range(1, 4):
        alerts.refused("why", "192.0.2.1")
        wait_until(lambda n=n: sum(one["count"] for one in _all(made)) == n, 5, "it is noted without a close")
    alerts.close()


def test_many_addresses_make_a_bounded_number_of_notes(tmp_path: Path) -> None:
    made = Notes(_settings(tmp_path))
    made.folder.mkdir(parents=True)
    alerts = Alerts(made)
    for n in range(5000):
        alerts.refused("why", f"192.0.{n // 250}.{n % 250}", "T")
    alerts.close()
    found = _all(made)
    assert sum(one["count"] for one in found) == 5000
    assert len(found) <= notes.MOST_KINDS + 2


def test_notes_that_nobody_takes_are_bounded(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(notes, "MOST_NOTES", 3)
    made = Notes(_settings(tmp_path))
    for n in range(6):
        alerts = Alerts(made)
        alerts.refused("why", f"192.0.2.{n}")
        alerts.close()
    assert len(made.pending()) == 3


def test_notes_are_json_of_one_line_each(tmp_path: Path) -> None:
    made = Notes(_settings(tmp_path))
    made.write("refused", title='a"\n\x00b', address="::1")
    assert json.loads(made.pending()[0].read_text())["title"] == 'a"\n\x00b'

"""`evenray doctor`: each fault is found, has its remedy, and decides the exit code."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from dicom_node.codecs import CODECS
from dicom_node.commands import doctor_decoders
from dicom_node.ledger import Ledger, faults_in
from dicom_node.ledger.schema import SCHEMA_VERSION
from tests.peers import LOOPBACK, free_port
from tests.unit.commands.running import Ran, config, evenray

Checks = list[dict[str, str]]


def examined(file: Path) -> tuple[Ran, Checks]:
    ran = evenray("doctor", "-c", file, "--json")
    checks: Checks = json.loads(ran.out)["checks"]
    return ran, checks


def of(checks: Checks, what: str) -> Checks:
    return [check for check in checks if check["what"] == what]


@pytest.fixture
def port() -> int:
    return free_port()


def test_a_sound_machine_has_no_failure_and_nothing_is_left_behind(tmp_path: Path, port: int) -> None:
    ran, checks = examined(config(tmp_path, f"listen: {{port: {port}}}"))
    assert (ran.code, [c for c in checks if c["state"] == "fail"]) == (0, [])
    expected = {"python", "decoders", "engine", "banks", "state directory", "room", "ledger", "listen", "clock"}
    assert expected < {c["what"] for c in checks}
    assert [p.name for p in tmp_path.iterdir()] == ["evenray.yaml"]


def test_the_table_says_the_same_as_the_json(tmp_path: Path, port: int) -> None:
    ran = evenray("doctor", "-c", config(tmp_path, f"listen: {{port: {port}}}"))
    assert ran.code == 0
    assert "Nothing failed." in ran.out
    assert f"127.0.0.1:{port} is free" in ran.out


def test_every_decoder_gives_the_grey_values_that_were_encoded() -> None:
    assert {name: why for name, why in doctor_decoders.trials() if why} == {}
    assert len(doctor_decoders.trials()) == 7
    assert doctor_decoders.htj2k()


def test_a_decoder_that_fails_or_changes_a_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_frame: object) -> object:
        raise ValueError("out of order")

    name, codec = CODECS["1.2.840.10008.1.2.5"]
    monkeypatch.setitem(CODECS, "1.2.840.10008.1.2.4.80", ("charls", broken))
    monkeypatch.setitem(CODECS, "1.2.840.10008.1.2.5", (name, lambda frame: codec(frame) ^ 1))
    found = {name: why for name, why in doctor_decoders.trials() if why}
    assert sorted(found) == ["JPEG-LS lossless", "RLE Lossless"]
    assert "out of order" in found["JPEG-LS lossless"]
    assert "other grey values, up to 1 off" in found["RLE Lossless"]


def test_a_port_in_use_fails_and_says_what_to_change(tmp_path: Path, port: int) -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, port))
        other.listen()
        ran, checks = examined(config(tmp_path, f"listen: {{port: {port}}}"))
    (found,) = of(checks, "listen")
    assert (ran.code, found["state"]) == (1, "fail")
    assert "Address already in use" in found["found"]
    assert "listen.port" in found["remedy"]


def test_too_little_room_fails_with_the_setting_that_decides(tmp_path: Path, port: int) -> None:
    file = tmp_path / "evenray.yaml"
    file.write_text(f"state_dir: s\nlisten: {{port: {port}}}\nstorage: {{reserve_mib: 1000000000}}\n")
    ran, checks = examined(file)
    (found,) = of(checks, "room")
    assert (ran.code, found["state"]) == (1, "fail")
    assert "storage.reserve_mib" in found["remedy"]


def test_a_file_where_the_state_directory_should_be_fails(tmp_path: Path, port: int) -> None:
    (tmp_path / "state").write_text("")
    ran, checks = examined(config(tmp_path, f"listen: {{port: {port}}}"))
    assert ran.code == 1
    assert "Not a directory" in of(checks, "state directory")[0]["found"]


def test_a_damaged_ledger_fails_and_is_not_touched(tmp_path: Path, port: int) -> None:
    file = tmp_path / "state" / "ledger.sqlite"
    file.parent.mkdir()
    file.write_bytes(b"no database" * 1000)
    before = file.read_bytes()
    ran, checks = examined(config(tmp_path, f"listen: {{port: {port}}}"))
    assert (ran.code, of(checks, "ledger")[0]["state"]) == (1, "fail")
    assert "not a database" in of(checks, "ledger")[0]["found"]
    assert file.read_bytes() == before


def test_a_whole_ledger_has_no_fault_and_one_of_another_version_has(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    Ledger(file).close()
    assert faults_in(file) == []
    damaged = bytearray(file.read_bytes())
    damaged[60:64] = (77).to_bytes(4, "big")  # user_version in SQLite's file header
    file.write_bytes(damaged)
    assert faults_in(file) == [f"of version 77, this program knows {SCHEMA_VERSION}"]
    assert faults_in(tmp_path / "none.sqlite") == ["unable to open database file"]
    assert not (tmp_path / "none.sqlite").exists()


def test_a_bank_that_was_changed_by_hand_and_a_route_without_its_bank_fail(tmp_path: Path, port: int) -> None:
    folder = tmp_path / "state" / "banks"
    folder.mkdir(parents=True)
    (folder / "odd.bank.json").write_text('{"format": "evenray.bank"}')
    more = (f"listen: {{port: {port}}}", "routes: [{name: r, bank: nowhere}]")
    ran, checks = examined(config(tmp_path, *more))
    failed = [c for c in of(checks, "banks") if c["state"] == "fail"]
    assert ran.code == 1
    assert any("odd.bank.json" in c["found"] for c in failed)
    assert any("route r names bank nowhere" in c["found"] and "references add" in c["remedy"] for c in failed)


def test_a_peer_that_is_not_there_fails_and_a_folder_that_can_be_made_does_not(tmp_path: Path, port: int) -> None:
    gone = free_port()
    more = (
        f"listen: {{port: {port}}}",
        "destinations:",
        f"  pacs: {{kind: dimse, ae_title: PACS, host: 127.0.0.1, port: {gone}}}",
        "  shelf: {kind: folder, path: shelf/deep}",
        "  blocked: {kind: folder, path: evenray.yaml/x}",
    )
    ran, checks = examined(config(tmp_path, *more))
    assert ran.code == 1
    (pacs,), (shelf,), (blocked,) = (of(checks, f"destination {n}") for n in ("pacs", "shelf", "blocked"))
    assert (pacs["state"], shelf["state"], blocked["state"]) == ("fail", "ok", "fail")
    assert "check destinations.pacs: host, port and both AE titles" in pacs["remedy"]
    assert not (tmp_path / "shelf").exists()


def test_another_time_zone_and_a_ledger_from_the_future_are_warnings(tmp_path: Path, port: int) -> None:
    file = tmp_path / "state" / "ledger.sqlite"
    Ledger(file).close()
    os.utime(file, (time.time() + 9000, time.time() + 9000))
    here = time.strftime("%z")
    away = "+0300" if here != "+0300" else "+0400"
    ran, checks = examined(config(tmp_path, f"listen: {{port: {port}}}", f"site: {{timezone: '{away}'}}"))
    assert ran.code == 0
    assert (of(checks, "clock")[0]["state"], of(checks, "time zone")[0]["state"]) == ("warn", "warn")
    assert "set site.timezone" in of(checks, "time zone")[0]["remedy"]


def test_a_configuration_with_faults_is_not_examined(tmp_path: Path) -> None:
    ran = evenray("doctor", "-c", config(tmp_path, "listen: {prt: 1}"))
    assert ran.code == 2
    assert "did you mean port?" in ran.err

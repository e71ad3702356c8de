"""`evenray doctor` about DICOMweb servers, of destinations and of sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_node.commands import doctor
from tests.peers import free_port
from tests.scripted_web import Asked, Say, ScriptedWeb
from tests.unit.commands.running import config, evenray


@pytest.mark.parametrize(
    ("status", "states", "words"),
    [
        (204, ["ok"], "answered a search"),
        (501, ["ok"], "does not search"),
        (401, ["fail"], "credentials are not accepted"),
        (404, ["fail"], "no such service"),
    ],
)
@pytest.mark.parametrize("section", ["destinations", "sources"])
def test_a_server_is_asked_with_our_credentials(
    tmp_path: Path, section: str, status: int, states: list[str], words: str
) -> None:
    (tmp_path / "token").write_text("secret")

    def script(asked: Asked) -> Say:
        return Say(status) if asked.headers.get("Authorization") == "Bearer secret" else Say(500)

    server = ScriptedWeb(script)
    try:
        where = f"{section}: {{web: {{kind: dicomweb, url: '{server.url}', token_file: token}}}}"
        ran = evenray("doctor", "--json", "-c", config(tmp_path, f"listen: {{port: {free_port()}}}", where))
    finally:
        server.stop()
    found = [c for c in json.loads(ran.out)["checks"] if c["what"] == f"{section[:-1]} web"]
    assert [c["state"] for c in found] == states
    assert words in found[0]["found"]
    assert ran.code == int("fail" in states)
    assert "secret" not in ran.out


def test_credentials_that_travel_in_the_clear_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if loopback were another machine.
    monkeypatch.setattr(doctor, "LOOPBACK", ())
    (tmp_path / "token").write_text("secret")
    server = ScriptedWeb(lambda _asked: Say(204))
    try:
        for more, states in (("", ["ok"]), (", token_file: token", ["ok", "warn"])):
            where = f"destinations: {{web: {{kind: dicomweb, url: '{server.url}'{more}}}}}"
            ran = evenray("doctor", "--json", "-c", config(tmp_path, f"listen: {{port: {free_port()}}}", where))
            found = [c for c in json.loads(ran.out)["checks"] if c["what"] == "destination web"]
            assert [c["state"] for c in found] == states
    finally:
        server.stop()

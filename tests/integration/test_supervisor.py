"""The supervisor of a real node: one owner of the port, hangs, drains, and what it tells about itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pynetdicom import evt

from tests.node import ROOT, Node, end, node, open_association, radiograph, store, study
from tests.peers import LOOPBACK, free_port, listening, wait_until

pytestmark = [
    # The library leaves the socket of a peer that died to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
STUDY = "1.2.826.0.1.3680043.10.1.77"
PATIENT = {
    "PatientName": "Geheimrat^Ottokar",
    "PatientID": "PID-4711-X",
    "PatientBirthDate": "19380229",
    "AccessionNumber": "ACC-0815-Y",
    "ReferringPhysicianName": "Zuweiser^Hulda",
}


def _get(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/{path}", timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def _samples(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    status, text = _get(port, "metrics")
    assert status == 200
    families = list(text_string_to_metric_families(text.decode()))
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def _sample(port: int, name: str, **labels: str) -> float | None:
    return _samples(port).get((name, frozenset(labels.items())))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object of many PDUs."""
    return radiograph(tmp_path_factory.mktemp("large"), f"{STUDY}.9.1", study=f"{STUDY}.9", size=1024)


def _refused(made: Node, *role: str) -> str:
    """Start a second node on the same state directory and another port; what it says."""
    other = made.folder / "other.yaml"
    other.write_text(made.config.read_text().replace(str(made.port), str(free_port())))
    command = [sys.executable, "-m", "dicom_node", "serve", *role, "--config", str(other)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert ran.returncode == 2
    return ran.stderr


def test_a_second_node_on_one_state_directory_is_refused_and_the_first_is_unharmed(tmp_path: Path, large: Path) -> None:
    with node(tmp_path, role="listen") as made:
        pids = sorted({made.runs("listen"), *made.pids("listen")})
        for role in (("listen",), ()):
            said = _refused(made, *role)
            assert "another `listen` runs with this state directory" in said
            assert "Traceback" not in said
        made.accept(large)
        assert sorted(made.pids("listen")) == pids


def test_a_port_that_something_else_has_is_named(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken, node(tmp_path, role="listen", start=False) as made:
        made.configure(listen={"port": taken.getsockname()[1]})
        made.start(ready=False)
        assert made.process
        assert made.process.wait(60) == 2
        assert "can't be opened (Address already in use): stop what uses the port" in made.log()


def test_receivers_that_hang_are_replaced_and_the_port_stays_open(tmp_path: Path, large: Path) -> None:
    with node(tmp_path, role="listen", supervise={"hang_s": 4}, listen={"processes": 2}) as made:
        made.wait(lambda: "every process is up" in made.log(), 60, "both receivers are up")
        old = made.pids("listen")
        assert len(old) == 2
        for pid in old:
            os.kill(pid, signal.SIGSTOP)
        # Nobody can accept now, but connections wait instead of being refused.
        made.accept(large)
        made.wait(lambda: not set(old) & set(made.alive()), 60, "what hung is gone")
        assert made.log().count("was silent for") == 2
        assert made.process
        assert made.process.poll() is None


@contextmanager
def _in_the_middle(made: Node, path: Path) -> Iterator[tuple[dict[str, Any], threading.Event]]:
    """A sender that stops in the middle of an object until it is told to go on; its status comes into the dict."""
    go_on, stopped, found = threading.Event(), threading.Event(), dict[str, Any]()
    link = open_association(made.port, [path], pdu=16384)
    assert link.is_established
    sent: list[int] = []

    def pause(_event: evt.Event) -> None:
        sent.append(1)
        if len(sent) == 4:
            stopped.set()
            go_on.wait(120)

    link.bind(evt.EVT_PDU_SENT, pause)
    sending = threading.Thread(target=lambda: found.update(status=store(link, path)))
    sending.start()
    try:
        assert stopped.wait(60)
        yield found, go_on
    finally:
        go_on.set()
        sending.join(60)
        end(link)


def test_an_object_that_is_being_sent_when_the_node_is_stopped_is_finished_with_success(
    tmp_path: Path, large: Path
) -> None:
    with node(tmp_path, role="listen") as made:
        assert made.process
        with _in_the_middle(made, large) as (found, go_on):
            made.process.terminate()
            made.wait(lambda: not listening(made.port), 30, "nothing new is taken")
            go_on.set()
            wait_until(lambda: "status" in found, 60, "the object is answered")
        assert found["status"] == 0
        assert made.process.wait(60) == 0
        assert made.one("SELECT count(*) FROM instance") == 1


def test_a_sender_that_never_finishes_is_aborted_and_the_node_ends_well(tmp_path: Path, large: Path) -> None:
    with node(tmp_path, role="listen", listen={"drain_s": 1}) as made:
        with _in_the_middle(made, large) as (found, _go_on):
            assert made.terminate(60) == 0
            assert "did not end in time" not in made.log()
        assert found["status"] is None
        assert made.one("SELECT count(*) FROM instance") == 0
        assert [path for path in (made.spool / "incoming").rglob("*") if path.is_file()] == []


class Manager:
    """What a service manager hears."""

    def __init__(self, path: Path) -> None:
        self.said: list[str] = []
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._line.bind(str(path))
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def _listen(self) -> None:
        while found := self._line.recv(4096):
            self.said.append(found.decode())

    def heard(self, word: str) -> bool:
        return any(word in one.splitlines() for one in self.said)

    def close(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(path))
        self._listening.join(10)
        self._line.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, int, Manager]]:
    """A whole node with an endpoint and a service manager; its last three images are decided, of a named patient."""
    folder = tmp_path_factory.mktemp("whole")
    files = study(folder / "in", f"{STUDY}.1", 3, **PATIENT)
    port, manager = free_port(), Manager(folder / "notify")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        environment.setenv("WATCHDOG_USEC", "8000000")
        environment.delenv("WATCHDOG_PID", raising=False)
        out = {"out": {"kind": "folder", "path": str(folder / "out")}}
        settings = {"health": {"port": port}, "logs": {"format": "json"}, "supervise": {"hang_s": 60}}
        with node(folder, out, listen={"processes": 2}, **settings) as made:
            made.wait(lambda: manager.heard("READY=1"), 120, "the node says that it is ready")
            assert _get(port, "ready")[0] == 200
            made.accept(*files)
            made.wait_settled()
            yield made, port, manager
            assert made.terminate() == 0
            wait_until(lambda: manager.heard("STOPPING=1"), 10, "the node says that it stops")
    manager.close(folder / "notify")


def test_ready_means_that_receivers_and_worker_run_and_words_of_life_follow(whole: tuple[Node, int, Manager]) -> None:
    made, _port, manager = whole
    made.wait(lambda: manager.heard("WATCHDOG=1"), 30, "a sign of life")
    ready = next(one for one in manager.said if one.startswith("READY=1"))
    assert "STATUS=receiving" in ready
    events = [json.loads(line)["event"] for line in made.log().splitlines()]
    up = events.index("every process is up")
    for begun in ("receiver 1 of", "receiver 2 of", "working on"):
        assert any(begun in event for event in events[:up])


def test_health_names_every_check_and_agrees_with_the_endpoint(whole: tuple[Node, int, Manager]) -> None:
    made, port, _manager = whole
    ran = made.cli("health", "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout)
    assert [check["name"] for check in found["live"]] == ["supervisor", "work", "deliver", "upkeep"]
    names = ["receivers", "port", "worker", "banks", "ledger", "disk"]
    assert [check["name"] for check in found["ready"]] == names
    shown = made.cli("health").stdout
    assert "The node can receive." in shown, shown
    for path in ("live", "ready"):
        status, body = _get(port, path)
        assert status == 200
        assert json.loads(body)["ok"] is True
    assert [check["name"] for check in json.loads(body)["ready"]] == names
    assert _get(port, "else")[0] == 404


def test_metrics_count_what_happened(whole: tuple[Node, int, Manager]) -> None:
    _made, port, _manager = whole
    found = _samples(port)

    def of(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert of("evenray_received_instances_total") == 3
    assert of("evenray_decided_instances_total", outcome="harmonized") == 3
    assert of("evenray_delivered_objects_total", destination="out") == 7
    assert of("evenray_reported_batches_total") == 1
    assert of("evenray_instances", state="waiting") == 0
    assert of("evenray_image_seconds_count", stage="engine") == 3
    assert of("evenray_style_distance_count", bank="chest_frontal", when="before") == 3
    assert of("evenray_style_distance_sum", bank="chest_frontal", when="after") < of(
        "evenray_style_distance_sum", bank="chest_frontal", when="before"
    )
    for process in ("receive 0", "receive 1", "work", "deliver", "upkeep"):
        assert of("evenray_process_up", process=process) == 1
        assert of("evenray_process_starts_total", process=process) == 1
    assert of("evenray_ledger_bytes") > 0
    assert of("evenray_disk_free_bytes") > 0
    text = _get(port, "metrics")[1].decode()
    assert not [value for value in PATIENT.values() if value.lower() in text.lower()]


def test_a_client_that_is_slow_or_comes_in_hundreds_holds_nobody_up(whole: tuple[Node, int, Manager]) -> None:
    made, port, _manager = whole
    idle = [socket.create_connection((LOOPBACK, port), timeout=10) for _ in range(40)]
    try:
        for one in idle:
            one.sendall(b"GET /li")
        made.wait(lambda: _answers(port), 60, "the endpoint answers although others hold their connections")
    finally:
        for one in idle:
            one.close()


def _answers(port: int) -> bool:
    try:
        return _get(port, "live")[0] == 200
    except OSError:
        return False


def test_timing_shows_where_the_time_went(whole: tuple[Node, int, Manager]) -> None:
    made, _port, _manager = whole
    ran = made.cli("status", "--timing", "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["images"] == 3
    stages = ["to_first_look", "wait", "decode", "engine", "encode", "send", "total"]
    assert list(found["stages"]) == stages
    engine, total = found["stages"]["engine"], found["stages"]["total"]
    assert 0 < engine["median"] <= engine["p90"] <= engine["max"] < total["max"]
    assert sum(group["images"] for group in found["by"].values()) == 3
    shown = made.cli("status", "--timing").stdout
    assert "received to delivered" in shown


def test_supervisor_and_receivers_stay_small_and_load_no_engine(whole: tuple[Node, int, Manager]) -> None:
    made, _port, _manager = whole
    for pid in [made.runs("serve"), *made.pids("listen")]:
        loaded = Path(f"/proc/{pid}/maps").read_text()
        assert not [name for name in ("torch", "numpy", "/PIL/", "scipy", "openjpeg") if name in loaded]
        resident = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line)
        assert int(resident.split()[1]) <= 64_000


def test_the_logs_of_all_processes_are_objects_and_name_no_patient(whole: tuple[Node, int, Manager]) -> None:
    made, _port, _manager = whole
    lines = [json.loads(line) for line in made.log().splitlines()]
    assert {line["role"] for line in lines} >= {"serve", "receive 0", "receive 1", "work", "deliver"}
    assert all({"time", "level", "role", "pid", "event"} <= line.keys() for line in lines)
    assert any(line.get("instance") and f"{STUDY}.1.1" in line.get("uids", ()) for line in lines)
    said = made.log().lower()
    for value in PATIENT.values():
        for part in value.lower().split("^"):
            assert part not in said


def test_while_the_worker_stands_still_everything_is_received_and_the_queue_is_told_in_time(
    whole: tuple[Node, int, Manager], tmp_path: Path
) -> None:
    made, port, _manager = whole
    worker = made.runs("work")
    os.kill(worker, signal.SIGSTOP)
    files = study(tmp_path, f"{STUDY}.2", 6, size=128)
    made.accept(*files)
    facts = json.loads(made.cli("status", "--json").stdout)["backlog"]
    assert (facts["waiting"], facts["workers"]) == (6, 1)
    assert facts["seconds"] == pytest.approx(6 * facts["seconds_an_image"])
    assert facts["trend"] == "growing"
    assert "6 images: about" in made.cli("status").stdout
    assert (_sample(port, "evenray_oldest_waiting_seconds") or 0) > 0
    os.kill(worker, signal.SIGCONT)
    made.wait_settled()
    assert made.one("SELECT count(*) FROM instance WHERE state = 'reported'") == 9
    assert json.loads(made.cli("status", "--json").stdout)["backlog"]["trend"] == "empty"


def test_a_node_that_does_not_run_is_neither_live_nor_ready(tmp_path: Path) -> None:
    with node(tmp_path, start=False) as made:
        ran = made.cli("health", "--json")
        assert ran.returncode == 1
        found = json.loads(ran.stdout)
        assert (found["is_live"], found["is_ready"]) == (False, False)
        assert {"name": "supervisor", "ok": False, "reason": "does not run"} in found["live"]


def test_without_room_the_node_lives_but_is_not_ready(tmp_path: Path) -> None:
    with node(tmp_path, role="listen", storage={"reserve_mib": 1 << 30}) as made:
        made.runs("listen")
        made.wait(lambda: "every process is up" in made.log(), 60, "the receivers are up")
        ran = made.cli("health", "--json")
        assert ran.returncode == 1
        found = json.loads(ran.stdout)
        assert found["is_live"]
        assert [check["name"] for check in found["ready"] if not check["ok"]] == ["disk"]

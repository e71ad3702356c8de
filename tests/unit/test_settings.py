"""The configuration: defaults that run, every fault at once with its path and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dicom_node.errors import SettingsInvalid
from dicom_node.settings import Folder, Settings
from dicom_node.settings_file import EMBEDDED, load, parse

ROOT = Path(__file__).parents[2]

FAULTS = {
    "listen: {ae_titel: X}": "listen.ae_titel: unknown setting, did you mean ae_title?",
    "listen: {port: 99999}": "listen.port: input should be less than or equal to 65535 (found 99999)",
    "listen: {ae_title: 'far too long a title'}": "listen.ae_title: expected 1 to 16 ASCII characters without "
    "backslash (found 'far too long a title')",
    "zzz: 1": f"zzz: unknown setting, known here: {', '.join(sorted(Settings.model_fields))}",
    "site: {timezone: CET}": "site.timezone: expected an offset like +0100 or -0500 (found 'CET')",
    "routes: [{name: a, destinations: [pacs]}]": "routes.0.destinations: no destination is called 'pacs'; "
    "known: none is configured",
    "routes: [{name: a}, {name: a}]": "routes: the name 'a' is used twice; each route needs its own",
    "routes: [{name: a, match: {modalty: [CR]}}]": "routes.0.match.modalty: unknown setting, did you mean modality?",
    "destinations: {p: {kind: dimse, ae_title: A, host: h}}": "destinations.p.port: field required",
    "destinations: {p: {kind: dimse, ae_title: A, host: h, port: 1, comitment: true}}": "destinations.p.comitment: "
    "unknown setting, did you mean commitment?",
    "assembly: {quiet_s: 1}": "assembly: quiet_after_release_s (5) must not exceed quiet_s",
    "assembly: {cap_s: 2, quiet_s: 10}": "assembly: cap_s (2) must be at least quiet_s (10)",
    "work: {retry: {attemps: 3}}": "work.retry.attemps: unknown setting, did you mean attempts?",
    "[1, 2]": "the file must be a mapping of settings, found list",
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_is_named_with_its_path_and_what_was_expected(text: str) -> None:
    settings, faults = parse(text, base=Path())
    assert settings is None
    assert faults == [FAULTS[text]]


def test_all_faults_are_named_at_once() -> None:
    _, faults = parse("listen: {ae_titel: X, port: 0}\nstorag: {}\nsite: {timezone: CET}", base=Path())
    assert len(faults) == 4


def test_faults_between_settings_are_named_beside_those_of_single_ones() -> None:
    text = """
        storage: {watermark_percent: 0}
        destinations: {pacs: {kind: folder, path: out}}
        routes:
          - {name: a, destinations: [pcas, archive]}
          - {name: a, methods: [magic]}
        passed_by: {destinations: [nowhere]}
    """
    _, faults = parse(text, base=Path())
    assert [fault.partition(":")[0] for fault in faults] == [
        "storage.watermark_percent",
        "routes.1.methods.0",
        "routes.0.destinations",
        "routes.0.destinations",
        "passed_by.destinations",
        "routes",
    ]


def test_a_key_that_is_there_twice_is_a_fault_and_not_a_silent_choice() -> None:
    _, faults = parse("site: {}\nlisten: {port: 1}\nlisten: {port: 2}", base=Path())
    assert faults == ["line 3, column 1: not valid YAML: 'listen' is there twice"]


def test_broken_yaml_is_named_with_line_and_column() -> None:
    _, faults = parse("listen:\n  port: [1\n", base=Path())
    assert faults[0].startswith("line 3, column 1: not valid YAML")


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"no\.yaml: can't be read \(no such file or directory\): check the path"):
        load(tmp_path / "no.yaml")


def test_the_shipped_configuration_is_the_embedded_one() -> None:
    assert (ROOT / "configs" / "default.yaml").read_text() == EMBEDDED.read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    assert load(path).routes


def test_the_embedded_defaults_stay_on_loopback() -> None:
    settings = load(None)
    hosts = {settings.listen.host, *(d.host for d in settings.destinations.values() if not isinstance(d, Folder))}
    assert hosts == {"127.0.0.1"}


def test_folders_belong_to_the_configuration_file_not_to_the_working_folder(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("state_dir: here\ndestinations: {d: {kind: folder, path: out}}\n")
    settings = load(file)
    assert settings.state_dir == tmp_path / "here"
    assert settings.banks == tmp_path / "here" / "banks"
    folder = settings.destinations["d"]
    assert isinstance(folder, Folder)
    assert folder.path == tmp_path / "out"


def test_addresses_and_time_outs_do_not_change_the_digest_that_results_carry() -> None:
    base = yaml.safe_load(EMBEDDED.read_text())
    moved = {**base, "state_dir": "elsewhere", "listen": {"port": 4242}, "assembly": {"quiet_s": 99}}
    assert Settings(**moved).result_digest() == Settings(**base).result_digest()


def test_whatever_shapes_a_result_changes_the_digest() -> None:
    base = yaml.safe_load(EMBEDDED.read_text())
    other = {**base, "site": {"timezone": "+0100"}}
    assert Settings(**other).result_digest() != Settings(**base).result_digest()


def test_words_that_can_not_be_drawn_are_refused_before_they_are_needed() -> None:
    assert Settings.model_validate({"site": {"visible_label": "HARMONIS\u00c9 \u2013 \u201cnot original\u201d"}})
    with pytest.raises(ValueError, match="only Latin letters can be drawn"):
        Settings.model_validate({"site": {"visible_label": "\u8abf\u548c"}})

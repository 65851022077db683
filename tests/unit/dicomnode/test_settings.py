"""Settings: safe defaults, precedence and origin, and every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.errors import Misconfigured
from dicomnode.settings import Effective, Settings, load


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("DICOMNODE_")]:
        monkeypatch.delenv(name)


def write(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text, encoding="utf-8")
    return path


def find(effective: list[Effective], key: str) -> Effective:
    return next(entry for entry in effective if entry.key == key)


def test_defaults_listen_on_this_machine_alone() -> None:
    settings, effective = load()
    assert settings.listener.host == settings.web.host == "127.0.0.1"
    assert settings.destinations == ()
    assert {entry.origin for entry in effective} == {"default"}


def test_every_setting_says_what_it_is_for() -> None:
    for name, section in Settings.model_fields.items():
        fields = getattr(section.annotation, "model_fields", {name: section})
        assert [key for key, field in fields.items() if not field.description] == []


def test_a_variable_wins_over_the_file_and_the_file_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path, '[listener]\nport = 104\nae_title = "FILE"\n')
    monkeypatch.setenv("DICOMNODE_LISTENER__PORT", "11113")
    settings, effective = load(config)
    assert (settings.listener.port, settings.listener.ae_title, settings.listener.host) == (11113, "FILE", "127.0.0.1")
    assert find(effective, "listener.port").origin == "DICOMNODE_LISTENER__PORT"
    assert find(effective, "listener.ae_title").origin == str(config)
    assert find(effective, "listener.host").origin == "default"


def test_a_variable_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_CONFIG", str(write(tmp_path, "[series]\nquiet_seconds = 7\n")))
    assert load()[0].series.quiet_seconds == 7


def test_the_database_stands_beside_the_archive(tmp_path: Path) -> None:
    settings, _ = load(write(tmp_path, f'[archive]\npath = "{tmp_path}/a/archive"\n'))
    assert settings.database_url == f"sqlite:///{tmp_path}/a/node.db"


TWINS = """
[[destinations]]
name = "pacs"
ae_title = "A"
host = "localhost"
port = 104
[[destinations]]
name = "pacs"
ae_title = "B"
host = "localhost"
port = 105
"""


RULE = "[[rules]]\nname = 'pv thin'\naction = 'analyse'\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[listener]\nprot = 104\n", "listener.prot: unknown key"),
        ("[lisener]\nport = 104\n", "lisener: unknown key"),
        ("[listener]\nport = 70000\n", "listener.port: "),
        ('[listener]\nae_title = "SEVENTEEN_LETTERS"\n', "listener.ae_title: .*1 to 16"),
        ("[listener]\nae_title = 'A\\B'\n", "listener.ae_title: "),
        ('[listener]\nae_title = " A"\n', "listener.ae_title: "),
        ('[listener]\nae_title = ""\n', "listener.ae_title: "),
        ('[worker]\ndevice = "gpu"\n', "worker.device: "),
        ("[worker]\nflips = 'PL'\n", "worker.flips: .*'PL': each of L, P and S once or not at all, in this order"),
        ("[worker]\nflips = 'A'\n", "worker.flips: .*'A': each of L, P and S"),
        ("[worker]\nmodel = []\n", "worker.model.*at least 1 item"),
        (TWINS, "two have the name 'pacs'"),
        ("[[destinations]]\nname = 'pacs'\n", "destinations.0: .*give url, or ae_title, host and port"),
        (RULE + "descripton = 'abd'\n", r"rules.0.descripton \(rule 'pv thin'\): unknown key"),
        (RULE + "kernel = 'b(3'\n", r"rules.0.kernel \(rule 'pv thin'\): .*'b\(3' is not a regular expression"),
        (RULE + "slices = {min = 9, max = 8}\n", r"rules.0.slices \(rule 'pv thin'\): .*min 9 is above max 8"),
        (RULE + "slices = {least = 9}\n", r"rules.0.slices.least \(rule 'pv thin'\): unknown key"),
        (RULE + "slices = {}\n", "give min, max or both"),
        (RULE + "phase = ['venous']\n", "rules.0.phase.0 .*'portal-venous'"),
        ("[[rules]]\nname = 'x'\naction = 'ignore'\n", "rules.0.action .*'analyse' or 'skip'"),
        ("[[rules]]\naction = 'skip'\n", "rules.0.name: "),
        (RULE + RULE, "rules: two have the name 'pv thin'"),
        ("[series]\nprefer = ['thickest']\n", "series.prefer.0: .*'thickest' is unknown; there are .*thinnest"),
        ("[series]\nprefer = ['phase=venous']\n", "phases are non-contrast, arterial"),
        ("[series]\nprefer = ['phase']\n", "phase takes a value after ="),
        ("[series]\nprefer = ['thinnest=1']\n", "thinnest takes no value"),
        ("[series]\nprefer = ['kernel=b(']\n", "is not a regular expression"),
        ("[listener\n", "not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(Misconfigured, match=complaint):
        load(write(tmp_path, text))


def test_rules_come_in_their_order_from_the_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = RULE + "thickness_mm = {max = 2.5}\n[[rules]]\nname = 'rest'\naction = 'skip'\n"
    settings, effective = load(write(tmp_path, text))
    assert [(rule.name, rule.action) for rule in settings.rules] == [("pv thin", "analyse"), ("rest", "skip")]
    assert str(settings.rules[0].thickness_mm) == "at most 2.5"
    assert find(effective, "rules").origin == str(tmp_path / "node.toml")
    monkeypatch.setenv("DICOMNODE_RULES", '[{"name": "none", "action": "skip"}]')
    monkeypatch.setenv("DICOMNODE_SERIES__PREFER", '["phase=arterial", "thinnest"]')
    settings, _ = load(tmp_path / "node.toml")
    assert [rule.name for rule in settings.rules] == ["none"]
    assert settings.series.prefer == ("phase=arterial", "thinnest")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"absent\.toml: cannot be read"):
        load(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("DICOMNODE_LISENER__PORT", "1"), ("DICOMNODE_LISTENER__PROT", "1"), ("DICOMNODE_LISTENER__PORT", "many")],
)
def test_a_mistake_in_a_variable_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Misconfigured, match=r"LISENER|listener\.(prot|port)"):
        load()


@pytest.mark.parametrize(
    ("text", "folders"),
    [("", []), ("model = 'a'", ["a"]), ("model = ['a']", ["a"]), ("model = ['a', 'b']", ["a", "b"])],
)
def test_a_model_is_one_folder_or_several(tmp_path: Path, text: str, folders: list[str]) -> None:
    settings, _ = load(write(tmp_path, f"[worker]\n{text}\n"))
    assert settings.worker.bundles == tuple(Path(folder) for folder in folders)


@pytest.mark.parametrize(("value", "folders"), [("x/y", ["x/y"]), ('["x", "y z"]', ["x", "y z"])])
def test_a_variable_names_one_folder_or_several(
    value: str, folders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DICOMNODE_WORKER__MODEL", value)
    monkeypatch.setenv("DICOMNODE_WORKER__FLIPS", "LS")
    settings, _ = load()
    assert settings.worker.bundles == tuple(Path(folder) for folder in folders)
    assert settings.worker.flips == "LS"

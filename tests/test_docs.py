"""The documentation says what the code does: what the code enumerates is looked up in docs/."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

import pytest
import typer.main
from pydantic import BaseModel
from pydicom.uid import UID

from dicomnode import cli, deliveries, dimse, jobs, pulling
from dicomnode.deliveries import DeliveryEvent, DeliveryState
from dicomnode.endpoints import DestinationSettings, PullSettings, SourceSettings
from dicomnode.jobs import JobEvent, JobState
from dicomnode.node import Actor
from dicomnode.notification_settings import NotificationSettings
from dicomnode.phases import WORDS, Phase
from dicomnode.sections import Criterion, RuleSettings
from dicomnode.settings import Settings
from dicomnode.topics import FIELDS, PATIENT_FIELDS, Topic
from dicomnode.web.accounts import Role
from models.bundle import default_bundle
from pipeline.assumptions import AssumptionKind
from pipeline.decoders import DECODABLE_TRANSFER_SYNTAXES
from pipeline.measure import Flag
from pipeline.planes import MARKS
from pipeline.sr import TITLES

ROOT = Path(__file__).parents[1]
MARKDOWN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LISTS: dict[str, type[BaseModel]] = {
    "destinations": DestinationSettings,
    "sources": SourceSettings,
    "pull": PullSettings,
    "rules": RuleSettings,
    "notifications": NotificationSettings,
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, object]]:
    """Dotted key, description and default of every setting."""
    for name, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from leaves(type(default), f"{prefix}{name}.")
        elif prefix + name not in LISTS:
            yield prefix + name, field.description or "", default


SETTINGS = [
    *leaves(Settings),
    *((f"{name}.{key}", text, None) for name, table in LISTS.items() for key, text, _ in leaves(table)),
]


def moves_table(moves: Mapping[tuple[StrEnum, StrEnum], StrEnum]) -> str:
    rows = [f"| {state} | {event} | {after} |" for (state, event), after in moves.items()]
    return "\n".join(["| in state | on event | goes to |", "|---|---|---|", *rows])


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, text, _ in SETTINGS])
def test_a_setting_is_explained(key: str, text: str) -> None:
    row = next((line for line in read("docs/settings.md").splitlines() if line.startswith(f"| `{key}` |")), None)
    assert row is not None, f"docs/settings.md has no row for {key}"
    assert text in row


def test_docs_explain_no_setting_that_is_gone() -> None:
    explained = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", read("docs/settings.md"), re.MULTILINE)
    assert explained == [key for key, _, _ in SETTINGS]


def test_the_example_settings_are_the_defaults_and_show_every_key() -> None:
    text = read("deploy/node.example.toml")
    content = tomllib.loads(text)
    assert Settings(**content) == Settings()
    bare = tomllib.loads(re.sub(r"^# (?=\w+ = |\[\[)", "", text, flags=re.MULTILINE))
    shown = {f"{table}.{key}" for table, keys in bare.items() if isinstance(keys, dict) for key in keys}
    shown |= {f"{name}.{key}" for name in LISTS for key in bare[name][0]}
    assert shown == {key for key, _, _ in SETTINGS}


@pytest.mark.parametrize("criterion", Criterion)
def test_every_criterion_of_preference_is_explained(criterion: Criterion) -> None:
    assert re.search(rf"^\| `{criterion}[`=]", read("docs/operations.md"), re.MULTILINE)


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_is_explained_with_its_words(phase: Phase) -> None:
    row = next(line for line in read("docs/operations.md").splitlines() if line.startswith(f"| `{phase}` |"))
    assert row.split("|")[2].strip() == ", ".join(WORDS[phase])


def test_every_command_is_in_the_readme() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert len(commands) >= 8
    for name in commands:
        assert f"| `dicomnode {name}" in read("README.md"), name


@pytest.mark.parametrize("moves", [jobs.MOVES, deliveries.MOVES, pulling.MOVES], ids=["jobs", "deliveries", "pulls"])
def test_the_tables_of_moves_are_those_of_the_code(moves: Mapping[tuple[StrEnum, StrEnum], StrEnum]) -> None:
    assert moves_table(moves) in read("docs/states.md")


def test_every_state_is_explained() -> None:
    text = read("docs/states.md")
    job_part, delivery_part = text.split("\n## Delivery\n")
    for state in JobState:
        assert re.search(rf"^\| {state} \| [^|]{{10,}} \| [^|]+ \|$", job_part, re.MULTILINE), state
    for delivery_state in DeliveryState:
        assert re.search(rf"^\| {delivery_state} \| [^|]{{10,}} \|$", delivery_part, re.MULTILINE), delivery_state
    assert all(f"| {event} |" in text for event in (*JobEvent, *DeliveryEvent))


@pytest.mark.parametrize("uid", [*dimse.STORED_SOP_CLASSES, *DECODABLE_TRANSFER_SYNTAXES])
def test_what_the_listener_accepts_is_in_the_conformance_statement(uid: str) -> None:
    rows = [line for line in read("docs/conformance.md").splitlines() if f"| {uid} |" in line]
    assert any(UID(uid).name in row for row in rows), UID(uid).name


def test_result_classes_titles_and_flags_are_in_the_conformance_statement() -> None:
    text = read("docs/conformance.md")
    for uid in ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.1.1"):
        assert f"| {uid} |" in text
    assert all(title in text for title in TITLES)
    assert all(f"`{flag}`" in text for flag in Flag)


def test_every_status_that_the_receiver_answers_is_documented() -> None:
    source = read("dicomnode/receiver.py")
    statuses = re.findall(r"^[A-Z_]+ = (0x[0-9A-F]{4})$", source, re.MULTILINE)
    assert len(statuses) >= 5
    for status in statuses:
        assert f"| {status} |" in read("docs/conformance.md"), status


def test_the_actors_are_in_the_architecture() -> None:
    tree = read("docs/architecture.md")
    assert all(f"  {actor}.py " in tree or f"  {actor}/ " in tree for actor in Actor)


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_tree_in_the_architecture_names_only_what_exists() -> None:
    tree = read("docs/architecture.md").split("## The tree")[1].split("```")[1]
    for line in tree.splitlines():
        if found := re.match(r"^(  )?([a-z_]+\.py)\s", line):
            assert list(ROOT.rglob(found[2])), found[2]


@pytest.mark.parametrize("package", ["dicomnode", "pipeline", "models"])
def test_the_tree_in_the_architecture_names_every_module(package: str) -> None:
    text = read("docs/architecture.md")
    modules = [path.name for path in (ROOT / package).glob("*.py") if not path.name.startswith("__")]
    assert [name for name in modules if f" {name} " not in text] == []


def test_make_targets_are_in_the_readme() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)
    assert targets
    for name in ("setup", "demo", "test", "check", "run", "bench"):
        assert name in targets[1].split()
        assert f"make {name}" in read("README.md"), name


def test_the_shipped_model_is_documented() -> None:
    card = default_bundle() / "docs" / "README.md"
    assert card.stat().st_size > 500
    assert "models/bundles/pancreas-3d" in read("README.md")


@pytest.mark.parametrize("name", [*Flag, *AssumptionKind])
def test_every_flag_and_assumption_is_explained(name: str) -> None:
    assert f"| `{name}` |" in read("docs/geometry.md")


@pytest.mark.parametrize("mark", MARKS)
def test_every_attribute_that_tells_acquisitions_apart_is_named(mark: str) -> None:
    assert mark in read("docs/geometry.md")


@pytest.mark.parametrize("name", [*Topic, *sorted(FIELDS | PATIENT_FIELDS)])
def test_every_event_and_field_of_notifications_is_explained(name: str) -> None:
    assert f"| `{name}` |" in read("docs/notifications.md")


def test_every_metric_is_explained() -> None:
    names = re.findall(r'"(dicomnode_[a-z_]+)"', read("dicomnode/web/metrics.py"))
    assert len(names) > 8
    for name in names:
        assert re.search(rf"^\| `{name}(_total)?` \|", read("docs/web.md"), re.MULTILINE), name


def test_every_role_is_explained() -> None:
    assert all(f"| `{role}` |" in read("docs/web.md") for role in Role)

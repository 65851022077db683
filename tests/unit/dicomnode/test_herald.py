"""What people are told: each cause once, to those who want it, over real servers, and no patient unless they may."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import insert
from typer.testing import CliRunner

from dicomnode.database import Database, open_database
from dicomnode.errors import Misconfigured
from dicomnode.herald import Herald, recipients, subscriptions
from dicomnode.jobs import RetryPolicy
from dicomnode.lifecycle import Backoff
from dicomnode.node import Actor, Node
from dicomnode.notices import Persistence
from dicomnode.notification_settings import NotificationSettings
from dicomnode.settings import Settings
from dicomnode.store import notices, outbox, queue, watch
from dicomnode.store.watch import AlarmKind
from dicomnode.tables import jobs, series
from dicomnode.topics import Topic
from tests.syslog_server import write_certificate
from tests.told import mail_server, web_server

HOUR_S = 3600.0


class Happenings:
    """A node's database in which things happen, and heralds that tell of them by a clock to turn."""

    def __init__(self, folder: Path, *notifications: dict[str, Any], url: str = "", **sections: Any) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.database: Database = open_database(url or f"sqlite:///{folder}/node.db")
        everyone = [{"events": list(Topic), **one} for one in notifications]
        self.settings = Settings(notifications=everyone, **sections)
        with self.database.begin() as connection:
            notices.subscribe(connection, subscriptions(self.settings))
        self.heralds = {
            one.notification.name: Herald(self.database, one, lambda: self.now) for one in recipients(self.settings)
        }

    def claim(self, uid: str = "1.2.3", acquired_at: str = "20240101") -> int:
        """A job that a worker holds; returns its number."""
        whose = {"patient_id": "P^1", "issuer_of_patient_id": "A", "patient_name": "Doe^Jane"}
        scan = {"series_instance_uid": uid, "study_instance_uid": f"{uid}.0", "acquired_at": acquired_at}
        fresh = {"state": "queued", "reason": "", "attempts": 0, "last_instance_id": 1, "instance_count": 1}
        times = dict.fromkeys(("created_at", "updated_at", "not_before"), self.now)
        with self.database.begin() as connection:
            connection.execute(insert(series).values(**whose, **scan))
            connection.execute(insert(jobs).values(series_instance_uid=uid, revision=1, **fresh, **times))
            held = queue.claim(connection, "worker", self.now, 60.0)
        assert held is not None
        return held.id

    def refuse(self, **scan: str) -> int:
        job_id = self.claim(**scan)
        with self.database.begin() as connection:
            queue.refuse(connection, queue.job(connection, job_id), "too few slices: 3", self.now)
        return job_id

    def fail(self) -> None:
        """A job fails for good."""
        job_id = self.claim()
        with self.database.begin() as connection:
            policy = RetryPolicy(1, Backoff(1, 1))
            why = (queue.JobEvent.POSTPONE, "internal error: KeyError")
            queue.put_back(connection, queue.job(connection, job_id), why, policy, self.now)

    def measure(self, uid: str, acquired_at: str, volume_ml: float) -> None:
        job_id = self.claim(uid, acquired_at)
        measured = outbox.Measured(True, volume_ml, 0.9, (), "m", "1", "0" * 64)
        with self.database.begin() as connection:
            finished = outbox.Finished(measured, [], [], [])
            outbox.finish(connection, queue.job(connection, job_id), finished, self.now)

    def alarm(self, reason: str | None) -> None:
        """Raise the alarm of the disk, or clear it."""
        with self.database.begin() as connection:
            if reason is None:
                watch.clear_alarm(connection, AlarmKind.DISK, "archive", self.now)
            else:
                watch.raise_alarm(connection, AlarmKind.DISK, "archive", reason, self.now)

    def states(self) -> list[tuple[str, str, str]]:
        with self.database.read() as connection:
            return [(one.notification, one.topic, one.state) for one in reversed(notices.list_notices(connection, 50))]

    def alarms(self) -> list[tuple[str, str]]:
        with self.database.read() as connection:
            return [(one.kind, one.subject) for one in watch.list_alarms(connection, 10)]

    def step(self, name: str = "hook", after_s: float = 0.0) -> int:
        self.now += timedelta(seconds=after_s)
        return self.heralds[name].step()


def hook(port: int, **more: Any) -> dict[str, Any]:
    return {"name": "hook", "kind": "webhook", "url": f"http://127.0.0.1:{port}/told?by=node", **more}


def letter(**more: Any) -> dict[str, Any]:
    return {"name": "letter", "kind": "email", "recipients": ["pacs@example.org"], **more}


def test_every_cause_is_told_once_to_those_who_want_it(tmp_path: Path, either_url: str) -> None:
    with web_server() as server:
        only_failures = hook(server.port, name="other", events=["job-failed"])
        node = Happenings(tmp_path, hook(server.port), only_failures, url=either_url)
        node.refuse(uid="1.2.1")
        node.alarm("4 GB left")
        node.alarm("3 GB left")
        node.alarm(None)
        node.alarm(None)
        assert (node.step(), node.step(), node.step("other")) == (3, 0, 0)
        node.fail()
        assert (node.step(), node.step("other")) == (1, 1)
    told = [json.loads(body) for _, _, body in server.requests]
    assert [one["type"] for one in told] == ["job-refused", "alarm-raised", "alarm-cleared", "job-failed", "job-failed"]
    assert told[0]["data"] == {
        "node": "PANCREAS", "summary": "job 1: a series cannot be measured", "reason": "too few slices: 3", "job": "1",
    }  # fmt: skip
    assert told[1]["data"]["alarm"] == "disk archive"
    assert told[1]["timestamp"] == "2026-01-02T03:04:05+00:00"
    assert {path for path, _, _ in server.requests} == {"/told?by=node"}
    assert len({head["webhook-id"] for _, head, _ in server.requests}) == 5


def test_what_is_rolled_back_is_not_told(tmp_path: Path) -> None:
    node = Happenings(tmp_path, hook(9))
    with suppress(RuntimeError), node.database.begin() as connection:
        watch.raise_alarm(connection, AlarmKind.DISK, "archive", "full", node.now)
        raise RuntimeError
    assert node.states() == []


def test_who_is_no_longer_in_the_settings_is_told_nothing_new(tmp_path: Path) -> None:
    node = Happenings(tmp_path, hook(9))
    Happenings(tmp_path)
    node.alarm("full")
    assert node.states() == []


def test_a_signature_proves_who_sent_it_and_when(tmp_path: Path) -> None:
    key = bytes(range(32))
    secret = tmp_path / "secret"
    secret.write_text(f"whsec_{base64.b64encode(key).decode()}\n")
    with web_server() as server:
        node = Happenings(tmp_path, hook(server.port, secret_file=secret))
        node.alarm("full")
        node.step()
    ((_, head, body),) = server.requests
    signed = f"{head['webhook-id']}.{int(node.now.timestamp())}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert head["webhook-signature"] == f"v1,{expected}"


@pytest.mark.parametrize("status", [302, 404, 503])
def test_what_is_not_taken_is_tried_again_later_as_the_same_message(tmp_path: Path, status: int) -> None:
    with web_server() as server:
        node = Happenings(tmp_path, hook(server.port), herald={"retry_seconds": 30})
        node.alarm("full")
        server.status = status
        assert (node.step(), node.step(after_s=29)) == (0, 0)
        server.status = 204
        assert (node.step(after_s=2), node.step(after_s=1000)) == (1, 0)
    assert len(server.requests) == 2
    assert len({head["webhook-id"] for _, head, _ in server.requests}) == 1
    assert node.states() == [("hook", "alarm-raised", "told")]


def test_after_a_time_it_is_parked_with_an_alarm_that_the_next_success_clears(tmp_path: Path) -> None:
    with web_server() as server:
        node = Happenings(tmp_path, hook(server.port), herald={"give_up_hours": 1})
        node.refuse()
        server.status = 500
        node.step()
        node.step(after_s=2 * HOUR_S)
        assert node.states()[0] == ("hook", "job-refused", "parked")
        assert node.alarms() == [("notice", "hook")]
        server.status = 200
        assert node.step(after_s=HOUR_S) == 2  # that its alarm is on, and then over
        assert node.alarms() == []


def test_a_herald_that_died_leaves_its_notice_to_the_next(tmp_path: Path) -> None:
    with web_server() as server:
        node = Happenings(tmp_path, hook(server.port))
        node.alarm("full")
        with node.database.begin() as connection:
            assert notices.claim(connection, "hook", node.now, 60.0)
        assert (node.step(after_s=59), node.step(after_s=2)) == (0, 1)


def test_a_server_is_known_by_the_certificates_that_are_named(tmp_path: Path) -> None:
    ours, stranger = write_certificate(tmp_path, "ours"), write_certificate(tmp_path, "stranger")
    with web_server(ours) as server:
        url = f"https://localhost:{server.port}/"
        trusting = hook(server.port, url=url, ca=ours[0])
        node = Happenings(tmp_path, trusting, {**trusting, "name": "wary", "ca": stranger[0]})
        node.alarm("full")
        assert (node.step(), node.step("wary")) == (1, 0)
    with node.database.read() as connection:
        wary = notices.list_notices(connection, 1)[0]
    assert (wary.state, "self-signed" in wary.outcome) == ("pending", True)


def test_mail_is_sent_by_starttls_after_a_login(tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path, "mail")
    (tmp_path / "password").write_text("open sesame\n")
    with mail_server(certificate) as server:
        mail = {"host": "localhost", "port": server.port, "sender": "node@example.org", "ca": certificate[0]}
        mail |= {"user": "node", "password_file": tmp_path / "password"}
        node = Happenings(tmp_path, letter(), mail=mail)
        node.alarm("4 GB left")
        assert node.step("letter") == 1
    (sent,) = server.mails
    assert server.logins == [(b"node", b"open sesame")]
    assert (sent["From"], sent["To"], sent["Subject"]) == (
        "node@example.org",
        "pacs@example.org",
        "PANCREAS: alarm-raised",
    )
    assert sent["Message-ID"].endswith("@example.org>")
    assert sent.get_content().splitlines() == [
        "PANCREAS, 2026-01-02T03:04:05+00:00", "alarm disk archive: an alarm is on", "4 GB left",
    ]  # fmt: skip


def test_a_recipient_who_is_refused_does_not_double_the_mail_of_the_others(tmp_path: Path) -> None:
    with mail_server() as server:
        mail = {"host": "127.0.0.1", "port": server.port, "sender": "node@example.org", "security": "none"}
        node = Happenings(tmp_path, letter(recipients=["a@example.org", "b@example.org"]), mail=mail)
        server.refuses = {"b@example.org"}
        node.alarm("full")
        assert node.step("letter") == 1
        server.refuses = {"a@example.org", "b@example.org"}
        node.alarm(None)
        assert node.step("letter") == 0
    assert len(server.mails) == 1
    assert [state for *_, state in node.states()] == ["told", "pending"]


def test_a_change_beyond_the_band_is_told_and_a_smaller_one_is_not(tmp_path: Path) -> None:
    with web_server() as server:
        node = Happenings(tmp_path, hook(server.port))
        node.measure("1.1", "20200101", 80.0)
        node.measure("1.2", "20210101", 76.0)
        node.measure("1.3", "20220101", 50.0)
        node.step()
    (told,) = [json.loads(body) for _, _, body in server.requests]
    assert (told["type"], told["data"]["job"]) == ("volume-changed", "3")
    assert [state for *_, state in node.states()] == ["moot", "moot", "told"]


def test_case_34_a_patient_is_told_of_only_where_that_is_set(tmp_path: Path) -> None:
    with web_server() as server:
        node = Happenings(
            tmp_path,
            hook(server.port),
            hook(server.port, name="ward", include_patient=True, template="$patient_name: $volume_ml mL"),
        )
        node.measure("1.1", "20200101", 80.0)
        node.measure("1.2", "20210101", 50.0)
        node.refuse(uid="1.3")
        node.step()
        secret = b"".join(body for _, _, body in server.requests)
        assert not any(word in secret for word in (b"P^1", b"Doe", b"1.1.0", b"50.0", b"2021"))
        node.step("ward")
    told = json.loads(server.requests[-2][2])
    assert told["text"] == "Doe^Jane: 50.0 mL"
    assert (told["data"]["change_percent"], told["data"]["study_instance_uid"]) == ("-37.5", "1.2.0")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"template": "$patient_name"}, "unknown fields"),
        ({"template": "{0.__class__}", "subject": "$"}, "no template"),
        ({"url": "ftp://127.0.0.1/"}, "needs a url"),
        ({"url": "https://me:secret@127.0.0.1/"}, "without user"),
        ({"url": "http://ward.example.org/", "include_patient": True}, "https"),
        ({"kind": "email"}, "recipients"),
        ({"recipients": ["a@b.org\nBcc: c@d.org"]}, "no address"),
        ({"events": []}, "at least 1"),
    ],
)
def test_what_cannot_be_told_is_refused_at_the_start(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        NotificationSettings(**{**hook(9), "events": ["job-failed"], **changes})


def test_a_missing_secret_and_a_missing_mail_server_are_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="'hook': secret_file"):
        Happenings(tmp_path, hook(9, secret_file=tmp_path / "nothing"))
    with pytest.raises(Misconfigured, match="and e-mail needs it"):
        Happenings(tmp_path, letter())


def test_a_field_cannot_break_out_of_its_line(tmp_path: Path) -> None:
    with mail_server() as server:
        mail = {"host": "127.0.0.1", "port": server.port, "sender": "node@example.org", "security": "none"}
        node = Happenings(tmp_path, letter(subject="$reason"), mail=mail)
        node.alarm("full\r\nBcc: everybody@example.org")
        assert node.step("letter") == 1
    assert "Bcc" not in server.mails[0]
    assert server.mails[0]["Subject"] == "full Bcc: everybody@example.org"


def test_the_wait_doubles_and_ends() -> None:
    persistence = Persistence(Backoff(30, 1800), HOUR_S)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    notice = notices.Notice(1, "hook", Topic.JOB_FAILED, 1, None, "", 3, at)
    assert persistence.next_try(notice, at) == at + timedelta(seconds=120)
    assert persistence.next_try(replace(notice, created_at=at - timedelta(hours=1)), at) is None


def test_notify_tries_every_way_and_lists_what_was_told(tmp_path: Path) -> None:
    from dicomnode.cli import app

    with web_server() as server:
        config = tmp_path / "node.toml"
        config.write_text(
            f'[archive]\npath = "{tmp_path}/archive"\n[[notifications]]\nname = "hook"\nkind = "webhook"\n'
            f'events = ["job-failed"]\nurl = "http://127.0.0.1:{server.port}/"\n'
        )
        run = CliRunner().invoke(app, ["notify", "--test", "--config", str(config)])
        assert (run.exit_code, json.loads(server.requests[0][2])["type"]) == (0, "test")
    assert CliRunner().invoke(app, ["notify", "--test", "--config", str(config)]).exit_code == 1
    node = Happenings(tmp_path, hook(9))
    node.alarm("full")
    listed = CliRunner().invoke(app, ["notify", "--json", "--config", str(config)])
    assert [(one["topic"], one["state"]) for one in json.loads(listed.stdout)] == [("alarm-raised", "pending")]


def test_the_node_runs_a_herald_for_each_notification_and_knows_what_it_wants(tmp_path: Path) -> None:
    archive = {"path": tmp_path / "archive", "reserve_gb": 0}
    node = Node(Settings(archive=archive, notifications=[{**hook(9), "events": ["alarm-raised"]}]), None)
    names = [name for name, _ in node._plan(frozenset({Actor.HERALD}))]
    with node._database.begin() as connection:
        watch.raise_alarm(connection, AlarmKind.DISK, "archive", "full", datetime.now(UTC))
        assert notices.is_any_due(connection, "hook", datetime.now(UTC))
    node._database.close()
    assert [name for name in names if "herald" in name] == ["herald-hook"]

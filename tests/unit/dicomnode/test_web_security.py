"""Who gets to the web interface, what they may do there, and what the audit trail says of it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from httpx import Response
from pydantic import ValidationError
from starlette.testclient import TestClient

from dicomnode.errors import Misconfigured
from dicomnode.settings import Settings
from dicomnode.web import accounts, api, app, health, metrics, signin, stow
from dicomnode.web.accounts import Role, password_line, read_accounts, token_line
from tests.audit_messages import kind, read_messages
from tests.clinic import Clinic

PASSWORD = "correct horse battery"


def cheap_line(role: Role) -> str:
    """As `dicomnode web-user` makes it, but that nobody waits for scrypt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "_COST", (2, 8, 1))
        return password_line(role, role, PASSWORD)


LINES = {role: cheap_line(role) for role in Role}
TOKENS = {role: token_line(f"{role} program", role) for role in Role}


def write_users(folder: Path, *lines: str, mode: int = 0o600) -> Path:
    file = folder / "users.txt"
    file.write_text("# who may\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    file.chmod(mode)
    return file


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    lines = [*LINES.values(), *(line for _, line in TOKENS.values())]
    return Clinic(tmp_path, web={"users": write_users(tmp_path, *lines), "session_minutes": 10})


@pytest.fixture(scope="module")
def open_clinic(tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    """Of a site without users; nothing is changed there."""
    return Clinic(tmp_path_factory.mktemp("open"))


def visit(clinic: Clinic, **headers: str) -> TestClient:
    return TestClient(clinic.app(), base_url="http://localhost", headers=headers, follow_redirects=False)


def sign_in(client: TestClient, name: str = Role.VIEWER, password: str = PASSWORD, to: str = "/") -> Response:
    return client.post("/login", params={"to": to}, data={"name": name, "password": password})


def bearer(role: Role) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[role][0]}"}


def audited(clinic: Clinic) -> list[tuple[str, str, str]]:
    """Kind, outcome and user of each message."""
    return [
        (
            kind(message),
            message.find("EventIdentification").get("EventOutcomeIndicator"),
            message.find("ActiveParticipant").get("UserID"),
        )
        for message in read_messages(clinic.settings.audit_folder)
    ]


def every_route(*routers: APIRouter) -> set[tuple[str, str]]:
    """Method and path of each, with 1 for every number."""
    return {
        (method, re.sub("{[a-z_]+}", "1", route.path))
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }


def test_nobody_gets_to_a_page_who_is_not_signed_in(clinic: Clinic) -> None:
    inside = every_route(*app.FOR_VIEWERS)
    assert len(inside) > 20
    client = visit(clinic)
    for method, path in inside:
        answer = client.request(method, path)
        if path.startswith("/api/"):
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"
        else:
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/login")


def test_signing_in_leads_to_the_page_that_was_asked_for_and_out_ends_it(clinic: Clinic) -> None:
    client = visit(clinic)
    answer = sign_in(client, to="/jobs?state=done")
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs?state=done")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "viewer" in client.get("/").text
    key = client.cookies[signin.COOKIE]
    client.post("/logout")
    client.cookies.set(signin.COOKIE, key, domain="localhost.local")
    assert client.get("/").status_code == 303
    assert audited(clinic) == [("Login", "0", "viewer"), ("Logout", "0", "viewer")]


def test_signing_in_leads_nowhere_else(clinic: Clinic) -> None:
    client = visit(clinic)
    for to in ("//evil.example", "https://evil.example", "/\\evil.example", "jobs", "/\r\nx: y", "/\tx"):
        assert sign_in(client, to=to).headers["location"] == "/", to


@pytest.mark.parametrize(("name", "password"), [(Role.VIEWER, "wrong"), ("nobody", PASSWORD), ("viewer program", "x")])
def test_a_wrong_name_or_password_is_refused_and_recorded(clinic: Clinic, name: str, password: str) -> None:
    client = visit(clinic)
    answer = sign_in(client, name, password)
    assert answer.status_code == 403
    assert "Name or password is wrong" in answer.text
    assert client.get("/").status_code == 303
    assert audited(clinic) == [("Login", "4", name)]


def test_who_fails_too_often_waits_longer_and_longer(clinic: Clinic) -> None:
    client = visit(clinic)
    for _ in range(5):
        assert sign_in(client, password="wrong").status_code == 403
    assert sign_in(client).status_code == 429
    clinic.now += timedelta(seconds=2)
    assert sign_in(client, password="wrong").status_code == 403
    clinic.now += timedelta(seconds=1)
    refused = sign_in(client)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert client.get("/api/v1/jobs", headers=bearer(Role.VIEWER)).status_code == 429
    clinic.now += timedelta(seconds=3)
    assert sign_in(client).status_code == 303
    assert len(audited(clinic)) == 7


def test_a_session_ends_idle_and_a_page_that_fetches_itself_does_not_prolong_it(clinic: Clinic) -> None:
    client = visit(clinic)
    sign_in(client)
    clinic.now += timedelta(minutes=9)
    assert client.get("/").status_code == 200
    clinic.now += timedelta(minutes=9)
    assert client.get("/", headers={"X-Live": "1"}).status_code == 200
    clinic.now += timedelta(minutes=2)
    assert client.get("/").status_code == 303


def test_a_user_who_is_taken_off_the_file_is_out_at_once(clinic: Clinic, tmp_path: Path) -> None:
    client = visit(clinic)
    sign_in(client)
    write_users(tmp_path, LINES[Role.OPERATOR])
    assert client.get("/").status_code == 303


def test_a_file_of_users_that_is_spoilt_while_the_node_runs_changes_nothing(clinic: Clinic, tmp_path: Path) -> None:
    client = visit(clinic)
    sign_in(client)
    write_users(tmp_path, "spoilt")
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("role", "allowed"), [(None, 0), (Role.SENDER, 0), (Role.MONITOR, 1), (Role.VIEWER, 2), (Role.OPERATOR, 3)]
)
def test_each_role_may_what_those_before_it_may(clinic: Clinic, role: Role | None, allowed: int) -> None:
    client = visit(clinic, **(bearer(role) if role else {}))
    answers = [client.get("/metrics"), client.get("/api/v1/jobs"), client.post("/jobs/1/requeue")]
    done = [answer.status_code not in (303, 401, 403) for answer in answers]
    assert done == [True] * allowed + [False] * (3 - allowed)


def test_a_wrong_token_is_refused_and_recorded(clinic: Clinic) -> None:
    assert visit(clinic, Authorization="Bearer wrong").get("/api/v1/jobs").status_code == 401
    assert audited(clinic) == [("Login", "4", "unknown token")]


def test_health_says_more_only_to_who_is_signed_in(clinic: Clinic) -> None:
    assert visit(clinic).get("/health").json() == {"status": "not ok"}
    assert visit(clinic).get("/health/live").json() == {"status": "ok"}
    assert "checks" in visit(clinic, **bearer(Role.MONITOR)).get("/health").json()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Origin": "http://localhost"}, 303),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_a_form_of_another_site_does_nothing(open_clinic: Clinic, headers: dict[str, str], status: int) -> None:
    client = visit(open_clinic, **headers)
    assert client.post("/logout").status_code == status
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080"])
def test_the_names_of_this_machine_are_served(open_clinic: Clinic, host: str) -> None:
    assert visit(open_clinic, Host=host).get("/health/live").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example", "", "[::1"])
def test_another_name_is_refused(open_clinic: Clinic, host: str) -> None:
    """A page of another site may have its name lead to this machine, and would then read what it says."""
    assert visit(open_clinic, Host=host).get("/").status_code == 421


def test_a_name_of_the_settings_is_served(clinic: Clinic) -> None:
    web = clinic.settings.web.model_copy(update={"names": ("node.example.org",), "proxy": "127.0.0.1"})
    clinic.settings = clinic.settings.model_copy(update={"web": web})
    answer = visit(clinic, Host="node.example.org").get("/login")
    assert answer.status_code == 200
    assert "max-age" in answer.headers["strict-transport-security"]


@pytest.mark.parametrize("path", ["/", "/nothing", "/static/style.css", "/health", "/api/v1/jobs"])
def test_every_answer_says_what_browsers_may_do(open_clinic: Clinic, path: str) -> None:
    headers = visit(open_clinic).get(path).headers
    policy = headers["content-security-policy"].split("; ")
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == ("no-cache" if path.startswith("/static/") else "no-store")


def test_an_error_that_nobody_expected_tells_nothing_of_itself(
    open_clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Doe^Jane")

    monkeypatch.setattr("dicomnode.store.listing.count_jobs", fail)
    client = TestClient(open_clinic.app(), base_url="http://localhost", raise_server_exceptions=False)
    for path in ("/", "/api/v1/overview"):
        answer = client.get(path)
        assert answer.status_code == 500
        assert "Doe" not in answer.text
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"


def test_a_form_of_any_length_is_not_read(open_clinic: Clinic) -> None:
    assert visit(open_clinic).post("/jobs/1/requeue", data={"by": "x" * 100_000}).status_code == 413


def test_no_page_has_a_script_or_a_style_of_its_own_or_of_elsewhere() -> None:
    folder = Path(app.__file__).parent
    for template in (folder / "templates").iterdir():
        text = template.read_text(encoding="utf-8")
        for forbidden in (" style=", "<style", "onclick", "onload", "onsubmit", "javascript:", "http://", "https://"):
            assert forbidden not in text.replace("https://doi.org", ""), f"{template.name}: {forbidden}"
        assert text.count("<script") == text.count('<script src="/static/'), template.name


@pytest.mark.parametrize(
    ("web", "problem"),
    [
        ({"host": "0.0.0.0"}, "set users"),
        ({"host": "node.example.org"}, "set users"),
        ({"names": ["node.example.org"]}, "set users"),
        ({"host": "10.1.2.3", "users": "u"}, "in the clear"),
        ({"names": ["node.example.org"], "users": "u"}, "in the clear"),
    ],
)
def test_what_others_reach_needs_users_and_https(web: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Settings(web=web)
    for guard in ({"tls": True}, {"proxy": "127.0.0.1"}):
        assert Settings(web={**web, "users": "u", **guard}).web.enabled


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("anna", "the role is one of"),
        ("anna:owner:scrypt:x", "the role is one of"),
        ("anna:viewer:plain:secret", "not one that"),
        ("anna:viewer:scrypt:1:2:3", "not one that"),
        ("anna:viewer:token:abc", "not one that"),
        (":viewer:token:" + "0" * 64, "a name has"),
    ],
)
def test_a_line_that_nobody_could_sign_in_with_is_named(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(Misconfigured, match=rf"line 4: .*{problem}"):
        read_accounts(write_users(tmp_path, LINES[Role.VIEWER], line))


def test_a_file_of_users_that_others_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="chmod 600"):
        read_accounts(write_users(tmp_path, LINES[Role.VIEWER], mode=0o644))


def test_no_password_and_no_token_stand_in_the_file(tmp_path: Path) -> None:
    text = write_users(tmp_path, LINES[Role.VIEWER], TOKENS[Role.VIEWER][1]).read_text(encoding="utf-8")
    assert PASSWORD not in text
    assert TOKENS[Role.VIEWER][0] not in text
    with pytest.raises(ValueError, match="12 characters"):
        password_line("anna", Role.VIEWER, "too short")


def test_what_needs_no_viewer_shows_no_patient() -> None:
    """The routers outside `FOR_VIEWERS`, so that a new one is thought about."""
    outside = {path for _, path in every_route(signin.router, health.router, metrics.router)}
    assert outside == {"/login", "/logout", "/health", "/health/live", "/health/ready", "/metrics"}
    assert {method for method, _ in every_route(stow.router)} == {"POST"}
    assert api.router in app.FOR_VIEWERS

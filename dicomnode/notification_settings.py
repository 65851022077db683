"""The tables of the settings file about telling people and systems what happened."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from dicomnode.sections import Port, Section
from dicomnode.topics import FIELDS, PATIENT_FIELDS, Template, Topic

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class NotificationSettings(Section):
    """Who is told of what, and how."""

    name: str = Field(min_length=1, max_length=64, description="its name in this node; alarms and notices carry it")
    kind: Literal["webhook", "email"] = Field(description="webhook or email")
    events: tuple[Topic, ...] = Field(
        min_length=1,
        description="job-failed, job-refused, alarm-raised, alarm-cleared, volume-changed: beyond the history's bands",
    )
    url: str = Field("", description="where a webhook posts to; http:// or https://, without user and password")
    recipients: tuple[str, ...] = Field((), description="addresses that e-mail goes to")
    subject: str = Field("$node: $event", description="subject of e-mail, with fields as in template")
    template: str = Field(
        "$node, $at\n$summary\n$reason\n", description="text with $fields; nothing else in it is evaluated"
    )
    include_patient: bool = Field(False, description="tell who the patient is, which scan and what volume")
    secret_file: Path | None = Field(None, description="file whose content signs a webhook; unset: unsigned")
    ca: Path | None = Field(None, description="certificates that sign the webhook's server's, PEM; unset: the system's")

    @field_validator("recipients")
    @classmethod
    def _are_addresses(cls, recipients: tuple[str, ...]) -> tuple[str, ...]:
        for one in recipients:
            if one.count("@") != 1 or not one.isprintable() or set(one) & set(" ,;<>"):
                raise ValueError(f"{one!r} is no address")
        return recipients

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        known = FIELDS | PATIENT_FIELDS if self.include_patient else FIELDS
        for text in (self.subject, self.template):
            if not Template(text).is_valid() or (unknown := Template(text).names - known):
                which = "is no template" if not Template(text).is_valid() else f"has unknown fields: {sorted(unknown)}"
                raise ValueError(f"{text!r} {which}; there are {', '.join(sorted(known))}")
        if self.kind == "email" and not self.recipients:
            raise ValueError("e-mail needs recipients")
        if self.kind == "webhook":
            self._check_url()
        return self

    def _check_url(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError("a webhook needs a url: http:// or https://, without user and password")
        if self.include_patient and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ValueError("include_patient needs https")


class MailSettings(Section):
    """The server that takes e-mail."""

    host: str = Field("", description="SMTP server; empty: there is no e-mail")
    port: Port = Field(587, description="its TCP port")
    security: Literal["starttls", "tls", "none"] = Field("starttls", description="starttls, tls from the start, none")
    sender: str = Field("", description="address that e-mail comes from")
    user: str = Field("", description="name to log in with; empty: no login")
    password_file: Path | None = Field(None, description="file that holds the password")
    ca: Path | None = Field(None, description="certificates that sign the server's, PEM; unset: the system's")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.host and self.sender.count("@") != 1:
            raise ValueError("mail.sender is no address")
        if self.user and self.security == "none":
            raise ValueError("mail.user needs mail.security: a password does not go over the network in the clear")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("mail.user and mail.password_file go together")
        return self


class HeraldSettings(Section):
    """How notices are told."""

    timeout_seconds: float = Field(20.0, gt=0, description="time-out of connection and answer, of webhook and e-mail")
    retry_seconds: float = Field(30.0, gt=0, description="wait before a notice is tried again; doubles at each further")
    retry_cap_seconds: float = Field(1800.0, gt=0, description="the longest wait between two attempts")
    give_up_hours: float = Field(24.0, gt=0, description="a notice tried for so long is parked, with an alarm")

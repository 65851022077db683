"""The tables of the settings file about other archives: where results go, where series are pulled from, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dicomnode.sections import AETitle, Pattern, Port, Section

_DIMSE = ("ae_title", "host", "port")
_DIMSE_ONLY = (*_DIMSE, "tls", "certificate_name")
_WEB_ONLY = ("user", "secret_file", "secret_variable")


class EndpointSettings(Section):
    """An archive that is spoken to by DIMSE (`ae_title`, `host`, `port`) or by DICOMweb (`url`)."""

    name: str = Field(min_length=1, max_length=64, description="its name in this node; rows and commands carry it")
    ae_title: AETitle | None = Field(None, description="AE title that is called, for DIMSE")
    host: str | None = Field(None, min_length=1, description="host name or address, for DIMSE")
    port: Port | None = Field(None, description="TCP port, for DIMSE")
    tls: bool = Field(False, description="speak TLS, with the certificate of [tls]; of a url, https says so")
    ca: Path | None = Field(
        None, description="certificates that sign its own, PEM; unset: tls.ca, and for https without that the system's"
    )
    certificate_name: str | None = Field(None, description="name that its certificate must carry; unset: host")
    url: str | None = Field(
        None,
        pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*)?$",
        description="base of its DICOMweb services, in place of ae_title, host and port",
    )
    user: str | None = Field(None, description="user name of HTTP Basic; unset: the secret is a bearer token")
    secret_file: Path | None = Field(None, description="file with the password or bearer token")
    secret_variable: str | None = Field(None, description="environment variable with the password or bearer token")

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> Self:
        if self.url is None:
            missing = [name for name in _DIMSE if getattr(self, name) is None]
            odd = [name for name in _WEB_ONLY if getattr(self, name) is not None]
            if missing:
                raise ValueError(f"give url, or ae_title, host and port ({', '.join(missing)} missing)")
        else:
            odd = [name for name in _DIMSE_ONLY if getattr(self, name)]
            if self.user is not None and not (self.secret_file or self.secret_variable):
                raise ValueError("user needs a password, from secret_file or secret_variable")
        if odd:
            raise ValueError(f"{', '.join(odd)} does not go with {'ae_title' if self.url is None else 'url'}")
        if self.secret_file and self.secret_variable:
            raise ValueError("give secret_file or secret_variable, not both")
        return self

    @property
    def address(self) -> tuple[str, str]:
        """AE title, empty for DICOMweb, and host, as the audit trail names it."""
        if self.url is not None:
            return "", self.url.split("/")[2]
        return self.ae_title or "", self.host or ""


class DestinationSettings(EndpointSettings):
    """An archive that the results are sent to, by C-STORE or STOW-RS."""

    storage_commitment: bool = Field(
        False, description="whether it offers storage commitment; a result is then confirmed only by its report"
    )

    @model_validator(mode="after")
    def _commits_by_dimse(self) -> Self:
        if self.url is not None and self.storage_commitment:
            raise ValueError("storage_commitment is asked for by DIMSE, not of a url")
        return self


class SourceSettings(EndpointSettings):
    """An archive that series are pulled from, by C-FIND and C-MOVE or C-GET, or by QIDO-RS and WADO-RS."""

    retrieve: Literal["move", "get"] = Field(
        "move",
        description="move: it sends to the listener of this node, which it must know; get: over the same association",
    )
    timeout_seconds: float = Field(60.0, gt=0, description="connection, association and response time-out")


class PullSettings(Section):
    """A rule that finds new series in a source at times, and fetches them once. An absent filter lets all through."""

    name: str = Field(min_length=1, max_length=64, description="its name in logs and alarms")
    source: str = Field(description="name of a source")
    every_minutes: float = Field(60.0, gt=0, description="time between the beginnings of two looks")
    hours: tuple[Annotated[int, Field(ge=0, le=23)], ...] = Field(
        (), description="hours of the day, in this machine's zone, in which it looks and fetches; empty: all"
    )
    look_back_days: int = Field(1, ge=0, le=36500, description="Study Date at most so many days before today")
    at_most: int = Field(20, ge=1, description="studies, of which something is new, that one look takes up")
    modality: str = Field("CT", min_length=1, max_length=16, description="Modality of the series")
    study_description: Pattern | None = Field(None, description="pattern found in StudyDescription")
    series_description: Pattern | None = Field(None, description="pattern found in SeriesDescription")
    minimum_instances: int = Field(
        1, ge=1, description="a series with fewer is left; one whose number the source does not say is taken"
    )


class PullerSettings(Section):
    """How patiently the rules are followed."""

    retry_seconds: float = Field(
        60.0, gt=0, description="wait before the second attempt at a series; doubles at each further"
    )
    retry_cap_seconds: float = Field(3600.0, gt=0, description="the longest wait between two attempts")
    give_up_hours: float = Field(96.0, gt=0, description="a series tried for so long is given up, with an alarm")
    alarm_minutes: float = Field(60.0, gt=0, description="a source that fails for so long raises the alarm")

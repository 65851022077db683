"""The tables of the settings file, each declared once with the help of its keys."""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from dicomnode.phases import Phase


def _ae_title(value: str) -> str:
    """An AE title (PS3.5 6.2, VR AE): 1 to 16 printable ASCII characters, no backslash, no outer spaces."""
    if (
        not 1 <= len(value) <= 16
        or value != value.strip()
        or "\\" in value
        or not (value.isascii() and value.isprintable())
    ):
        raise ValueError("an AE title is 1 to 16 printable ASCII characters without backslash or outer spaces")
    return value


def _pattern(value: str) -> str:
    """A regular expression, in the syntax of Python's `re`."""
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from None
    return value


def _flips(value: str) -> str:
    """Axes of the patient, as in `models.card.Card.flips`."""
    if not re.fullmatch("L?P?S?", value):
        raise ValueError(f"{value!r}: each of L, P and S once or not at all, in this order")
    return value


def split_caller(text: str) -> tuple[str, IPv4Network | IPv6Network | None]:
    """`AET` and `AET@NETWORK` as AE title and where it may call from (None: anywhere); raises ValueError."""
    if "@" not in text:
        return _ae_title(text), None
    title, _, network = text.rpartition("@")
    return _ae_title(title), ip_network(network)


def _caller(value: str) -> str:
    split_caller(value)
    return value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Caller = Annotated[str, AfterValidator(_caller)]
Port = Annotated[int, Field(ge=1, le=65535)]
Pattern = Annotated[str, AfterValidator(_pattern)]


class Criterion(StrEnum):
    """What may make one series of a study better than another."""

    PHASE = "phase"
    KERNEL = "kernel"
    CONTRAST = "contrast"
    THINNEST = "thinnest"
    MOST_SLICES = "most-slices"
    RULE_ORDER = "rule-order"


def split_preference(text: str) -> tuple[Criterion, str]:
    """`phase=PHASE` and `kernel=PATTERN` as criterion and value, the other criteria without one; raises ValueError."""
    name, equals, value = text.partition("=")
    try:
        criterion = Criterion(name)
    except ValueError:
        known = "phase=PHASE, kernel=PATTERN, contrast, thinnest, most-slices, rule-order"
        raise ValueError(f"{text!r} is unknown; there are {known}") from None
    takes_value = criterion in (Criterion.PHASE, Criterion.KERNEL)
    if takes_value != bool(value) or (equals and not takes_value):
        raise ValueError(f"{text!r}: {criterion} takes {'a value after =' if takes_value else 'no value'}")
    if criterion is Criterion.PHASE and value not in set(Phase):
        raise ValueError(f"{text!r}: phases are {', '.join(Phase)}")
    return criterion, _pattern(value)


def _preference(value: str) -> str:
    split_preference(value)
    return value


class Section(BaseModel):
    """A table of the TOML file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ListenerSettings(Section):
    """The C-STORE and C-ECHO listener: whom it lets in, and how much."""

    ae_title: AETitle = Field("PANCREAS", description="AE title that senders call")
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every interface")
    port: int = Field(11112, ge=0, le=65535, description="TCP port; 0 takes a free one")
    tls: bool = Field(False, description="speak TLS, and only with peers whose certificate tls.ca signed")
    require_called_ae: bool = Field(False, description="reject who calls another AE title than ae_title")
    allowed_callers: tuple[Caller, ...] = Field(
        (), description="calling AE titles that may associate, AET or AET@NETWORK (CT1@10.1.2.0/24); empty: any"
    )
    on_conflict: Literal["refuse", "warn"] = Field(
        "refuse", description="answer to other content under the UID of a stored one: refuse (0xA701) or warn (0xB000)"
    )
    max_associations: int = Field(16, ge=1, le=400, description="associations open at once; more are rejected for now")
    max_associations_per_address: int = Field(8, ge=1, le=400, description="the same, of one address")
    max_associations_per_minute: int = Field(1200, ge=1, description="associations of one address in a minute")
    max_dataset_mb: float = Field(1024.0, gt=0, description="a larger data set aborts its association, MB")
    max_receiving_mb: float = Field(2048.0, gt=0, description="data sets in memory of all associations together, MB")
    connect_seconds: float = Field(10.0, gt=0, description="from connection to association request, TLS included")
    idle_seconds: float = Field(60.0, gt=0, description="an association is aborted after this long without a PDU")


class TLSSettings(Section):
    """This node's certificate and whom it trusts, for the listener and for destinations that speak TLS."""

    certificate: Path | None = Field(None, description="this node's certificate, PEM, with intermediates if any")
    key: Path | None = Field(None, description="its private key, PEM, without a password, for no others to read")
    ca: Path | None = Field(None, description="certificates that sign those of the peers, PEM")
    minimum_version: Literal["1.2", "1.3"] = Field("1.2", description="lowest version of TLS that is spoken")


class ArchiveSettings(Section):
    """Files on disk."""

    path: Path = Field(Path("data/archive"), description="folder of received and resulting DICOM files")
    reserve_gb: float = Field(1.0, ge=0, description="free space kept; below it C-STORE answers 0xA700")


class DatabaseSettings(Section):
    """The job table."""

    url: str | None = Field(None, description="SQLAlchemy URL; unset: SQLite file node.db beside the archive folder")


class SeriesSettings(Section):
    """When a series is complete, and which are analysed."""

    quiet_seconds: float = Field(30.0, gt=0, description="a series is complete this long after its last instance")
    grace_seconds: float = Field(
        600.0, gt=0, description="after so long without an instance, a series that lacks some is taken as it is"
    )
    believe_headers: bool = Field(
        True, description="wait for as many instances as the headers announce (ImagesInAcquisition and the like)"
    )
    minimum_slices: int = Field(20, ge=1, description="a series with fewer images is not analysed")
    prefer: tuple[Annotated[str, AfterValidator(_preference)], ...] = Field(
        (), description="criteria, in order, that choose one series of each study; empty: every one is analysed"
    )


class QuerySourceSettings(Section):
    """The archive that is asked by C-FIND how many instances a series has."""

    ae_title: AETitle | Literal[""] = Field(
        "", description="AE title of the archive that is asked how many instances a series has; empty: none is"
    )
    host: str = Field("127.0.0.1", min_length=1, description="its host name or address")
    port: Port = Field(104, description="its TCP port")
    timeout_seconds: float = Field(10.0, gt=0, description="connection, association and response time-out of the query")
    tls: bool = Field(False, description="speak TLS with it, with the certificate of [tls]")
    ca: Path | None = Field(None, description="certificates that sign its own, PEM; unset: tls.ca")
    certificate_name: str | None = Field(None, description="name that its certificate must carry; unset: host")


class WorkerSettings(Section):
    """The worker that runs the model."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    model: Path | Annotated[tuple[Path, ...], Field(min_length=1)] | None = Field(
        None,
        description="folder of a MONAI bundle, or a list of such, whose probabilities are averaged; "
        "unset: the bundle that ships",
    )
    flips: Annotated[str, AfterValidator(_flips)] | None = Field(
        None,
        description="axes of the patient, of L, P and S, to average mirrored images along; unset: as the model says",
    )
    batch_size: int = Field(1, ge=1, le=64, description="sliding windows per forward pass")
    lease_seconds: float = Field(
        60.0, ge=1, description="a running job is taken over after this long without a sign of life"
    )
    max_attempts: int = Field(3, ge=1, le=100, description="a job that was tried this often fails for good")
    retry_seconds: float = Field(30.0, gt=0, description="wait before a job's second attempt; doubles at each further")
    retry_cap_seconds: float = Field(900.0, gt=0, description="the longest wait between two attempts of a job")

    @property
    def bundles(self) -> tuple[Path, ...]:
        """The folders that `model` names; empty where it is unset."""
        return (self.model,) if isinstance(self.model, Path) else self.model or ()


class Range(Section):
    """From `min` to `max`, both included; an absent end is open."""

    min: float | None = Field(None, ge=0, description="the least that fits")
    max: float | None = Field(None, ge=0, description="the most that fits")

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self

    def holds(self, value: float | None) -> bool:
        """Whether the value is known and lies inside."""
        return value is not None and (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def __str__(self) -> str:
        if self.min is None:
            return f"at most {self.max:g}"
        return f"at least {self.min:g}" if self.max is None else f"{self.min:g} to {self.max:g}"


class RuleAction(StrEnum):
    """What a rule does with the series that it decides."""

    ANALYSE = "analyse"
    SKIP = "skip"


class RuleSettings(Section):
    """A rule on series: it decides those for which all of its conditions hold; an absent condition always holds."""

    name: str = Field(min_length=1, max_length=64, description="its name in reasons and explanations")
    action: RuleAction = Field(description="analyse or skip")
    modality: str | None = Field(None, description="Modality, exactly")
    image_type: tuple[str, ...] = Field((), description="values of ImageType that every slice carries")
    not_image_type: tuple[str, ...] = Field((), description="values of ImageType of which no slice carries any")
    description: Pattern | None = Field(None, description="pattern found in SeriesDescription")
    protocol: Pattern | None = Field(None, description="pattern found in ProtocolName")
    body_part: Pattern | None = Field(None, description="pattern found in BodyPartExamined")
    kernel: Pattern | None = Field(None, description="pattern found in ConvolutionKernel")
    manufacturer: Pattern | None = Field(None, description="pattern found in Manufacturer")
    thickness_mm: Range | None = Field(None, description="range of SliceThickness in mm, {min = , max = }")
    slices: Range | None = Field(None, description="range of the number of axial slices, {min = , max = }")
    contrast: bool | None = Field(None, description="whether a contrast agent is recorded")
    phase: tuple[Phase, ...] = Field((), description="contrast phases, any of them")


class CourierSettings(Section):
    """How results are sent."""

    retry_seconds: float = Field(10.0, gt=0, description="wait before the second attempt; doubles at each further one")
    retry_cap_seconds: float = Field(900.0, gt=0, description="the longest wait between two attempts")
    give_up_hours: float = Field(96.0, gt=0, description="a delivery tried for so long is parked, with an alarm")
    timeout_seconds: float = Field(30.0, gt=0, description="connection, association and response time-out")
    commitment_timeout_seconds: float = Field(
        3600.0, gt=0, description="an archive that has not reported for so long is asked for storage commitment again"
    )
    commitment_sendings: int = Field(
        3, ge=1, le=100, description="an instance sent so often and never committed to is parked, with an alarm"
    )


class AuditSettings(Section):
    """The audit trail (PS3.15 A.5), and the syslog server that gets a copy."""

    path: Path | None = Field(None, description="folder of the audit trail; unset: audit beside the archive folder")
    source_id: str | None = Field(
        None, min_length=1, max_length=255, description="AuditSourceID of the messages; unset: AE title@host"
    )
    enterprise_site_id: str = Field("", max_length=255, description="AuditEnterpriseSiteID; empty: left out")
    syslog_host: str | None = Field(
        None, min_length=1, description="syslog server; unset: the trail stays on this disk"
    )
    syslog_protocol: Literal["tls", "udp"] = Field("tls", description="tls (RFC 5425) or udp (RFC 5426)")
    syslog_port: Port | None = Field(None, description="port of the server; unset: 6514 for tls, 514 for udp")
    syslog_ca: Path | None = Field(None, description="certificates that sign the server's, PEM; unset: tls.ca")

    @property
    def port(self) -> int:
        """The port in force."""
        return self.syslog_port or (6514 if self.syslog_protocol == "tls" else 514)


class RetentionSettings(Section):
    """When files are removed. Unset, the default: never."""

    received_days: float | None = Field(
        None, ge=1, description="received files of a series are removed so long after its last one; unset: never"
    )
    results_days: float | None = Field(
        None, ge=1, description="results are removed so long after they were made; unset: never"
    )
    quota_gb: float | None = Field(
        None, gt=0, description="above so much, the received files of the oldest series are removed; unset: no limit"
    )


class ResultsSettings(Section):
    """What the node makes of a series beside SEG and SR."""

    pdf: bool = Field(False, description="also a page as Encapsulated PDF, for viewers that show no SR")


class PriorsSettings(Section):
    """Where earlier reports of this product are looked for."""

    source: str = Field("", description="name of the source whose reports are read into the history; empty: none is")


class HistorySettings(Section):
    """What a change between two volumes of a patient is called; a model of worse repeatability widens the bands."""

    within_percent: float = Field(10.0, ge=0, description="a smaller change lies within measurement error")
    beyond_percent: float = Field(25.0, gt=0, description="a larger change exceeds the expected variability")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.within_percent > self.beyond_percent:
            raise ValueError("within_percent is above beyond_percent")
        return self


class WebSettings(Section):
    """The web interface: dashboard, overlays, API."""

    enabled: bool = Field(True, description="whether the node serves it")
    host: str = Field(
        "127.0.0.1", min_length=1, description="address to serve on; not loopback only with users and TLS"
    )
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0 takes a free one")
    names: tuple[str, ...] = Field((), description="host names it is called by, besides localhost; others are refused")
    users: Path | None = Field(None, description="file of users and tokens; unset: all on this machine are operators")
    session_minutes: float = Field(30.0, gt=0, description="a session ends after so long without a page being opened")
    tls: bool = Field(False, description="speak HTTPS, with the certificate of [tls]")
    proxy: str | None = Field(
        None, min_length=1, description="address or network of the reverse proxy that speaks HTTPS in its place"
    )

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach it."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_https(self) -> bool:
        """Whether browsers speak HTTPS with it, or with the proxy before it."""
        return self.tls or self.proxy is not None

    @model_validator(mode="after")
    def _is_guarded(self) -> Self:
        if self.is_loopback and not self.names:
            return self
        where = f"{self.host} as {', '.join(self.names)}" if self.names else self.host
        if self.users is None:
            raise ValueError(f"on {where} others reach it: set users")
        if not self.is_https:
            raise ValueError(f"on {where} passwords would go in the clear: set tls, or proxy where that speaks HTTPS")
        return self

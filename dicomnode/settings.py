"""Settings: declared once with help, read from one TOML file and `DICOMNODE_*` variables, checked at start.

A variable wins over the file, the file over the default. Nested keys take two underscores:
`DICOMNODE_LISTENER__PORT=104`. Relative paths count from the working directory.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from dicomnode.errors import Misconfigured

PREFIX = "DICOMNODE_"
CONFIG_VARIABLE = "DICOMNODE_CONFIG"


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


AETitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    """A table of the TOML file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ListenerSettings(Section):
    """The C-STORE and C-ECHO listener."""

    ae_title: AETitle = Field("PANCREAS", description="AE title that senders call")
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every interface")
    port: int = Field(11112, ge=0, le=65535, description="TCP port; 0 takes a free one")
    allowed_callers: tuple[AETitle, ...] = Field((), description="calling AE titles that may associate; empty: any")
    max_associations: int = Field(16, ge=1, le=1000, description="associations open at once; more are rejected for now")


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
    minimum_slices: int = Field(20, ge=1, description="a series with fewer images is not analysed")


class WorkerSettings(Section):
    """The worker that runs the model."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    model: Path | None = Field(None, description="folder of a MONAI bundle; unset: the bundle that ships")
    batch_size: int = Field(1, ge=1, le=64, description="sliding windows per forward pass")
    lease_seconds: float = Field(
        60.0, ge=1, description="a running job is taken over after this long without a sign of life"
    )
    max_attempts: int = Field(3, ge=1, le=100, description="a job that was tried this often fails for good")


class DestinationSettings(Section):
    """A PACS that the results are sent to."""

    name: str = Field(min_length=1, max_length=64, description="its name in this node; delivery rows carry it")
    ae_title: AETitle = Field(description="AE title that is called")
    host: str = Field(min_length=1, description="host name or address")
    port: Port = Field(description="TCP port")


class CourierSettings(Section):
    """How results are sent."""

    retry_seconds: float = Field(10.0, gt=0, description="wait before the second attempt; doubles at each further one")
    retry_cap_seconds: float = Field(900.0, gt=0, description="the longest wait between two attempts")
    timeout_seconds: float = Field(30.0, gt=0, description="connection, association and response time-out")


class WebSettings(Section):
    """The web interface. Reserved: nothing listens there yet."""

    host: str = Field("127.0.0.1", description="address of the web interface (reserved)")
    port: Port = Field(8080, description="port of the web interface (reserved)")


class Settings(BaseSettings):
    """Every setting of the node."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter="__")

    listener: ListenerSettings = ListenerSettings()
    archive: ArchiveSettings = ArchiveSettings()
    database: DatabaseSettings = DatabaseSettings()
    series: SeriesSettings = SeriesSettings()
    worker: WorkerSettings = WorkerSettings()
    courier: CourierSettings = CourierSettings()
    destinations: tuple[DestinationSettings, ...] = Field(
        (), description="where the results go; each gets both objects"
    )
    web: WebSettings = WebSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Variables before the file, whose content arrives as init values."""
        return env_settings, init_settings

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database.url or f"sqlite:///{(self.archive.path.resolve().parent / 'node.db').as_posix()}"


@dataclass(frozen=True)
class Effective:
    """One setting in force: its dotted key, its value and where the value came from."""

    key: str
    value: Any
    origin: str


def load(config: Path | None = None, environ: Mapping[str, str] | None = None) -> tuple[Settings, list[Effective]]:
    """Read and check the settings; returns them with the origin of each.

    config: the TOML file; None takes the one that DICOMNODE_CONFIG names, if any.
    environ: only its DICOMNODE_CONFIG and the check for unknown names use it; the default is the process environment.
    Raises Misconfigured, naming the file or variable and the key.
    """
    variables = os.environ if environ is None else environ
    if config is None and variables.get(CONFIG_VARIABLE):
        config = Path(variables[CONFIG_VARIABLE])
    _refuse_unknown_variables(variables)
    content = _read_toml(config) if config else {}
    try:
        settings = Settings(**content)
    except ValidationError as error:
        raise Misconfigured(_explain(error, config)) from None
    _refuse_twin_names(settings)
    return settings, list(_origins(settings, content, config))


def _read_toml(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(f"{config}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{config}: not valid TOML: {error}") from None


def _refuse_unknown_variables(variables: Mapping[str, str]) -> None:
    known = {name.upper() for name in Settings.model_fields}
    for variable in variables:
        if variable.startswith(PREFIX) and variable != CONFIG_VARIABLE:
            section = variable.removeprefix(PREFIX).split("__")[0].upper()
            if section not in known:
                raise Misconfigured(f"{variable}: unknown setting; sections are {', '.join(sorted(known)).lower()}")


def _refuse_twin_names(settings: Settings) -> None:
    names = [destination.name for destination in settings.destinations]
    if twins := {name for name in names if names.count(name) > 1}:
        raise Misconfigured(f"destinations: two have the name {min(twins)!r}")


def _explain(error: ValidationError, config: Path | None) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        what = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"]
        lines.append(f"{key}: {what}")
    place = f"{config} and DICOMNODE_*" if config else "DICOMNODE_*"
    return f"{place}: " + "; ".join(lines)


def _leaves(prefix: str, section: BaseModel) -> Iterator[tuple[str, Any]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _leaves(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def _origins(settings: Settings, content: dict[str, Any], config: Path | None) -> Iterator[Effective]:
    from_environment = EnvSettingsSource(Settings)()
    from_file = InitSettingsSource(Settings, content)()
    for key, value in _leaves("", settings):
        if _holds(from_environment, key):
            origin = PREFIX + key.upper().replace(".", "__")
        else:
            origin = str(config) if _holds(from_file, key) else "default"
        yield Effective(key, value, origin)


def _holds(tree: Mapping[str, Any], key: str) -> bool:
    node: Any = tree
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True

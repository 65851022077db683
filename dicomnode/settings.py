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
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from dicomnode.endpoints import DestinationSettings, EndpointSettings, PullerSettings, PullSettings, SourceSettings
from dicomnode.errors import Misconfigured
from dicomnode.notification_settings import HeraldSettings, MailSettings, NotificationSettings
from dicomnode.sections import (
    ArchiveSettings,
    AuditSettings,
    CourierSettings,
    DatabaseSettings,
    HistorySettings,
    ListenerSettings,
    PriorsSettings,
    QuerySourceSettings,
    ResultsSettings,
    RetentionSettings,
    RuleSettings,
    SeriesSettings,
    TLSSettings,
    WebSettings,
    WorkerSettings,
)

PREFIX = "DICOMNODE_"
CONFIG_VARIABLE = "DICOMNODE_CONFIG"


class Settings(BaseSettings):
    """Every setting of the node."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter="__")

    listener: ListenerSettings = ListenerSettings()
    tls: TLSSettings = TLSSettings()
    archive: ArchiveSettings = ArchiveSettings()
    database: DatabaseSettings = DatabaseSettings()
    series: SeriesSettings = SeriesSettings()
    query_source: QuerySourceSettings = QuerySourceSettings()
    worker: WorkerSettings = WorkerSettings()
    courier: CourierSettings = CourierSettings()
    destinations: tuple[DestinationSettings, ...] = Field(
        (), description="where the results go; each gets both objects"
    )
    sources: tuple[SourceSettings, ...] = Field((), description="where series are pulled from")
    pull: tuple[PullSettings, ...] = Field((), description="what is pulled by itself, and when; none: nothing is")
    puller: PullerSettings = PullerSettings()
    rules: tuple[RuleSettings, ...] = Field((), description="which series are analysed; none: all that can be")
    audit: AuditSettings = AuditSettings()
    retention: RetentionSettings = RetentionSettings()
    results: ResultsSettings = ResultsSettings()
    priors: PriorsSettings = PriorsSettings()
    history: HistorySettings = HistorySettings()
    web: WebSettings = WebSettings()
    mail: MailSettings = MailSettings()
    herald: HeraldSettings = HeraldSettings()
    notifications: tuple[NotificationSettings, ...] = Field((), description="who is told of what; none: nobody is")

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
    def models_folder(self) -> Path:
        """Where pulled models are kept: beside the archive folder."""
        return self.archive.path.resolve().parent / "models"

    @property
    def audit_folder(self) -> Path:
        """Where the audit trail is kept."""
        return self.audit.path or self.archive.path.resolve().parent / "audit"

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
        raise Misconfigured(_explain(error, config, content)) from None
    _refuse_twin_names(settings)
    _refuse_unknown_sources(settings)
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
    for table in ("destinations", "sources", "pull", "rules", "notifications"):
        names = [entry.name for entry in getattr(settings, table)]
        if twins := {name for name in names if names.count(name) > 1}:
            raise Misconfigured(f"{table}: two have the name {min(twins)!r}")


def _refuse_unknown_sources(settings: Settings) -> None:
    known = {source.name for source in settings.sources}
    for rule in settings.pull:
        if rule.source not in known:
            raise Misconfigured(f"pull (rule {rule.name!r}): there is no source {rule.source!r}")


def read_secret(endpoint: EndpointSettings, environ: Mapping[str, str] | None = None) -> str | None:
    """The password or token of an endpoint; None: it has none. Raises Misconfigured.

    environ: the default is the process environment.
    """
    try:
        if endpoint.secret_file is not None:
            secret = endpoint.secret_file.read_text(encoding="utf-8").strip()
        elif endpoint.secret_variable is not None:
            secret = (os.environ if environ is None else environ).get(endpoint.secret_variable, "")
        else:
            return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise Misconfigured(f"{endpoint.name}: secret_file: {endpoint.secret_file}: {reason}") from None
    if not secret or not secret.isprintable():
        raise Misconfigured(f"{endpoint.name}: {endpoint.secret_file or endpoint.secret_variable} holds no secret")
    return secret


def _explain(error: ValidationError, config: Path | None, content: dict[str, Any]) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        what = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"]
        lines.append(f"{key}{_rule_name(problem['loc'], content)}: {what}")
    place = f"{config} and DICOMNODE_*" if config else "DICOMNODE_*"
    return f"{place}: " + "; ".join(lines)


def _rule_name(place: tuple[int | str, ...], content: dict[str, Any]) -> str:
    """The name of the rule of the file that the place lies in: people count tables neither from nought nor at all."""
    try:
        name = content["rules"][place[1]]["name"] if place[0] == "rules" else None
    except (KeyError, IndexError, TypeError):
        name = None
    return f" (rule {name!r})" if isinstance(name, str) else ""


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

"""The database as tables, for SQLite and PostgreSQL alike; one UTC time type. Migrations in `migrations/` make them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)


class UTCTime(TypeDecorator[datetime]):
    """A point in time: aware in Python, UTC in the database, which on SQLite keeps no zone of its own."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse a naive time: it could mean any zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive time cannot be stored")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give the stored UTC time its zone back."""
        return None if value is None else value.replace(tzinfo=UTC)


UID = String(64)
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

series = Table(
    "series",
    metadata,
    Column("series_instance_uid", UID, primary_key=True),
    Column("study_instance_uid", UID, nullable=False),
    Column("patient_id", Text, nullable=False),
    Column("issuer_of_patient_id", Text, nullable=False),
    Column("acquired_at", String(32), nullable=False),
    # Instances above this id are covered by no job yet; `waiting` says that there are some, without a look at them.
    Column("covered_until", Integer, nullable=False, default=0),
    Column("waiting", Boolean, nullable=False, default=True, index=True),
    # How many instances the sender or an archive says there are, and who says so; unknown where null.
    Column("expected_instances", Integer),
    Column("expected_by", Text, nullable=False, default="", server_default=""),
    # Up to which instance the archive was asked, and when an instance last came that was here already.
    Column("asked_until", Integer, nullable=False, default=0, server_default="0"),
    Column("repeated_at", UTCTime),
    # Of the first instance, for people to look at; as it was received, in Unicode.
    Column("patient_name", Text, nullable=False, default="", server_default=""),
    Column("patient_sex", Text, nullable=False, default="", server_default=""),
    Column("patient_birth_date", Text, nullable=False, default="", server_default=""),
    Column("study_description", Text, nullable=False, default="", server_default=""),
    Column("series_description", Text, nullable=False, default="", server_default=""),
    Index("ix_series_patient", "patient_id", "issuer_of_patient_id"),
)

_CONDEMNED = text("removed_at IS NOT NULL AND path <> ''")
instances = Table(
    "instances",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sop_instance_uid", UID, nullable=False, unique=True),
    Column("series_instance_uid", ForeignKey("series.series_instance_uid"), nullable=False),
    Column("sop_class_uid", UID, nullable=False),
    Column("transfer_syntax_uid", UID, nullable=False),
    Column("modality", String(16), nullable=False),
    Column("image_type", Text, nullable=False),
    Column("image_orientation", Text, nullable=False),
    Column("path", Text, nullable=False),  # empty: removed_at is set, and the file is gone
    Column("size_bytes", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("received_at", UTCTime, nullable=False),
    Column("removed_at", UTCTime),
    Index("ix_instances_series", "series_instance_uid", "id"),
    # Those whose file is still to be removed: a handful at any time.
    Index("ix_instances_condemned", "id", sqlite_where=_CONDEMNED, postgresql_where=_CONDEMNED),
    sqlite_autoincrement=True,
)

_COUNTS = text("state NOT IN ('superseded', 'skipped')")
jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("series_instance_uid", ForeignKey("series.series_instance_uid"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_instance_id", Integer, nullable=False),
    Column("instance_count", Integer, nullable=False),
    Column("expected_instances", Integer),
    Column("expected_by", Text, nullable=False, default="", server_default=""),
    Column("created_at", UTCTime, nullable=False),
    Column("updated_at", UTCTime, nullable=False),
    Column("not_before", UTCTime, nullable=False),
    Column("lease_until", UTCTime),
    Column("lease_holder", String(64)),
    Column("progress", Float),  # of the running attempt, 0 to 1
    UniqueConstraint("series_instance_uid", "revision"),
    Index("ix_jobs_due", "state", "not_before"),
    # The database itself holds that a series never has two results that count.
    Index("ix_jobs_counts", "series_instance_uid", unique=True, sqlite_where=_COUNTS, postgresql_where=_COUNTS),
)

job_events = Table(
    "job_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False, index=True),
    Column("delivery_id", ForeignKey("deliveries.id")),
    Column("at", UTCTime, nullable=False),
    Column("event", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("note", Text, nullable=False),
)

results = Table(
    "results",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False, index=True),
    Column("sop_instance_uid", UID, nullable=False, unique=True),
    Column("sop_class_uid", UID, nullable=False),
    Column("series_instance_uid", UID, nullable=False, default="", server_default=""),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("removed_at", UTCTime),
    Column("made_at", UTCTime),  # by the last run that made it; unknown of what the first releases made
    Column("basis", String(64), nullable=False, default="", server_default=""),  # tells the editions of a report apart
)

measurements = Table(
    "measurements",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("found", Boolean, nullable=False),
    Column("volume_ml", Float, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("flags", JSON, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("measured_at", UTCTime, nullable=False),
    # The model's repeatability coefficient, and how the series was acquired, as its headers say.
    Column("repeatability_percent", Float),
    Column("manufacturer", Text, nullable=False, default="", server_default=""),
    Column("scanner", Text, nullable=False, default="", server_default=""),
    Column("kernel", Text, nullable=False, default="", server_default=""),
    Column("phase", String(32), nullable=False, default="", server_default=""),
    Column("thickness_mm", Float),
)

# Results that a person called wrong, with the reason. Nothing is deleted; one is lifted where lifted_at is set.
invalidations = Table(
    "invalidations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("at", UTCTime, nullable=False),
    Column("lifted_reason", Text, nullable=False, default="", server_default=""),
    Column("lifted_by", Text, nullable=False, default="", server_default=""),
    Column("lifted_at", UTCTime),
    Index(
        "ix_invalidations_in_force", "job_id", unique=True,
        sqlite_where=text("lifted_at IS NULL"), postgresql_where=text("lifted_at IS NULL"),
    ),
)  # fmt: skip

# Patients that a person said are one: those of `patient_id` count under `into_patient_id`, until it is undone.
merges = Table(
    "merges",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("patient_id", Text, nullable=False),
    Column("issuer_of_patient_id", Text, nullable=False),
    Column("into_patient_id", Text, nullable=False),
    Column("into_issuer_of_patient_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("at", UTCTime, nullable=False),
    Column("undone_reason", Text, nullable=False, default="", server_default=""),
    Column("undone_by", Text, nullable=False, default="", server_default=""),
    Column("undone_at", UTCTime),
    Index(
        "ix_merges_in_force", "patient_id", "issuer_of_patient_id", unique=True,
        sqlite_where=text("undone_at IS NULL"), postgresql_where=text("undone_at IS NULL"),
    ),
)  # fmt: skip

# Volumes that earlier reports of this product say, found in an archive: their jobs are not in this database.
prior_reports = Table(
    "prior_reports",
    metadata,
    Column("sop_instance_uid", UID, primary_key=True),
    Column("series_instance_uid", UID, nullable=False, index=True),  # of the images
    Column("study_instance_uid", UID, nullable=False),
    Column("patient_id", Text, nullable=False),
    Column("issuer_of_patient_id", Text, nullable=False),
    Column("acquired_at", String(32), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("volume_ml", Float, nullable=False),
    Column("flags", JSON, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("measured_at", UTCTime, nullable=False),
    Column("report_series_instance_uid", UID, nullable=False, default="", server_default=""),
    Column("sop_class_uid", UID, nullable=False, default="", server_default=""),
    Column("source", Text, nullable=False),
    Column("found_at", UTCTime, nullable=False),
    Index("ix_prior_reports_patient", "patient_id", "issuer_of_patient_id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("result_id", ForeignKey("results.id"), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    # When it was put into the outbox or back into it, or was sent: the hours until it is given up count from here.
    Column("since", UTCTime, nullable=False),
    Column("not_before", UTCTime, nullable=False),
    Column("lease_until", UTCTime),
    Column("sent_at", UTCTime),
    # Of the storage commitment (PS3.4 Annex J): how often the archive did not commit, the transaction last asked for,
    # and until when its report may come; there is one to come where the delivery is sent and this is not null.
    Column("denials", Integer, nullable=False, default=0, server_default="0"),
    Column("transaction_uid", UID),
    Column("report_until", UTCTime),
    Column("confirmed_at", UTCTime),
    UniqueConstraint("result_id", "destination"),
    Index("ix_deliveries_due", "destination", "state", "not_before"),
)

# Every storage commitment ever asked for: a report may come late, after another was asked for.
commitments = Table(
    "commitments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("transaction_uid", UID, nullable=False, index=True),
    Column("delivery_id", ForeignKey("deliveries.id"), nullable=False, index=True),
    Column("asked_at", UTCTime, nullable=False),
)

# Series that a rule found in an archive, so that each is fetched once; `instances`: how many the archive said it has.
pulls = Table(
    "pulls",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("series_instance_uid", UID, primary_key=True),
    Column("study_instance_uid", UID, nullable=False),
    Column("rule", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("instances", Integer),
    Column("attempts", Integer, nullable=False),
    # When it was found, or asked for again: the hours until it is given up count from here.
    Column("since", UTCTime, nullable=False),
    Column("updated_at", UTCTime, nullable=False),
    Column("not_before", UTCTime, nullable=False),
    Index("ix_pulls_due", "source", "state", "not_before"),
)

alarms = Table(
    "alarms",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("raised_at", UTCTime, nullable=False),
    Column("cleared_at", UTCTime),
    Index("ix_alarms_open", "kind", "subject", "cleared_at"),
)

# Whose earlier reports an archive was asked for, and when; asked_at is null until it answered.
prior_searches = Table(
    "prior_searches",
    metadata,
    Column("patient_id", Text, primary_key=True),
    Column("issuer_of_patient_id", Text, primary_key=True),
    Column("asked_at", UTCTime),
    Column("attempts", Integer, nullable=False),
    Column("not_before", UTCTime, nullable=False),
    Column("outcome", Text, nullable=False),
)

# Which notification wants to be told of what, as the settings say; the herald writes it when it starts.
subscriptions = Table(
    "subscriptions",
    metadata,
    Column("notification", String(64), primary_key=True),
    Column("topic", String(16), primary_key=True),
)

# What is to be told to whom: written in the transaction of the cause, one row for each subscription.
notices = Table(
    "notices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("notification", String(64), nullable=False),
    Column("topic", String(16), nullable=False),
    Column("job_id", ForeignKey("jobs.id")),
    Column("alarm_id", ForeignKey("alarms.id")),
    Column("reason", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("outcome", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", UTCTime, nullable=False),
    Column("not_before", UTCTime, nullable=False),
    Index("ix_notices_due", "notification", "state", "not_before"),
)

# Which actor runs where; a row goes when its process ends in order.
signs_of_life = Table(
    "signs_of_life",
    metadata,
    Column("actor", String(16), primary_key=True),
    Column("process", String(128), primary_key=True),
    Column("started_at", UTCTime, nullable=False),
    Column("seen_at", UTCTime, nullable=False),
)

refusals = Table(
    "refusals",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UTCTime, nullable=False, index=True),
    Column("kind", String(32), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("sop_instance_uid", UID, nullable=False, index=True),
    Column("reason", Text, nullable=False),
)

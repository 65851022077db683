"""Run the migrations on the connection that `dicomnode.database` hands over, or that the alembic command opens."""

from alembic import context
from sqlalchemy import create_engine

from dicomnode.tables import metadata

config = context.config
connection = config.attributes.get("connection")
if connection is None:  # `alembic revision --autogenerate`, by a developer
    connection = create_engine(config.get_main_option("sqlalchemy.url") or "sqlite://").connect()
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()

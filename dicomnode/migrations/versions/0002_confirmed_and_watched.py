"""Expected counts, one result that counts, storage commitment, retention, alarms and refusals."""

import sqlalchemy as sa
from alembic import op

from dicomnode.tables import UTCTime

revision = '0002'
down_revision = '0001'


def upgrade() -> None:
    with op.batch_alter_table('series', schema=None) as batch_op:
        batch_op.add_column(sa.Column('expected_instances', sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column('expected_by', sa.Text(), nullable=False, server_default=''))
        batch_op.add_column(sa.Column('asked_until', sa.Integer(), nullable=False, server_default='0'))
        batch_op.add_column(sa.Column('repeated_at', UTCTime(), nullable=True))
    with op.batch_alter_table('instances', schema=None) as batch_op:
        batch_op.add_column(sa.Column('removed_at', UTCTime(), nullable=True))
    op.create_index(
        'ix_instances_condemned', 'instances', ['id'],
        sqlite_where=sa.text("removed_at IS NOT NULL AND path <> ''"),
        postgresql_where=sa.text("removed_at IS NOT NULL AND path <> ''"),
    )
    with op.batch_alter_table('jobs', schema=None) as batch_op:
        batch_op.add_column(sa.Column('expected_instances', sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column('expected_by', sa.Text(), nullable=False, server_default=''))
    # The first release let an earlier revision stand beside a later one.
    op.execute(
        "UPDATE jobs SET state = 'superseded' WHERE state NOT IN ('superseded', 'skipped') AND EXISTS ("
        "SELECT 1 FROM jobs AS later WHERE later.series_instance_uid = jobs.series_instance_uid"
        " AND later.revision > jobs.revision AND later.state <> 'skipped')"
    )
    op.create_index(
        'ix_jobs_counts', 'jobs', ['series_instance_uid'], unique=True,
        sqlite_where=sa.text("state NOT IN ('superseded', 'skipped')"),
        postgresql_where=sa.text("state NOT IN ('superseded', 'skipped')"),
    )
    with op.batch_alter_table('results', schema=None) as batch_op:
        batch_op.add_column(sa.Column('series_instance_uid', sa.String(length=64), nullable=False, server_default=''))
        batch_op.add_column(sa.Column('removed_at', UTCTime(), nullable=True))
    with op.batch_alter_table('deliveries', schema=None) as batch_op:
        # SQLite adds no required column without a default, and would not make it required later without a new table.
        batch_op.add_column(sa.Column('since', UTCTime(), nullable=False, server_default='2000-01-01 00:00:00'))
        batch_op.add_column(sa.Column('denials', sa.Integer(), nullable=False, server_default='0'))
        batch_op.add_column(sa.Column('transaction_uid', sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column('report_until', UTCTime(), nullable=True))
        batch_op.add_column(sa.Column('confirmed_at', UTCTime(), nullable=True))
    op.execute('UPDATE deliveries SET since = not_before')
    op.create_table('commitments',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('transaction_uid', sa.String(length=64), nullable=False),
    sa.Column('delivery_id', sa.Integer(), nullable=False),
    sa.Column('asked_at', UTCTime(), nullable=False),
    sa.ForeignKeyConstraint(['delivery_id'], ['deliveries.id']),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_commitments'))
    )
    with op.batch_alter_table('commitments', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_commitments_transaction_uid'), ['transaction_uid'], unique=False)
        batch_op.create_index(batch_op.f('ix_commitments_delivery_id'), ['delivery_id'], unique=False)
    op.create_table('alarms',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('kind', sa.String(length=32), nullable=False),
    sa.Column('subject', sa.String(length=128), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('raised_at', UTCTime(), nullable=False),
    sa.Column('cleared_at', UTCTime(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_alarms'))
    )
    with op.batch_alter_table('alarms', schema=None) as batch_op:
        batch_op.create_index('ix_alarms_open', ['kind', 'subject', 'cleared_at'], unique=False)
    op.create_table('refusals',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('at', UTCTime(), nullable=False),
    sa.Column('kind', sa.String(length=32), nullable=False),
    sa.Column('calling_ae', sa.String(length=16), nullable=False),
    sa.Column('address', sa.String(length=64), nullable=False),
    sa.Column('sop_instance_uid', sa.String(length=64), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_refusals'))
    )
    with op.batch_alter_table('refusals', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_refusals_at'), ['at'], unique=False)
        batch_op.create_index(batch_op.f('ix_refusals_sop_instance_uid'), ['sop_instance_uid'], unique=False)

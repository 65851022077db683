"""What people see of a series, how it was acquired, invalid results, merged patients, reports found in archives."""

import sqlalchemy as sa
from alembic import op

from dicomnode.tables import UTCTime

revision = '0003'
down_revision = '0002'


def upgrade() -> None:
    with op.batch_alter_table('series', schema=None) as batch_op:
        batch_op.add_column(sa.Column('patient_name', sa.Text(), nullable=False, server_default=''))
        batch_op.add_column(sa.Column('patient_sex', sa.Text(), nullable=False, server_default=''))
        batch_op.add_column(sa.Column('patient_birth_date', sa.Text(), nullable=False, server_default=''))
        batch_op.add_column(sa.Column('study_description', sa.Text(), nullable=False, server_default=''))
        batch_op.add_column(sa.Column('series_description', sa.Text(), nullable=False, server_default=''))
    with op.batch_alter_table('jobs', schema=None) as batch_op:
        batch_op.add_column(sa.Column('progress', sa.Float(), nullable=True))
    with op.batch_alter_table('measurements', schema=None) as batch_op:
        batch_op.add_column(sa.Column('repeatability_percent', sa.Float(), nullable=True))
        batch_op.add_column(sa.Column('manufacturer', sa.Text(), nullable=False, server_default=''))
        batch_op.add_column(sa.Column('scanner', sa.Text(), nullable=False, server_default=''))
        batch_op.add_column(sa.Column('kernel', sa.Text(), nullable=False, server_default=''))
        batch_op.add_column(sa.Column('phase', sa.String(length=32), nullable=False, server_default=''))
        batch_op.add_column(sa.Column('thickness_mm', sa.Float(), nullable=True))
    with op.batch_alter_table('results', schema=None) as batch_op:
        batch_op.add_column(sa.Column('made_at', UTCTime(), nullable=True))
        batch_op.add_column(sa.Column('basis', sa.String(length=64), nullable=False, server_default=''))
    op.create_table('invalidations',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('job_id', sa.Integer(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('by', sa.Text(), nullable=False),
    sa.Column('at', UTCTime(), nullable=False),
    sa.Column('lifted_reason', sa.Text(), nullable=False, server_default=''),
    sa.Column('lifted_by', sa.Text(), nullable=False, server_default=''),
    sa.Column('lifted_at', UTCTime(), nullable=True),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id']),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_invalidations'))
    )
    with op.batch_alter_table('invalidations', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_invalidations_job_id'), ['job_id'], unique=False)
    op.create_index(
        'ix_invalidations_in_force', 'invalidations', ['job_id'], unique=True,
        sqlite_where=sa.text('lifted_at IS NULL'), postgresql_where=sa.text('lifted_at IS NULL'),
    )
    op.create_table('merges',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('patient_id', sa.Text(), nullable=False),
    sa.Column('issuer_of_patient_id', sa.Text(), nullable=False),
    sa.Column('into_patient_id', sa.Text(), nullable=False),
    sa.Column('into_issuer_of_patient_id', sa.Text(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('by', sa.Text(), nullable=False),
    sa.Column('at', UTCTime(), nullable=False),
    sa.Column('undone_reason', sa.Text(), nullable=False, server_default=''),
    sa.Column('undone_by', sa.Text(), nullable=False, server_default=''),
    sa.Column('undone_at', UTCTime(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_merges'))
    )
    op.create_index(
        'ix_merges_in_force', 'merges', ['patient_id', 'issuer_of_patient_id'], unique=True,
        sqlite_where=sa.text('undone_at IS NULL'), postgresql_where=sa.text('undone_at IS NULL'),
    )
    op.create_table('prior_reports',
    sa.Column('sop_instance_uid', sa.String(length=64), nullable=False),
    sa.Column('series_instance_uid', sa.String(length=64), nullable=False),
    sa.Column('study_instance_uid', sa.String(length=64), nullable=False),
    sa.Column('patient_id', sa.Text(), nullable=False),
    sa.Column('issuer_of_patient_id', sa.Text(), nullable=False),
    sa.Column('acquired_at', sa.String(length=32), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.Column('volume_ml', sa.Float(), nullable=False),
    sa.Column('flags', sa.JSON(), nullable=False),
    sa.Column('model_name', sa.Text(), nullable=False),
    sa.Column('model_version', sa.Text(), nullable=False),
    sa.Column('model_sha256', sa.String(length=64), nullable=False),
    sa.Column('measured_at', UTCTime(), nullable=False),
    sa.Column('report_series_instance_uid', sa.String(length=64), nullable=False, server_default=''),
    sa.Column('sop_class_uid', sa.String(length=64), nullable=False, server_default=''),
    sa.Column('source', sa.Text(), nullable=False),
    sa.Column('found_at', UTCTime(), nullable=False),
    sa.PrimaryKeyConstraint('sop_instance_uid', name=op.f('pk_prior_reports'))
    )
    with op.batch_alter_table('prior_reports', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_prior_reports_series_instance_uid'), ['series_instance_uid'], unique=False)
        batch_op.create_index('ix_prior_reports_patient', ['patient_id', 'issuer_of_patient_id'], unique=False)
    op.create_table('signs_of_life',
    sa.Column('actor', sa.String(length=16), nullable=False),
    sa.Column('process', sa.String(length=128), nullable=False),
    sa.Column('started_at', UTCTime(), nullable=False),
    sa.Column('seen_at', UTCTime(), nullable=False),
    sa.PrimaryKeyConstraint('actor', 'process', name=op.f('pk_signs_of_life'))
    )
    op.create_table('prior_searches',
    sa.Column('patient_id', sa.Text(), nullable=False),
    sa.Column('issuer_of_patient_id', sa.Text(), nullable=False),
    sa.Column('asked_at', UTCTime(), nullable=True),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('not_before', UTCTime(), nullable=False),
    sa.Column('outcome', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('patient_id', 'issuer_of_patient_id', name=op.f('pk_prior_searches'))
    )
    op.create_table('subscriptions',
    sa.Column('notification', sa.String(length=64), nullable=False),
    sa.Column('topic', sa.String(length=16), nullable=False),
    sa.PrimaryKeyConstraint('notification', 'topic', name=op.f('pk_subscriptions'))
    )
    op.create_table('notices',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('notification', sa.String(length=64), nullable=False),
    sa.Column('topic', sa.String(length=16), nullable=False),
    sa.Column('job_id', sa.Integer(), nullable=True),
    sa.Column('alarm_id', sa.Integer(), nullable=True),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('outcome', sa.Text(), nullable=False),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('created_at', UTCTime(), nullable=False),
    sa.Column('not_before', UTCTime(), nullable=False),
    sa.ForeignKeyConstraint(['alarm_id'], ['alarms.id']),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id']),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_notices'))
    )
    with op.batch_alter_table('notices', schema=None) as batch_op:
        batch_op.create_index('ix_notices_due', ['notification', 'state', 'not_before'], unique=False)
    op.create_table('pulls',
    sa.Column('source', sa.String(length=64), nullable=False),
    sa.Column('series_instance_uid', sa.String(length=64), nullable=False),
    sa.Column('study_instance_uid', sa.String(length=64), nullable=False),
    sa.Column('rule', sa.String(length=64), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('instances', sa.Integer(), nullable=True),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('since', UTCTime(), nullable=False),
    sa.Column('updated_at', UTCTime(), nullable=False),
    sa.Column('not_before', UTCTime(), nullable=False),
    sa.PrimaryKeyConstraint('source', 'series_instance_uid', name=op.f('pk_pulls'))
    )
    op.create_index('ix_pulls_due', 'pulls', ['source', 'state', 'not_before'], unique=False)

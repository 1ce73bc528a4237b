"""Alembic runs this file for each migration; the connection comes from `registry_store`, never from a file."""

from alembic import context

from dicomward.io.registry.tables import METADATA

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=METADATA)
# The caller has begun a transaction and commits it: half a migration never stays.
context.run_migrations()

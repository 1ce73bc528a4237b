"""Alembic's migrations of the registry database; `dicomward.io.registry_store` runs them."""

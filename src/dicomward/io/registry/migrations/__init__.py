"""Alembic's migrations of the registry database; `dicomward.io.registry.store` runs them."""

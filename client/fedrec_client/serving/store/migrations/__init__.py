"""Changes of the serving store's tables from version to version, run by alembic when the store is opened."""

"""Changes of the coordinator's tables from version to version, run by alembic when its state is opened."""

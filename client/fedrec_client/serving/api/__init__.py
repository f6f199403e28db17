"""The APIs: our own under /v1, and those of Gorse and Metarank."""

"""Modules whose packages `make test` does not install (`make test-integration` does) are passed over there."""

from importlib.util import find_spec

NEEDS = {"test_engine.py": "distributed", "test_s3_runs.py": "moto", "test_s3_store.py": "moto"}

collect_ignore = [name for name, package in NEEDS.items() if find_spec(package) is None]

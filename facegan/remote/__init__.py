"""Finished stages on object storage: docs/scaling.md, "Object storage". Nothing here is imported on the local path but
the pointers to manifests; s3fs only where a bucket is asked."""

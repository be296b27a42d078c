"""A folder of objects on S3, or a compatible server, through s3fs: read, list, upload, conditional writes.

Credentials, region and endpoint are handled by boto (environment, ~/.aws, the machine's role): nothing here sees them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from facegan.core.errors import UserError

CONNECT_S, READ_S = 10, 60
TRIES = 7  # botocore waits up to 1, 2, 4 ... 20 s between them: half a minute in all; AWS_MAX_ATTEMPTS changes it
PART_BYTES = 16 * 2**20  # bytes of one part of an upload, of which four travel side by side
AGAIN = "look at the network and the endpoint, then run the same command again: it goes on where it was"
CONDITION, CONFLICT = ("PreconditionFailed", "412"), ("ConditionalRequestConflict", "OperationAborted", "409")
ABSENT = ("NoSuchKey", "404")
FULL = (errno.ENOSPC, errno.EDQUOT)


class Unreachable(UserError):
    """The object storage did not answer, or refused; its content is unchanged."""


@dataclass(frozen=True)
class BucketObject:
    """One object as a listing shows it: `size` in bytes, and the ETag, which changes with each write."""

    size: int
    etag: str


class Bucket:
    """Objects below `url` (`s3://bucket/prefix`), by names relative to it. Connects with the first request.

    Every method raises Unreachable where S3 does not answer within its tries or refuses, UserError where the bucket is
    not there or s3fs is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.bucket, _, self.prefix = self.url.removeprefix("s3://").partition("/")

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_fs"}  # each process connects for itself

    @cached_property
    def _fs(self) -> Any:
        try:
            import s3fs
        except ImportError as error:
            raise UserError(f"'{self.url}' needs s3fs ({error})", fix="pip install 'facegan[s3]'") from error
        tries = {} if "AWS_MAX_ATTEMPTS" in os.environ else {"total_max_attempts": TRIES}
        config = {
            "connect_timeout": CONNECT_S,
            "read_timeout": READ_S,
            "retries": {"mode": "standard", **tries},
        }
        fs = s3fs.S3FileSystem(config_kwargs=config, use_listings_cache=False, max_concurrency=4)
        fs.retries = 3  # in addition: for connections that break in the middle of a response
        fs.loop.call_soon_threadsafe(fs.loop.set_exception_handler, _ignore_client_errors)
        return fs

    def path(self, name: str) -> str:
        """The URL of an object or folder."""
        return f"{self.url}/{name}".rstrip("/")

    def key(self, name: str) -> str:
        """The key of an object in the bucket."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def read(self, name: str) -> tuple[bytes, str] | None:
        """An object's bytes and ETag; None where there is none. For small objects."""
        with self._translated_errors(name):
            try:
                response = self._fs.call_s3("get_object", Bucket=self.bucket, Key=self.key(name))
            except FileNotFoundError as error:
                if _error_code(error) in ABSENT:
                    return None
                raise
            import fsspec.asyn

            return fsspec.asyn.sync(self._fs.loop, response["Body"].read), str(response["ETag"])

    def create(self, name: str, data: bytes) -> str | None:
        """Write an object that does not exist yet: its ETag, or None where it exists."""
        return self._put_if(name, data, {"IfNoneMatch": "*"})

    def replace(self, name: str, data: bytes, etag: str) -> str | None:
        """Overwrite the object with this ETag: the new ETag, or None where it has another by now, or is gone."""
        return self._put_if(name, data, {"IfMatch": etag})

    def _put_if(self, name: str, data: bytes, condition: dict[str, str]) -> str | None:
        """Write on a condition: the ETag, or None where the condition failed.

        A response may be lost and the same PUT sent again, which then fails because the first one succeeded; so the
        object is read and compared. `data` must differ from that of every other writer.
        """
        for attempt in range(5):
            with self._translated_errors(name):
                try:
                    request = {"Bucket": self.bucket, "Key": self.key(name), "Body": data}
                    return str(self._fs.call_s3("put_object", **request, **condition)["ETag"])
                except OSError as error:
                    code = _error_code(error)
                    if code not in (*CONDITION, *CONFLICT, *ABSENT):
                        raise
            current = self.read(name)
            if current is not None and current[0] == data:
                return current[1]
            if code not in CONFLICT:
                return None
            time.sleep(0.1 * 2**attempt)  # two conditional writes collided: S3 says to try again
        return None

    def entries(self, folder: str) -> dict[str, BucketObject]:
        """All objects below `folder` by name relative to it."""
        objects = {}
        prefix = self.key(folder).rstrip("/")
        prefix += "/" if prefix else ""
        continuation: dict[str, str] = {}
        while True:
            with self._translated_errors(folder):
                page = self._fs.call_s3("list_objects_v2", Bucket=self.bucket, Prefix=prefix, **continuation)
            for entry in page.get("Contents", ()):
                objects[entry["Key"].removeprefix(prefix)] = BucketObject(int(entry["Size"]), str(entry["ETag"]))
            if not page.get("IsTruncated"):
                return objects
            continuation = {"ContinuationToken": page["NextContinuationToken"]}

    def upload(self, path: Path, name: str) -> None:
        """A file's content as an object, in several parts where it is large."""
        with self._translated_errors(name):
            self._fs.put_file(str(path), f"{self.bucket}/{self.key(name)}", chunksize=PART_BYTES)

    def download(self, name: str, path: Path) -> None:
        """An object's content into a file."""
        with self._translated_errors(name):
            self._fs.get_file(f"{self.bucket}/{self.key(name)}", str(path))

    def sha256(self, name: str) -> str:
        """sha256 (hex) of an object's content, which is read for it."""
        digest = hashlib.sha256()
        with self.open(name) as file:
            while data := file.read(PART_BYTES):
                digest.update(data)
        return digest.hexdigest()

    def open(self, name: str, etag: str | None = None) -> IO[bytes]:
        """An object to read from, each range when it is requested; reads fail once the object has changed.

        Raises UserError where it has another ETag than `etag`.
        """
        with self._translated_errors(name):
            file = self._fs.open(f"{self.bucket}/{self.key(name)}", "rb", block_size=PART_BYTES, cache_type="none")
            if etag is not None and file.details["ETag"] != etag:
                raise UserError(f"{self.path(name)} was changed", fix="run the same command again: it is made anew")
        return _TranslatedFile(self, name, file)  # type: ignore[return-value]

    def delete(self, names: list[str]) -> None:
        """Delete objects; missing ones are no error."""
        for start in range(0, len(names), 1000):
            keys = [{"Key": self.key(name)} for name in names[start : start + 1000]]
            with self._translated_errors(""):
                self._fs.call_s3("delete_objects", Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True})

    @contextlib.contextmanager
    def _translated_errors(self, name: str) -> Iterator[None]:
        """Turn errors of boto and its transport into a UserError that names the object, without credentials.

        The OSError of a full local disk passes unchanged: the storage is not at fault.
        """
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if (isinstance(error, OSError) and error.errno in FULL) or not _is_storage_error(error):
                raise
            if _error_code(error) == "NoSuchBucket":
                fix = "make it (private, for you alone), or set another runtime.store"
                raise UserError(f"there is no bucket '{self.bucket}'", fix=fix) from error
            if isinstance(error, FileNotFoundError):
                fix = "run the same command again: what is missing is made anew"
                raise UserError(f"{self.path(name)} is gone", fix=fix) from error
            refused = isinstance(error, PermissionError) or "Credentials" in type(error).__name__
            fix = (
                "look at the credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID ...) and at what they may do"
                if refused
                else AGAIN
            )
            reason = re.sub(r"(?<=//)[^/@\s]+@|\?[^\s\"']+", "", str(error)) or type(error).__name__
            raise Unreachable(f"{self.path(name)} cannot be reached: {reason}", fix=fix) from error


class _TranslatedFile:
    """A file of s3fs whose errors become UserErrors."""

    def __init__(self, bucket: Bucket, name: str, file: Any) -> None:
        self._bucket, self._name, self._file = bucket, name, file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _TranslatedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        """Bytes from here on."""
        with self._bucket._translated_errors(self._name):
            data: bytes = self._file.read(size)
            return data

    def readinto(self, buffer: Any) -> int:
        """Bytes from here on, into `buffer`."""
        with self._bucket._translated_errors(self._name):
            return int(self._file.readinto(buffer))


def _ignore_client_errors(loop: Any, context: dict[str, Any]) -> None:
    """Ignore errors of aiohttp's background tasks of a lost connection: their request fails with its own error."""
    import aiohttp

    if not isinstance(context.get("exception"), aiohttp.ClientError):
        loop.default_exception_handler(context)


def _error_code(error: BaseException) -> str:
    """S3's code of an error, '' where it has none."""
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _is_storage_error(error: BaseException) -> bool:
    """Whether an error comes from the storage or the connection to it."""
    if isinstance(error, OSError | TimeoutError):
        return True
    import aiohttp
    from botocore.exceptions import BotoCoreError, ClientError

    return isinstance(error, (BotoCoreError, ClientError, aiohttp.ClientError))

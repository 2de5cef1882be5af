"""Folders behind a URL: object stores (S3, Google, Azure), and what else pyarrow or fsspec reaches.

An object takes its name when it is complete, so a reader sees the old one or the new one. There are no
locks and nothing is renamed: what several machines write here must be the same, or else of one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tinylm.errors import UserError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

PATIENCE = 30  # seconds, of an answer that does not come
REQUESTS = 16  # at a time: each waits for the network


class RemoteFolder:
    """A folder behind a URL.

    Args:
        url: such as `s3://bucket/path`; credentials and the like are found as the provider's own tools
            find them.

    Raises:
        UserError: the URL is none, or no package here can reach it.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        with self._reached("opened"):
            self._files, self._path = _opened(self.url)
        self._buckets = not self._path.startswith("/")  # as in object stores; others have folders

    def check(self) -> None:
        """Refuse a folder that cannot be reached or that lies in no bucket.

        Raises:
            UserError: which, and why.
        """
        if not self._buckets:
            return
        bucket = self._path.split("/")[0]
        with self._reached("read"):
            found = bool(bucket) and self._files.get_file_info(bucket).type.name != "NotFound"
        if not found:
            raise UserError(f"{self.url} cannot be used: there is no bucket '{bucket}'; make it first.")

    def names(self, below: str = "") -> list[str]:
        """All objects, such as `cells/00c1cb0a344d7648.json`, or those in the folder `below`.

        Raises:
            UserError: it cannot be reached.
        """
        from pyarrow.fs import FileSelector

        with self._reached("read"):
            wanted = FileSelector(f"{self._path}/{below}".rstrip("/"), recursive=True, allow_not_found=True)
            found = [info.path for info in self._files.get_file_info(wanted) if info.is_file]
        return [path.removeprefix(f"{self._path}/") for path in found]

    def read(self, name: str) -> bytes | None:
        """An object, or None where there is none.

        Raises:
            UserError: it cannot be read.
        """
        with self._reached("read"):
            try:
                with self._files.open_input_stream(f"{self._path}/{name}") as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Several objects by their names, without those that are not there.

        Raises:
            UserError: one cannot be read.
        """
        wanted = list(names)
        with ThreadPoolExecutor(REQUESTS) as pool:
            found = zip(wanted, pool.map(self.read, wanted), strict=True)
            return {name: data for name, data in found if data is not None}

    def write(self, name: str, data: bytes) -> None:
        """Write an object, all or nothing.

        Raises:
            UserError: it cannot be written.
        """
        path = f"{self._path}/{name}"
        with self._reached("written"):
            if not self._buckets:
                self._files.create_dir(path.rpartition("/")[0], recursive=True)
            with self._files.open_output_stream(path) as stream:
                stream.write(data)

    @contextmanager
    def _reached(self, how: str) -> Iterator[None]:
        """Say in a sentence what went wrong."""
        try:
            yield
        except Exception as error:  # of pyarrow, of fsspec's packages, of their network libraries
            reason = " ".join(str(error).split()) or type(error).__name__
            denied = "; expected credentials that may list, read and write there"
            hint = denied if "access" in reason.lower() else ""  # what S3 and Google say
            raise UserError(f"{self.url} cannot be {how}: {reason}{hint}") from error


def _opened(url: str) -> tuple[FileSystem, str]:
    """The file system of a URL, and the path in it."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    if url.startswith(("gs://", "gcs://")) and "retry_limit" not in url:  # it would try for 15 minutes
        url += ("&" if "?" in url else "?") + f"retry_limit_seconds={PATIENCE}"
    try:
        return FileSystem.from_uri(url)
    except ArrowInvalid as error:
        if "Unrecognized filesystem" not in str(error):
            raise
    from fsspec.core import url_to_fs

    files, path = url_to_fs(url)
    return PyFileSystem(FSSpecHandler(files)), path

"""From the bytes of a file, a pipe or standard input to text: compression, byte order marks, code pages."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import chardet
import pyarrow

from tinylm.errors import UserError

STDIN = "-"
# How compressed bytes begin, and what reads them: the name of a file may say something else.
DECOMPRESSORS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": lambda file: _open_zst(file),
}
# What reading damaged bytes raises.
DECOMPRESSION_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)

BYTE_ORDER_MARKS = {  # that of UTF-32 begins like that of UTF-16, so it comes first
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# A file is read until this many blocks with characters beyond ASCII have been found.
BLOCK, ENOUGH_BLOCKS = 1 << 16, 16
# A line or a file that must be held as a whole may have as many characters or bytes once it is decompressed:
# a megabyte can stand for gigabytes.
MOST_IN_LINE, MOST_AT_ONCE = 1 << 27, 1 << 30
# What comes through a pipe is kept until it is read; more than this goes to a temporary file.
MOST_IN_MEMORY = 64 << 20


class Source:
    """The bytes of a file, a pipe or standard input, decompressed, to be opened as often as needed.

    A pipe can be read only once, so its content is copied first; with `as_it_comes` it is not, and can
    be opened once.

    Args:
        path: of a file or a pipe, or `-` for standard input.
        as_it_comes: give the bytes of a pipe as soon as they are there.

    Raises:
        UserError: nothing is there, or it is empty.
    """

    def __init__(self, path: Path | str, as_it_comes: bool = False) -> None:
        self.path = Path(path)
        is_stdin = str(path) == STDIN
        self.name = "standard input" if is_stdin else str(path)
        if not is_stdin and not self.path.exists():
            raise UserError(f"{path} does not exist.")
        self.is_file = not is_stdin and self.path.is_file()
        self.as_it_comes = as_it_comes and not self.is_file
        raw: Any = sys.stdin.buffer if is_stdin else self.path.open("rb")
        if not self.is_file and not as_it_comes:
            pipe, raw = raw, tempfile.SpooledTemporaryFile(MOST_IN_MEMORY)  # noqa: SIM115
            shutil.copyfileobj(pipe, raw)
            raw.seek(0)
        self._raw: Any = raw if hasattr(raw, "peek") else io.BufferedReader(raw)
        first = self._raw.peek(8)
        if not first:
            raise UserError(f"{self.name} is empty.")
        self._decompress = next(
            (read for magic, read in DECOMPRESSORS.items() if first.startswith(magic)), None
        )

    @property
    def compressed(self) -> bool:
        """Whether `open` decompresses."""
        return self._decompress is not None

    def open(self) -> BinaryIO:
        """The bytes from the beginning, as a stream that can `peek`."""
        if not self.as_it_comes:
            self._raw.seek(0)
        return cast(BinaryIO, self._decompress(self._raw) if self._decompress else self._raw)


@dataclass(frozen=True)
class Encoding:
    """How bytes stand for characters.

    Attributes:
        codec: Python's name of it.
        guessed: whether nothing but the look of the characters speaks for it.
    """

    codec: str
    guessed: bool = False

    def __str__(self) -> str:
        name = self.codec.upper().replace("CP125", "Windows-125")
        return f"{name} (guessed)" if self.guessed else name


def open_text(source: Source, encoding: str | None = None) -> tuple[TextIO, Encoding, str]:
    """The text of a source.

    Args:
        source: of bytes.
        encoding: its name; None finds out.

    Returns:
        A stream that leaves line ends as they are and gives bytes that the encoding does not know as lone
        surrogates; the encoding; and the first line that is not blank, which the stream gives too.
    """
    stream = source.open()
    if source.as_it_comes:  # no look further ahead: the rest may take its time
        evidence = _first_line(stream)
        stream = io.BufferedReader(_Continued(evidence, stream))
    else:
        evidence = _first_line(stream) + _evidence(stream)
        stream = source.open()
    found = find_encoding(evidence) if encoding is None else _named(encoding)
    codec = "utf-8-sig" if found.codec == "utf-8" else found.codec
    # UTF-16 and UTF-32 have no lone surrogates for bytes that mean nothing.
    errors = "replace" if codec.startswith(("utf-16", "utf-32")) else "surrogateescape"
    lines = evidence.decode(codec, errors).splitlines()
    first = next((line for line in lines if line.strip()), "")
    return _Text(stream, source.name, codec, errors), found, first


class _Text(io.TextIOWrapper):
    """Text in which a line, or what is read at once, has an end."""

    def __init__(self, stream: BinaryIO, name: str, codec: str, errors: str) -> None:
        super().__init__(stream, encoding=codec, errors=errors, newline="")
        self._name = name

    def __next__(self) -> str:  # type: ignore[override]
        line = self.readline(MOST_IN_LINE)
        if not line:
            raise StopIteration
        if len(line) == MOST_IN_LINE:
            raise UserError(
                f"{self._name} has a line of more than {MOST_IN_LINE:,} characters; expected shorter ones."
            )
        return line

    def read(self, size: int | None = -1) -> str:
        """As of any text; all of it at once up to `MOST_AT_ONCE` characters."""
        text = super().read(MOST_AT_ONCE if size is None or size < 0 else size)
        if len(text) == MOST_AT_ONCE:
            raise UserError(too_large(self._name))
        return text


def too_large(name: str) -> str:
    """Why a file that must be held as a whole is refused."""
    return (
        f"{name} holds more than {MOST_AT_ONCE:,} bytes in a form that is read as a whole; expected CSV, an"
        " object of JSON on each line, or parquet that is not compressed once more."
    )


def find_encoding(evidence: bytes) -> Encoding:
    """The encoding of some lines of text, best such that are not all ASCII.

    What is mostly UTF-8 is UTF-8, in which some rows are damaged.
    """
    for mark, codec in BYTE_ORDER_MARKS.items():
        if evidence.startswith(mark):
            return Encoding(codec)
    if evidence.count(0) > len(evidence) // 4:  # Latin letters of two bytes each, without a mark
        return Encoding("utf-16-le" if evidence[1::2].count(0) > evidence[::2].count(0) else "utf-16-be")
    decoded = evidence.decode("utf-8", "surrogateescape")
    damaged = sum("\udc80" <= character <= "\udcff" for character in decoded)
    if 2 * damaged <= sum(character > "\x7f" for character in decoded):
        return Encoding("utf-8")
    found = chardet.detect(evidence, encoding_era=chardet.EncodingEra.MODERN_WEB, prefer_superset=True)
    return Encoding(codecs.lookup(found["encoding"] or "cp1252").name, guessed=True)


def _open_zst(file: Any) -> io.BufferedReader:
    # pyarrow closes what it reads from, and the file may be opened again.
    borrowed = io.BufferedReader(_Continued(b"", file))
    return io.BufferedReader(pyarrow.CompressedInputStream(borrowed, "zstd"))


def _named(name: str) -> Encoding:
    try:
        "".encode(name)  # also refuses what is no encoding of text, such as base64
        return Encoding(codecs.lookup(name).name)
    except (LookupError, ValueError) as error:
        raise UserError(
            f"`encoding` is {name!r}; expected the name of one, such as utf-8, cp1252 or utf-16."
        ) from error


def _first_line(stream: BinaryIO) -> bytes:
    """The bytes to the end of the first line that is not blank."""
    read = bytearray()
    while len(read) < MOST_IN_LINE and (line := stream.readline(MOST_IN_LINE)):
        read += line
        if line.strip(b"\r\n\t \x00"):
            break
    return bytes(read)


def _evidence(stream: BinaryIO) -> bytes:
    """The next lines, and later ones with other characters than ASCII, as many as tell the encoding."""
    blocks: list[bytes] = []
    while len(blocks) < ENOUGH_BLOCKS and (block := stream.read(BLOCK)):
        block += stream.readline(MOST_IN_LINE)
        if not blocks or not block.isascii():
            blocks.append(block)
    return b"".join(blocks)


class _Continued(io.RawIOBase):
    """Bytes that have been read already, and the stream that follows them."""

    def __init__(self, first: bytes, rest: Any) -> None:
        self._first, self._rest = first, rest

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        data = self._first[: len(target)] or self._rest.read1(len(target))
        self._first = self._first[len(data) :]
        target[: len(data)] = data
        return len(data)

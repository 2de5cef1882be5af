"""Downloads: fetched once, checked, resumed after a break, and used offline from then on.

pooch names and checks the files, but its downloaders start at the first byte again after a break.
`_resume` is a downloader for pooch that keeps what has arrived.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pooch
import requests

from tinylm.errors import UserError
from tinylm.system.files import key_of, locked
from tinylm.system.paths import cache_folder, cached
from tinylm.system.progress import Bars, progress_bars

CHUNK = 1 << 16  # bytes; a break loses at most as much
TIMEOUT = 30  # seconds without a byte
ATTEMPTS = 3


def fetch(url: str, checksum: str | None, name: str) -> Path:
    """The file behind `url`, downloaded unless a valid copy is in the cache folder.

    Args:
        url: http or https address.
        checksum: `sha256:...` or `md5:...`, whichever its publisher or users give; None accepts what
            the server sends, if it is complete.
        name: where it goes, relative to the cache folder, such as `fewrel/pid2name.json`.

    Returns:
        Path of the complete file.

    Raises:
        UserError: no network, a response other than the file, or a wrong checksum.
    """
    target = cached(name)
    # Beside the target under a fixed name: pooch's own temporary file is a new one each time.
    partial = target.with_name(target.name + ".partial")
    # Two processes that resume would write to one file; the second one finds it complete.
    lock = nullcontext() if target.is_file() else locked(cache_folder() / "locks" / key_of({"file": name}))
    try:
        with lock:
            pooch.retrieve(
                url,
                known_hash=checksum,
                fname=target.name,
                path=target.parent,
                downloader=lambda url, output, _: _resume(url, partial, Path(output)),
            )
    except (OSError, ValueError) as error:  # requests' errors are OSErrors, pooch's checksum is a ValueError
        raise UserError(
            f"{url} could not be downloaded ({type(error).__name__}: {str(error).splitlines()[0]}); "
            f"get it another way and put it at {target}, or into TINYLM_DATA as {name}."
        ) from error
    return target


def _resume(url: str, partial: Path, output: Path) -> None:
    """Download `url` to `output`; `partial` keeps what arrived when a connection breaks."""
    with progress_bars(in_bytes=True) as bars:
        bar = bars.add(url.rsplit("/", 1)[-1], None)
        for attempt in range(ATTEMPTS):
            try:
                _transfer(url, partial, bars, bar)
                break
            except requests.RequestException:
                if attempt == ATTEMPTS - 1:
                    raise
    partial.replace(output)


def _transfer(url: str, partial: Path, bars: Bars, bar: int) -> None:
    """One request for the bytes that `partial` lacks."""
    have = partial.stat().st_size if partial.exists() else 0
    # Byte ranges count compressed bytes where the server compresses, so it must not.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing behind these bytes: begin again
            partial.unlink()
        response.raise_for_status()
        if response.status_code != 206:  # the whole file, from a server without ranges
            have = 0
        length = response.headers.get("Content-Length")
        bars.update(bar, completed=have, total=have + int(length) if length else None)
        with partial.open("ab" if have else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bars.update(bar, advance=len(chunk))

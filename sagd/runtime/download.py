"""Downloads: resumed after an interruption, checked by checksum, put in place only when whole."""

import hashlib
import http.client
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO

from sagd.errors import InputError
from sagd.runtime.files import lock
from sagd.runtime.progress import Bar

CHUNK = 1 << 20
TIMEOUT = 30  # seconds without a byte
NETWORK = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)


def fetch(url: str, path: Path, checksum: str | None) -> Path:
    """Download a file, unless it is there, and check it.

    A proxy is taken from the environment (https_proxy). What has arrived is kept beside ``path`` with the ending
    ``.part``, from where a later call goes on, in whatever process.

    Parameters
    ----------
    path
        Where the file shall be. One that a user put there by hand is checked like any other.
    checksum
        SHA-256 or, if it has 32 digits, MD5 of the whole file, in hexadecimal; None if there is none to check.

    Returns
    -------
    path

    Raises
    ------
    InputError
        No network, a refusal, or other bytes than expected; it says which file to put where.
    """
    remedy = f"put the file{_named(checksum)} at {path}"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path.with_name(path.name + ".part"), "ab") as part:
                lock(part, path)
                if not path.exists():  # else the other process has just put it there
                    _download(url, part, Path(part.name), checksum, remedy)
                    os.replace(part.name, path)
        except NETWORK as error:
            raise InputError(f"cannot fetch {url} ({error}); try again, or {remedy}") from error
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error
        return path
    found = digest(path, _algorithm(checksum)) if checksum else None
    if found != checksum:
        raise InputError(f"{path} is another file ({_named(found)[6:]}); {remedy}, or remove it to fetch it from {url}")
    return path


def _algorithm(checksum: str) -> str:
    return "md5" if len(checksum) == 32 else "sha256"


def _named(checksum: str | None) -> str:
    """What stands behind "the file"."""
    return f" with {'MD5' if _algorithm(checksum) == 'md5' else 'SHA-256'} {checksum}" if checksum else ""


def digest(path: Path, algorithm: str = "sha256") -> str:
    """SHA-256, or another sum of hashlib, of a file, in hexadecimal."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _download(url: str, part: BinaryIO, place: Path, checksum: str | None, remedy: str) -> None:
    """Fill the part file; reconnect after a break, as long as each connection brings something."""
    resumed = os.fstat(part.fileno()).st_size > 0
    while True:
        before = os.fstat(part.fileno()).st_size
        try:
            total = _continue(url, part, before, remedy)
        except NETWORK as error:
            if isinstance(error, urllib.error.HTTPError) or os.fstat(part.fileno()).st_size <= before:
                raise
            continue
        size = os.fstat(part.fileno()).st_size
        if size >= total:
            break
        if size <= before:
            raise InputError(f"{url} ended after {size} of {total} bytes; try again, or {remedy}")
    os.fsync(part.fileno())
    found = digest(place, _algorithm(checksum)) if checksum else None
    if found != checksum and resumed:  # what was there may have been of another file
        part.truncate(0)
        _download(url, part, place, checksum, remedy)
    elif found != checksum:
        place.unlink()
        raise InputError(f"{url} gave another file than expected ({_named(found)[6:]}), which was removed; {remedy}")


def _continue(url: str, part: BinaryIO, have: int, remedy: str) -> int:
    """Append what is missing, as far as the connection holds; return the size that the whole file should have."""
    request = urllib.request.Request(
        url, headers={"User-Agent": "sagd"} | ({"Range": f"bytes={have}-"} if have else {})
    )
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: there is nothing after what we have
            raise
        return have
    with response:
        if response.headers.get_content_type() == "text/html":
            raise InputError(f"{url} gave a web page in place of the file (over its quota, or for members); {remedy}")
        if have and response.status != 206:  # the server begins anew
            part.truncate(0)
            have = 0
        total = have + int(response.headers.get("Content-Length") or 0)
        with Bar(f"fetch {Path(part.name).stem}", total / 1e6, "MB") as bar:
            bar.skip(have / 1e6)
            while chunk := response.read(CHUNK):
                part.write(chunk)
                part.flush()
                bar.update(len(chunk) / 1e6)
    return total

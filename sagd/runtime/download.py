"""Downloads: resumed after an interruption, checked by checksum, put in place only when whole."""

import contextlib
import hashlib
import http.client
import math
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import BinaryIO

from sagd.errors import InputError, amount, shortened
from sagd.runtime.files import locked
from sagd.runtime.progress import Bar

CHUNK = 1 << 20
TIMEOUT = 30  # seconds without a byte
BREAKS = 5  # connections in a row that break before they have brought a CHUNK
PAUSE = 1.0  # seconds before the next
ROUNDED = 1.2  # sizes of data sets are rounded
NETWORK = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)


def fetch(url: str, path: Path, checksum: str | None, size: float | None = None) -> Path:
    """Download a file, unless it is there, and check it.

    A proxy is taken from the environment (https_proxy). What has arrived is kept beside ``path`` with the ending
    ``.part``, from where a later call goes on, in whatever process.

    Parameters
    ----------
    path
        Where the file shall be. One that a user put there by hand is checked like any other.
    checksum
        SHA-256 or, if it has 32 digits, MD5 of the whole file, in hexadecimal; None if there is none to check: then of
        a zip file it is checked that it is one, and whole.
    size
        About how many bytes are expected; at most a fifth more are taken.

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
            held = path.with_name(f".{path.name}.lock")
            with locked(held, path):
                if not path.exists():  # else the other process has just put it there
                    with open(path.with_name(path.name + ".part"), "ab") as part:
                        _download(url, part, checksum, remedy, size)
                    os.replace(part.name, path)
            with contextlib.suppress(OSError):  # one that waits for it finds the file
                held.unlink()
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


def _download(url: str, part: BinaryIO, checksum: str | None, remedy: str, size: float | None) -> None:
    """Fill the part file; reconnect after a break, as long as it is of use."""
    place, resumed, breaks = Path(part.name), os.fstat(part.fileno()).st_size > 0, 0
    while True:
        before = os.fstat(part.fileno()).st_size
        try:
            total = _continue(url, part, before, remedy, size)
        except NETWORK as error:
            came = os.fstat(part.fileno()).st_size - before
            breaks = 0 if came >= CHUNK else breaks + 1
            if isinstance(error, urllib.error.HTTPError) or came <= 0 or breaks > BREAKS:
                raise
            time.sleep(PAUSE)
            continue
        have = os.fstat(part.fileno()).st_size
        if have >= total:
            break
        breaks = 0 if have - before >= CHUNK else breaks + 1
        if have <= before or breaks > BREAKS:
            raise InputError(f"{url} ended after {have} of {total} bytes; try again, or {remedy}")
    os.fsync(part.fileno())
    found = digest(place, _algorithm(checksum)) if checksum else None
    if found != checksum and resumed:  # what was there may have been of another file
        part.truncate(0)
        _download(url, part, checksum, remedy, size)
    elif found != checksum:
        place.unlink()
        raise InputError(f"{url} gave another file than expected ({_named(found)[6:]}), which was removed; {remedy}")
    elif checksum is None and Path(place.stem).suffix == ".zip" and not zipfile.is_zipfile(place):
        place.unlink()
        raise InputError(f"{url} gave no whole zip file, so what came was removed; {remedy}")


def _continue(url: str, part: BinaryIO, have: int, remedy: str, size: float | None) -> int:
    """Append what is missing, as far as the connection holds; return the size that the whole file should have."""
    request = urllib.request.Request(
        url, headers={"User-Agent": "sagd"} | ({"Range": f"bytes={have}-"} if have else {})
    )
    try:
        response = _opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: there is nothing after what we have
            raise
        return have
    with response:
        if response.status not in (200, 206):
            raise InputError(f"{url} answered {response.status} {response.reason}, without the file; {remedy}")
        if response.headers.get_content_type() == "text/html":
            raise InputError(f"{url} gave a web page in place of the file (over its quota, or for members); {remedy}")
        free = have + shutil.disk_usage(part.name).free
        if have and response.status != 206:  # the server begins anew
            part.truncate(0)
            have = 0
        length = response.headers.get("Content-Length", "")
        total = have + (int(length) if length.isdigit() else 0)
        most = ROUNDED * size if size else math.inf
        if total > min(most, free):
            said = f"{amount(size or 0)} are expected" if total > most else f"{amount(free)} are free"
            raise InputError(f"{url} has {amount(total)}; {said}; {remedy}")
        with Bar(f"fetch {Path(part.name).stem}", (total or size or 0) / 1e6, "MB") as bar:
            bar.skip(have / 1e6)
            while chunk := response.read(CHUNK):
                have += len(chunk)
                if have > most:
                    raise InputError(f"{url} gives more than the {amount(size or 0)} expected; {remedy}")
                part.write(chunk)
                part.flush()
                bar.update(len(chunk) / 1e6)
    return total


class _Redirected(urllib.request.HTTPRedirectHandler):
    """Does not leave http and https."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if not newurl.startswith(("http://", "https://")):
            raise urllib.error.URLError(f"it leads to {shortened(newurl, 100)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Opens addresses of http and https, and no others, wherever they lead."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler, _Redirected,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor, urllib.request.UnknownHandler,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener

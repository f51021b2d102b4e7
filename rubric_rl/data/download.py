"""Downloads a published file once: resumed after a broken connection, checked, then kept."""

import fcntl
import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from rubric_rl.common.errors import DataError
from rubric_rl.common.plain_text import one_line

ATTEMPTS = 8  # in a row without a single new byte, before giving up
CHUNK = 1 << 18  # bytes
TIMEOUT = 60.0  # seconds without a byte
LONGEST_PAUSE = 5.0  # seconds


@dataclass(frozen=True)
class Published:
    """A file that its publisher never changes: name, size in bytes and SHA-256.

    `otherwise` tells what to do where it cannot be downloaded.
    """

    name: str
    size: int
    sha256: str
    otherwise: str = "pass a local copy with --source"
    writable: str = "name a folder with --cache that can be written"


def download(base_url: str, file: Published, folder: str | os.PathLike) -> Path:
    """The path of the checked file in `folder`; downloaded from `base_url` unless it is there.

    A download that broke off is resumed, also by the next run. Of several processes one downloads,
    and the others wait for it.

    Raises:
        DataError: when the server refuses, sends nothing new in 8 attempts, or sends something
            else than the published file, and when `folder` cannot be written.
    """
    folder = Path(folder)
    name = file.name
    path = folder / name
    part = folder / f"{name}.part"
    base_url = base_url.rstrip("/")
    url = f"{base_url}/{name}"
    try:
        if _is_there(path, file):
            return path
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the process, however that ends
            if not _is_there(path, file):
                _receive(url, part, file)
                _check(part, file)
                os.replace(part, path)
    except OSError as error:
        place = error.filename or part
        reason = error.strerror or error
        raise DataError(f"{place}: {reason}; {file.writable}") from None
    return path


def _is_there(path: Path, file: Published) -> bool:
    return path.is_file() and digest(path) == file.sha256


def _receive(url: str, part: Path, file: Published) -> None:
    """Fills `part` up to the published size, in as many requests as it takes."""
    if _size(part) > file.size:
        part.unlink()
    have = _size(part)
    failures = 0
    with tqdm(
        total=file.size, initial=have, unit="B", unit_scale=True, desc=file.name, disable=None
    ) as bar:
        while have < file.size:
            problem = _request_rest(url, part, have, file, bar)
            before = have
            have = _size(part)
            if have > before:
                failures = 0
                continue
            failures += 1
            if failures >= ATTEMPTS:
                what = f"{problem}, {ATTEMPTS} times"
                hint = f"run it again to resume, or {file.otherwise}"
                raise DataError(f"{url}: {what}; {hint}")
            pause = 0.1 * 2**failures
            time.sleep(min(pause, LONGEST_PAUSE))


def _request_rest(url: str, part: Path, have: int, file: Published, bar: tqdm) -> str:
    """One request for all but the first `have` bytes; returns why it may have brought less."""
    headers = {"Accept-Encoding": "identity"}  # the bytes as published, not compressed
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            status = answer.status_code
            if status >= 500 or status in (408, 429):
                return f"HTTP {status}"
            if status >= 400:
                raise DataError(f"{url}: HTTP {status}; {file.otherwise}")
            _check_kind(answer, file)
            _append(answer, part, have, file.size, bar)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        return _cause(error)
    return "the connection ended early"


def _check_kind(answer: requests.Response, file: Published) -> None:
    """Raises DataError for what cannot be the file, such as a proxy's page to sign in."""
    kind = answer.headers.get("Content-Type", "no type")
    length = answer.headers.get("Content-Length", "?")
    is_whole = answer.status_code == 200 and length != "?"
    if kind.startswith("text/html") or (is_whole and length != str(file.size)):
        what = one_line(f"{length} bytes ({kind}) in place of the published {file.size}", 200)
        raise DataError(f"{answer.url}: {what}; is it a proxy's page? {file.otherwise}")


def _append(answer: requests.Response, part: Path, have: int, size: int, bar: tqdm) -> None:
    """Writes what the server sends behind the bytes of `part`, or from the start."""
    served = answer.headers.get("Content-Range", "")
    wanted = f"bytes {have}-"
    mode = "ab"
    if answer.status_code != 206 or not served.startswith(wanted):
        have = 0  # a server that knows no ranges begins anew
        mode = "wb"
    bar.n = have
    with part.open(mode) as out:
        while have < size:
            missing = size - have
            # read1 gives what has arrived, so that a break loses nothing of it.
            chunk = answer.raw.read1(min(CHUNK, missing))
            if not chunk:
                return
            out.write(chunk)
            have += len(chunk)
            bar.update(len(chunk))


def _cause(error: BaseException) -> str:
    """What went wrong first, without the layers of the libraries around it."""
    while error.__context__ is not None:
        error = error.__context__
    reason = getattr(error, "strerror", None) or str(error)
    return one_line(reason) or type(error).__name__


def _check(part: Path, file: Published) -> None:
    """Removes other bytes than the published ones and raises DataError."""
    found = digest(part)
    published = file.sha256
    if found == published:
        return
    part.unlink()
    what = f"sha256 {found[:12]}... is not the published {published[:12]}..."
    raise DataError(f"{file.name}: {what}; run it again, or {file.otherwise}")


def _size(path: Path) -> int:
    if not path.is_file():
        return 0
    return path.stat().st_size


def digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Downloads a published file once: resumed after a broken connection, checked, then kept (stage 1, prompt)."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from rubric_rl.errors import DataError

ATTEMPTS = 8  # in a row without a single new byte, before giving up
CHUNK = 1 << 18
TIMEOUT = 60.0  # seconds


@dataclass(frozen=True)
class Published:
    """A file that its publisher never changes: name, size in bytes and SHA-256."""

    name: str
    size: int
    sha256: str


def download(base_url: str, file: Published, folder: str | os.PathLike) -> Path:
    """The path of the checked file in `folder`; it is downloaded from `base_url` unless it is there already.

    A download that broke off is resumed, also by the next run. Raises DataError when the server refuses, sends nothing
    new in 8 attempts, or sends other bytes than the published ones.
    """
    folder = Path(folder)
    path, part = folder / file.name, folder / f"{file.name}.part"
    if path.is_file() and digest(path) == file.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    _receive(f"{base_url.rstrip('/')}/{file.name}", part, file)
    if (found := digest(part)) != file.sha256:
        part.unlink()
        found = f"sha256 {found[:12]}... is not the published {file.sha256[:12]}..."
        raise DataError(f"{file.name}: {found}; run it again, or pass --source")
    os.replace(part, path)
    return path


def _receive(url: str, part: Path, file: Published) -> None:
    """Fills `part` up to the published size."""
    if part.is_file() and part.stat().st_size > file.size:
        part.unlink()
    failures = 0
    with tqdm(total=file.size, unit="B", unit_scale=True, desc=file.name, disable=None) as bar:
        while (have := part.stat().st_size if part.is_file() else 0) < file.size:
            bar.n = have
            try:
                _append(url, part, have, file.size, bar)
                problem = "the connection ended early"
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code not in (408, 429):
                    raise DataError(
                        f"{url}: HTTP {error.code}; pass a local copy with --source"
                    ) from None
                problem = f"HTTP {error.code}"
            except (
                OSError,
                http.client.HTTPException,
            ) as error:  # refused, reset, timed out, cut short
                problem = str(getattr(error, "reason", error)) or type(error).__name__
            failures = 0 if part.is_file() and part.stat().st_size > have else failures + 1
            if failures >= ATTEMPTS:
                hint = "run it again to resume, or pass a local copy with --source"
                raise DataError(f"{url}: {problem}, {ATTEMPTS} times; {hint}")
            time.sleep(min(0.1 * 2**failures, 5.0) if failures else 0)


def _append(url: str, part: Path, have: int, size: int, bar: tqdm) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        with part.open(
            "ab" if resumed else "wb"
        ) as out:  # a server that knows no ranges begins anew
            left = size - (have if resumed else 0)
            bar.n = size - left
            while left > 0 and (
                chunk := answer.read1(min(CHUNK, left))
            ):  # read1: what came before a break is kept
                out.write(chunk)
                left -= len(chunk)
                bar.update(len(chunk))


def digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

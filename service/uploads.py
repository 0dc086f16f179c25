"""Own pictures as they come in: a file is received and counted, and a zip is unpacked within limits it cannot pass.

A zip states sizes that need not be true, so bytes are counted while they are unpacked. Entries become files with names
of ours below the two roles; the sender's names are data and never a path.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import tifffile

from profiling.inputs.ome_tiff import channel_names
from service.errors import InvalidRequest, TooLarge

COMPOUND, CONTROL = "compound", "control"
ROLES = (COMPOUND, CONTROL)
ENDINGS = (".tif", ".tiff")
KEEP_S = 3600.0  # an upload that no job needs is removed after this
_PIECE = 1 << 20
_NAME = re.compile(r"[0-9a-f]{64}")
_WIDEST = 4  # bytes of a pixel: 32-bit floats
#: Compressions of TIFF that are read: none, LZW, deflate (two numbers), PackBits.
_COMPRESSIONS = (1, 5, 8, 32946, 32773)
_DEFLATE = (8, 32946)
_RATIO_FROM = 1 << 20  # bytes unpacked before the ratio is judged: small files of one colour are no bomb


@dataclass(frozen=True)
class Bounds:
    """What an upload may be: bytes packed and unpacked, the ratio of the two, files, pixels of all planes."""

    bytes: int
    inflation: float
    files: int
    pixels: int


@dataclass(frozen=True)
class OwnField:
    """One field of the upload: what the sender called it, its role, our file, names of its channels (empty: unnamed),
    pixels, planes, the type of the numbers, µm a pixel if stated."""

    name: str
    role: str
    file: Path
    channels: tuple[str, ...]
    size: tuple[int, int]
    planes: int
    dtype: str
    pixel_size_um: float | None


async def receive(stream: AsyncIterator[bytes], folder: Path, most: int) -> str:
    """Writes a body to a file below `folder` that is named by its SHA-256, and gives that name. Raises `TooLarge`."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{secrets.token_hex(16)}.part"
    digest, length = hashlib.sha256(), 0
    try:
        with aside.open("xb") as target:
            async for piece in stream:
                length += len(piece)
                if length > most:
                    raise TooLarge(f"the body is longer than {most} bytes: send fewer pictures at once")
                digest.update(piece)
                target.write(piece)
        if not length:
            raise InvalidRequest("the body is empty: send a TIFF, an OME-TIFF or a zip of them")
        name = digest.hexdigest()
        os.replace(aside, folder / name)
        os.utime(folder / name)
    finally:
        aside.unlink(missing_ok=True)
    return name


def upload_file(folder: Path, name: str) -> Path:
    """The file of an upload. Raises `InvalidRequest` for anything but a name that `receive` gave."""
    file = folder / name
    if not _NAME.fullmatch(name) or not file.is_file():
        raise InvalidRequest("the upload is not there any more: send the pictures again")
    return file


def sweep(folder: Path, needed: Iterable[str], now: float | None = None) -> int:
    """Removes uploads that no waiting job needs; returns how many."""
    keep, gone = set(needed), 0
    for file in folder.glob("*") if folder.is_dir() else ():
        old = (time.time() if now is None else now) - file.stat().st_mtime > KEEP_S
        if file.name not in keep and old:
            file.unlink(missing_ok=True)
            gone += 1
    return gone


def unpack(file: Path, into: Path, bounds: Bounds) -> list[tuple[str, str, Path]]:
    """The pictures of an upload as (the sender's name, role, file). A TIFF is one field of the compound.

    Raises:
        InvalidRequest: neither TIFF nor zip, a zip without pictures, encrypted or damaged. TooLarge: beyond `bounds`.
    """
    with file.open("rb") as stream:
        head = stream.read(4)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return [("field", COMPOUND, file)]
    if head[:2] != b"PK":
        raise InvalidRequest("the body is neither a TIFF nor a zip: send one of them")
    into.mkdir(parents=True)
    try:
        with zipfile.ZipFile(file) as archive:
            return _entries(archive, into, bounds, file.stat().st_size)
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError) as error:
        if isinstance(error, InvalidRequest | TooLarge):
            raise
        raise InvalidRequest(f"the zip cannot be unpacked: {' '.join(str(error).split())[:200]}") from error


def _entries(archive: zipfile.ZipFile, into: Path, bounds: Bounds, packed: int) -> list[tuple[str, str, Path]]:
    members = [one for one in archive.infolist() if not one.is_dir()]
    if len(members) > bounds.files:
        raise TooLarge(f"the zip has {len(members)} files, at most {bounds.files} are taken: send fewer at once")
    most = min(bounds.pixels * _WIDEST, max(packed * bounds.inflation, _RATIO_FROM))
    found, unpacked = [], 0
    for number, member in enumerate(members):
        name = member.filename
        role = role_of(name)
        if role is None or not name.lower().endswith(ENDINGS):
            continue
        target = into / f"{number:05d}.tif"
        with archive.open(member) as source, target.open("xb") as out:
            while piece := source.read(_PIECE):
                unpacked += len(piece)
                if unpacked > most:
                    raise TooLarge(
                        f"the zip unpacks to more than {bounds.inflation:g} times its size: send it less compressed"
                    )
                out.write(piece)
        found.append((name, role, target))
    if not any(role == COMPOUND for _, role, _ in found):
        raise InvalidRequest(
            "the zip has no TIFF below compound/: put the compound's pictures there, and those of your controls below "
            "control/"
        )
    return found


def role_of(name: str) -> str | None:
    """ "a/compound/x.tif" is the compound's, "control/x.tif" the control's; anything else is left aside."""
    parts = PurePosixPath(name.replace("\\", "/")).parts[:-1]
    roles = [part.lower() for part in parts if part.lower() in ROLES]
    return roles[0] if roles else None


def looked_at(name: str, role: str, file: Path) -> OwnField:
    """What a TIFF says of itself, without reading a pixel. Raises `InvalidRequest` where it is no field of planes."""
    try:
        with tifffile.TiffFile(file) as tiff:
            page, xml = tiff.pages[0], tiff.ome_metadata
            planes, shapes = len(tiff.pages), {one.shape for one in tiff.pages}
            shape, dtype = tuple(int(n) for n in page.shape), str(page.dtype)
            channels = channel_names(xml) if xml else ()
            stated = _stated_pixel(xml)
            _check_strips(tiff)
    except TooLarge:
        raise
    except Exception as error:  # a hostile file makes a parser fail in any way there is
        raise InvalidRequest(f"picture {name[-100:]!r} cannot be read as TIFF: {type(error).__name__}") from error
    if len(shape) != 2 or len(shapes) != 1 or min(shape) < 1:
        raise InvalidRequest(
            f"picture {name[-100:]!r} has planes of shape {sorted(shapes)[:3]}: expected one grey page a channel, all "
            "of one size"
        )
    named = channels if len(channels) == planes and all(channels) and len(set(channels)) == planes else ()
    return OwnField(name, role, file, named, (shape[0], shape[1]), planes, dtype, stated)


def check_pixels(fields: Iterable[OwnField], bounds: Bounds) -> None:
    """Raises `TooLarge` where the planes of all fields hold more pixels than are taken."""
    pixels = sum(one.size[0] * one.size[1] * one.planes for one in fields)
    if pixels > bounds.pixels:
        raise TooLarge(f"the pictures have {pixels} pixels, at most {bounds.pixels} are taken: send fewer at once")


def clear(folder: Path) -> None:
    """Removes what was unpacked."""
    shutil.rmtree(folder, ignore_errors=True)


def _check_strips(tiff: tifffile.TiffFile) -> None:
    """Raises `TooLarge` for a deflated strip that holds more than its part of the picture: what the header says bounds
    what a decoder will write. ValueError for a compression that is not read."""
    for page in tiff.pages:
        if int(page.compression) not in _COMPRESSIONS:
            raise ValueError(f"compression {int(page.compression)}")
        if int(page.compression) not in _DEFLATE:
            continue
        rows, columns = page.chunks[:2]
        holds = rows * columns * np.dtype(page.dtype).itemsize
        for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            tiff.filehandle.seek(start)
            opened = zlib.decompressobj().decompress(tiff.filehandle.read(length), holds + 1)
            if len(opened) > holds:
                raise TooLarge(f"a strip of {length} bytes unpacks to more than the {holds} bytes of its pixels")


def _stated_pixel(xml: str | None) -> float | None:
    if xml is None:
        return None
    match = re.search(r'PhysicalSizeX="([0-9.eE+-]{1,30})"', xml)
    unit = re.search(r'PhysicalSizeXUnit="([^"]{1,10})"', xml)
    if match is None or (unit is not None and unit[1] not in ("µm", "um", "&#181;m")):
        return None
    try:
        value = float(match[1])
    except ValueError:
        return None
    return value if 0 < value < 1e6 else None

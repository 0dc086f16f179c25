"""Messages over a pipe: 8 bytes of little-endian length, then an .npz archive of named arrays with a JSON header in it.

Both sides use this file: numpy and the standard library only. Arrays are never unpickled.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

PREFIX = struct.Struct("<q")
_HEADER = "__header__"


def encode(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> bytes:
    """One message, with its length in front. `header` is JSON; `arrays` keep dtype and shape."""
    body = io.BytesIO()
    text = json.dumps(dict(header)).encode()
    named: dict[str, Any] = {_HEADER: np.frombuffer(text, np.uint8), **(arrays or {})}
    np.savez(body, **named)
    return PREFIX.pack(body.tell()) + body.getvalue()


def decode(body: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a message, without its length prefix."""
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header: dict[str, Any] = json.loads(arrays.pop(_HEADER).tobytes().decode())
    return header, arrays

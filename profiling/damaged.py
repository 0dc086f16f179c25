"""A file that is cut short or is not what its name says, told as one sentence instead of a library's traceback."""

import gzip
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa

from profiling.profiles import InvalidProfiles

DAMAGE = (
    pa.ArrowInvalid,
    pa.ArrowTypeError,
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    UnicodeDecodeError,
    sqlite3.DatabaseError,
    pd.errors.ParserError,
    pd.errors.EmptyDataError,
)


@contextmanager
def readable(path: str | Path, what: str) -> Iterator[None]:
    """Within it, whatever a library raises over damaged bytes becomes `InvalidProfiles` that names the file."""
    try:
        yield
    except DAMAGE as error:
        lines = str(error).strip().splitlines()
        why = lines[0] if lines else type(error).__name__
        raise InvalidProfiles(
            f"path {str(path)!r} cannot be read as {what} ({why}): it is damaged, cut short or of another kind; "
            "make or fetch it again"
        ) from error

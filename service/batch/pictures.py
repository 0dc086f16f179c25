"""Pictures of a batch that are kept at its address: none, a preview of each compound, or all."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from service.batch.store import Store
from service.pictures import stem, write_picture
from service.rooms import ModelCard


def keep(
    which: str,
    store: Store,
    header: dict[str, Any],
    rows: pd.DataFrame,
    pictures: Float[np.ndarray, "n c h w"],
    card: ModelCard,
) -> None:
    """Put the pictures of some draws of a compound under `pictures/<entry>-<InChIKey>/`.

    which: "none", "preview" (the composite PNG of draw 0) or "all" (OME-TIFF and PNG of each draw).
    """
    if which == "none":
        return
    folder = f"pictures/{header['row']:07d}-{header['inchikey']}"
    for row, picture in zip(rows.to_dict("records"), pictures, strict=True):
        draw = int(row["draw"])
        if which == "preview" and draw:
            continue
        with tempfile.TemporaryDirectory() as aside:
            facts = {"compound": header["inchikey"], **{str(key): value for key, value in row.items()}}
            write_picture(Path(aside), draw, picture, card, facts)
            wanted = (
                [f"{stem(draw)}.png"] if which == "preview" else sorted(path.name for path in Path(aside).iterdir())
            )
            for name in wanted:
                store.put(f"{folder}/{name}", (Path(aside) / name).read_bytes())

"""Writes tests/golden/profiling/other_settings.cppipe and .npz: CellProfiler with settings that no shipped file has.

    .venv/bin/python tests/golden/profiling/regenerate_other_settings.py

The pipeline `full` with other sizes, a picture of odd sides, three channels, rings that are not scaled, 37 grey levels,
a quarter of the pixels for granularity, colocalization of pictures too, and the other Costes method. Arrays are named
as in `regenerate_fast.py`; stock modules, our kernels off.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from profiling.engines import CellProfilerEngine
from profiling.engines.settings import pipeline
from service.painted_fields import CHANNELS, paint

HERE = Path(__file__).resolve().parent
CHANGES = (
    ("Subsampling factor for granularity measurements:0.5", "Subsampling factor for granularity measurements:0.25"),
    ("Range of the granular spectrum:16", "Range of the granular spectrum:5"),
    ("Radius of structuring element:10", "Radius of structuring element:4"),
    ("at:256", "at:37"),
    ("Select where to measure correlation:Within objects", "Select where to measure correlation:Both"),
    ("Method for Costes thresholding:Faster", "Method for Costes thresholding:Fast"),
    ("Scale the bins?:Yes", "Scale the bins?:No"),
    ("Number of bins:4", "Number of bins:3"),
    ("Maximum radius:100", "Maximum radius:9"),
    ("(Min,Max):10,60", "(Min,Max):7,40"),
    ("DNA, ER, RNA, AGP, Mito", "DNA, ER, RNA"),
)


def main() -> None:
    text = pipeline("full").read_text(encoding="utf-8")
    for old, new in CHANGES:
        if old not in text:
            raise ValueError(f"the pipeline `full` has no {old!r} to change")
        text = text.replace(old, new)
    target = HERE / "other_settings.cppipe"
    target.write_text(text, encoding="utf-8")
    picture = np.rint(paint(1, 8, size=144, scale=1.0, seed=3)[0, :, :127, :143] * 65535).astype(np.uint16)
    with CellProfilerEngine(target, workers=1, timeout_s=900.0, kernels=False, masks=True) as engine:
        [field] = engine.measure((picture / 65535.0).astype(np.float32)[None], CHANNELS)
    if field.outcome != "ok":
        raise ValueError(f"CellProfiler says {field.reason}")
    out = {"picture": picture, "values/Image": np.array(list(field.image.values()))}
    out["names/Image"] = np.frombuffer("\n".join(field.image).encode(), np.uint8)
    for name, table in field.objects.items():
        out[f"labels/{name}"], out[f"values/{name}"] = field.masks[name], table.values.astype(np.float32)
        out[f"names/{name}"] = np.frombuffer("\n".join(table.names).encode(), np.uint8)
    np.savez_compressed(HERE / "other_settings.npz", **out)


if __name__ == "__main__":
    main()

"""How far the engine `fast` agrees with CellProfiler's stock modules, family by family: docs/fast_parity.md.

    python -P benchmarks/fast_parity.py [--fields goldens,cpjump1,cdp2,nf1] [--crop 0] [--out docs/fast_parity.md]
        [--work runs/fast_parity] [--minutes 0]

Goldens are the painted fields of tests/golden/profiling/fast (their values were stored by the stock modules). The real
fields come from $DOPAINT_DATA and are measured here, kernels of ours off; `--crop N` takes their middle N x N pixels.
What the stock modules said of a field is kept in the folder `--work`, so that a run which was stopped goes on where it
was, and one after a change of `fast` only asks `fast`; no field is begun after `--minutes` (0: all are). A whole field
of 1080 x 1080 takes the stock modules minutes.

A value agrees if it is within 1e-6 of the larger, or within 1e-12 of the column's largest (what is zero but for
rounding), or NaN in both. End to end, an object is compared with the one that covers most of it; an object without one
counts as all wrong. Prints the table, writes the page, and ends with one JSON line. (`-P`: a script beside this one has
the name of the room `profiling`.)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.ndimage
from PIL import Image

from profiling.engines import CellProfilerEngine, FastEngine, FieldMeasurement, ObjectTable
from profiling.engines.settings import pipeline

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests/golden/profiling/fast"
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
OBJECTS = ("Nuclei", "Cells", "Cytoplasm")
NF1_CHANNELS = ("DAPI", "GFP", "RFP")
#: Features whose value in CellProfiler is rounding, by the start of their name: why.
NOISE = {
    "AreaShape_CentralMoment_0_1": "zero in exact arithmetic; CellProfiler's value is rounding noise. `stable`: 0",
    "AreaShape_CentralMoment_1_0": "the same",
    "AreaShape_Orientation": "the sign of 45 degrees where rows and columns vary alike, decided by rounding in "
    "CellProfiler, exactly here; and -90 or 90. `stable`: the axis itself, in (-90, 90]",
    "Location_MaxIntensity": "of several brightest pixels numpy's unstable sort picks one; its choice is reproduced. "
    "`stable`: the first",
    "RadialDistribution": "the centre, of several pixels farthest from the edge, is picked the same way. `stable`: the "
    "first",
}


@dataclass
class Tally:
    """Values compared and in agreement, by family; and the columns that disagree."""

    total: dict[str, int] = field(default_factory=dict)
    good: dict[str, int] = field(default_factory=dict)
    columns: dict[str, list[float]] = field(default_factory=dict)  # feature: [wrong, compared, worst relative]

    def add(self, names: tuple[str, ...], expected: np.ndarray, got: np.ndarray, prefix: str = "") -> None:
        """`expected`, `got`: [n, k]; a row of `got` that is all infinite has no counterpart."""
        larger = np.maximum(np.abs(expected), np.abs(got))
        floor = 1e-12 * np.nanmax(np.abs(expected), axis=0, initial=0.0)
        with np.errstate(invalid="ignore"):
            off = np.abs(expected - got)
            agree = (off <= 1e-6 * larger) | (off <= floor) | (expected == got)
            relative = np.where(larger > 0, off / larger, 0.0)
        agree &= np.isfinite(got) | (expected == got)
        agree |= np.isnan(expected) & np.isnan(got)
        for k, name in enumerate(names):
            family = prefix or name.split("_")[0]
            self.total[family] = self.total.get(family, 0) + len(agree)
            self.good[family] = self.good.get(family, 0) + int(agree[:, k].sum())
            wrong = ~agree[:, k]
            if wrong.any():
                seen = self.columns.setdefault(name, [0, 0, 0.0])
                seen[0] += int(wrong.sum())
                seen[2] = max(seen[2], float(np.nan_to_num(relative[wrong, k], nan=np.inf).max()))
            if name in self.columns:
                self.columns[name][1] += len(agree)


@dataclass(frozen=True)
class Case:
    """One field: what CellProfiler says end to end and on its own masks, and how to ask `fast` the same."""

    name: str
    settings: str | Path
    picture: np.ndarray
    channels: tuple[str, ...]
    found: FieldMeasurement | None  # end to end
    masked: FieldMeasurement | None  # on `masks`; None: the same as `found`
    masks: dict[str, np.ndarray]


def read(path: Path) -> tuple[FieldMeasurement, dict[str, np.ndarray]]:
    """A measurement that was kept, and all arrays of its file."""
    with np.load(path) as archive:
        a = {name: archive[name] for name in archive.files}
    names = {k: tuple(a[f"names/{k}"].tobytes().decode().split("\n")) for k in (*OBJECTS, "Image")}
    tables = {k: ObjectTable(names[k], a[f"values/{k}"].astype(float)) for k in OBJECTS}
    masks = {k: a[f"labels/{k}"] for k in OBJECTS if f"labels/{k}" in a}
    image = dict(zip(names["Image"], a["values/Image"].tolist(), strict=True))
    return FieldMeasurement("ok", "", tables, image, masks), a


def kept(work: Path, name: str, of: str, measure: Callable[[], FieldMeasurement]) -> FieldMeasurement:
    """What stock said of a field: from the folder, or measured now and kept. `of`: what it depends on.

    Raises:
        ValueError: CellProfiler could not measure it.
    """
    path = work / f"{name}_{hashlib.sha256(of.encode()).hexdigest()[:12]}.npz"
    if not path.is_file():
        begin = time.monotonic()
        found = measure()
        if found.outcome == "failed":
            raise ValueError(f"{name}: CellProfiler failed: {found.reason}")
        tables = {**{k: (t.names, t.values) for k, t in found.objects.items()}}
        tables["Image"] = (tuple(found.image), np.array(list(found.image.values())))
        arrays = {f"values/{k}": values for k, (_, values) in tables.items()}
        arrays |= {f"names/{k}": np.frombuffer("\n".join(n).encode(), np.uint8) for k, (n, _) in tables.items()}
        arrays |= {f"labels/{k}": labels for k, labels in found.masks.items()}
        work.mkdir(parents=True, exist_ok=True)
        with (work / "part").open("wb") as file:
            np.savez_compressed(file, **arrays)
        (work / "part").rename(path)
        print(f"{name}: stock modules {time.monotonic() - begin:.0f} s", flush=True)
    return read(path)[0]


def goldens() -> Iterator[Case]:
    for path in sorted(GOLDEN.glob("*.npz")):
        found, a = read(path)
        picture = (a["picture"] / 65535.0).astype(np.float32)
        yield Case(path.stem, path.stem.split("_")[0], picture, CHANNELS, found, None, dict(found.masks))


def _read(file: Path) -> np.ndarray:
    """A TIFF of one page; Pillow reads LZW without a further package."""
    with Image.open(file) as opened:
        return np.asarray(opened)


def middle(plane: np.ndarray, crop: int) -> np.ndarray:
    """The middle of a picture, or all of it."""
    if not crop:
        return plane
    y, x = (max(0, (side - crop) // 2) for side in plane.shape)
    return plane[y : y + crop, x : x + crop]


def real(folder: str, crop: int, work: Path) -> Iterator[Case]:
    """Five channels of a real field, settings `jump`."""
    root = Path(os.environ["DOPAINT_DATA"]) / "cell_painting_fields"
    if folder == "cpjump1":
        files = [next((root / "cpjump1_BR00117010_A01_f01").glob(f"*-ch{k}*")) for k in (5, 4, 3, 2, 1)]
    else:
        stems = ("Hoechst", "ERSyto", "ERSytoBleed", "Ph_golgi", "Mito")
        files = [root / "cdp2bioactives_example" / f"{stem}.tif" for stem in stems]
    planes = np.stack([middle(_read(f), crop) for f in files])
    picture = (planes / 65535.0).astype(np.float32)
    with CellProfilerEngine("jump", workers=1, timeout_s=1800.0, kernels=False, masks=True) as engine:
        found = kept(work, folder, f"{engine.hash} {crop}", lambda: engine.measure(picture[None], CHANNELS)[0])
    yield Case(folder, "jump", picture, CHANNELS, found, None, dict(found.masks))


def nf1(crop: int, work: Path) -> Iterator[Case]:
    """Three channels with masks of their own; the pipeline `jump` with their channel names."""
    root = Path(os.environ["DOPAINT_DATA"]) / "nf1_fields"
    text = pipeline("jump").read_text(encoding="utf-8").replace(", ".join(CHANNELS), ", ".join(NF1_CHANNELS))
    text = text.replace("Select the input image:DNA", "Select the input image:DAPI")
    text = text.replace("Select the input image:RNA", "Select the input image:RFP")
    work.mkdir(parents=True, exist_ok=True)
    file = work / "nf1.cppipe"
    file.write_text(text, encoding="utf-8")
    with CellProfilerEngine(file, workers=1, timeout_s=1800.0, kernels=False, masks=True) as engine:
        for dapi in sorted((root / "images").glob("*DAPI*")):
            well, _, site = dapi.stem.split("_")[0], *dapi.stem.split("_")[2:4]
            stems = [next((root / "images").glob(f"{well}_01_*_{site}_{c}_001.tif")) for c in NF1_CHANNELS]
            picture = (np.stack([middle(_read(s), crop) for s in stems]) / 65535.0).astype(np.float32)
            masks = {}
            for kind in OBJECTS:
                mask = _read(next((root / "masks").glob(f"{well}_*Mask{kind}.tiff")))
                labels = scipy.ndimage.label(middle(np.squeeze(mask), crop) > 0)[0]
                masks[kind] = labels.astype(np.int32)
            yield _nf1_case(well, file, picture, masks, engine, work, f"{engine.hash} {crop}")


def _nf1_case(
    well: str, file: Path, picture: np.ndarray, masks: dict[str, np.ndarray], engine: CellProfilerEngine, work: Path,
    of: str,
) -> Case:  # fmt: skip
    given = {kind: labels[None] for kind, labels in masks.items()}
    masked = kept(work, f"nf1_{well}_masks", of, lambda: engine.measure_masks(picture[None], NF1_CHANNELS, given)[0])
    found = kept(work, f"nf1_{well}", of, lambda: engine.measure(picture[None], NF1_CHANNELS)[0])
    return Case(f"nf1_{well}", file, picture, NF1_CHANNELS, found, masked, masks)


def counterparts(expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Row of `got` for each object of `expected`, -1 for none."""
    n, m = int(expected.max(initial=0)), int(got.max(initial=0))
    shared = np.zeros((n + 1, m + 1), np.int64)
    np.add.at(shared, (expected.ravel().astype(int), got.ravel().astype(int)), 1)
    if not m:
        return np.full(n, -1)
    best = shared[1:, 1:].argmax(axis=1)
    return np.where(shared[1:, 1:].max(axis=1, initial=0) > 0, best, -1)


def compare(case: Case, same_masks: Tally, end_to_end: Tally) -> dict[str, object]:
    """Adds one field to both tallies; its line of the second table."""
    with FastEngine(case.settings, workers=1, masks=True) as engine:
        [found] = engine.measure(case.picture[None], case.channels)
        given = {name: labels[None].astype(np.int32) for name, labels in case.masks.items()}
        [masked] = engine.measure_masks(case.picture[None], case.channels, given)
    pixels, rows = {}, 0
    for name in OBJECTS:
        if case.found is not None and case.found.outcome != "failed":
            a, b = case.found.masks[name], found.masks[name]
            pixels[name] = float((a == b).mean())
            expected, table = case.found.objects[name], found.objects[name]
            assert expected.names == table.names, name
            match = counterparts(a, b)
            got = np.full(expected.values.shape, np.inf)
            got[match >= 0] = table.values[match[match >= 0]]
            end_to_end.add(expected.names, expected.values, got)
            rows += len(expected.values)
        truth = case.masked or case.found
        assert truth is not None
        expected, table = truth.objects[name], masked.objects[name]
        # CellProfiler's own masks remember objects that were dropped, and those of earlier steps; given ones do not.
        strange = () if case.masked else ("Neighbors", "Parent_AllNuclei")
        kept = [k for k, n in enumerate(expected.names) if not (strange and n.startswith(strange))]
        same_masks.add(tuple(expected.names[k] for k in kept), expected.values[:, kept], table.values[:, kept])
    if case.found is not None:
        names = tuple(case.found.image)
        end_to_end.add(
            names, np.array([list(case.found.image.values())]), np.array([list(found.image.values())]), "Image"
        )
    return {"field": case.name, "objects": rows, **pixels}


def areas(case: Case) -> list[dict[str, object]]:
    """Published areas of the cells of an NF1 field beside ours, matched by the nucleus's centre."""
    root = Path(os.environ["DOPAINT_DATA"]) / "nf1_fields"
    table = pd.read_parquet(root / "Plate_2_with_image_data_shrunken.parquet")
    table = table[table["Image_FileName_DAPI"].str.startswith(case.name.removeprefix("nf1_") + "_")]
    with FastEngine(case.settings, workers=1) as engine:
        given = {name: labels[None].astype(np.int32) for name, labels in case.masks.items()}
        [ours] = engine.measure_masks(case.picture[None], case.channels, given)
    names, values = ours.objects["Nuclei"]
    x, y, area = (values[:, names.index(f"AreaShape_{n}")] for n in ("Center_X", "Center_Y", "Area"))
    out: list[dict[str, object]] = []
    for _, row in table.iterrows():
        distance = np.hypot(x - row["Nuclei_AreaShape_Center_X"], y - row["Nuclei_AreaShape_Center_Y"])
        if len(distance) and distance.min() < 5:
            mine, theirs = float(area[distance.argmin()]), float(row["Nuclei_AreaShape_Area"])
            out.append({"field": case.name, "published": theirs, "ours": mine, "relative": mine / theirs - 1})
    return out


def page(same: Tally, whole: Tally, fields: list[dict[str, object]], nuclei: list[dict[str, object]], crop: int) -> str:
    """The Markdown page."""
    part = f"The real fields are the middle {crop} x {crop} pixels of theirs." if crop else "The real fields are whole."
    lines = [
        "# How far the engine `fast` agrees with CellProfiler",
        "",
        "Written by `benchmarks/fast_parity.py` against CellProfiler 4.2.8.1's stock modules; its docstring says what",
        f"counts as agreement. {part}",
        "",
        "| family | values, same masks | agree | values, end to end | agree |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for family in sorted(set(same.total) | set(whole.total)):
        cells = []
        for tally in (same, whole):
            n = tally.total.get(family, 0)
            cells += [f"{n:,}", f"{100 * tally.good[family] / n:.3f} %" if n else ""]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    lines += ["", "## Fields", "", "Share of pixels with the same label.", ""]
    lines += [f"| field | objects | {' | '.join(OBJECTS)} |", "| --- | ---: |" + " ---: |" * len(OBJECTS)]
    for line in fields:
        shares = " | ".join(f"{100 * float(str(line[k])):.4f} %" if k in line else "" for k in OBJECTS)
        lines.append(f"| {line['field']} | {line['objects']} | {shares} |")
    lines += ["", "## Columns that disagree, same masks", "", "| feature | wrong | compared | worst relative |"]
    lines.append("| --- | ---: | ---: | ---: |")
    for name, (wrong, n, worst) in sorted(same.columns.items(), key=lambda item: -item[1][0])[:40]:
        lines.append(f"| {name} | {wrong:.0f} | {n:.0f} | {worst:.1e} |")
    lines += ["", "## Artefacts of CellProfiler's values", ""]
    lines += [f"- `{name}`: {why}." for name, why in NOISE.items()]
    if nuclei:
        lines += [
            "",
            "## Published areas (NF1)",
            "",
            "| field | published | ours | relative |",
            "| --- | ---: | ---: | ---: |",
        ]
        lines += [f"| {a['field']} | {a['published']} | {a['ours']} | {a['relative']:.2e} |" for a in nuclei]
    return "\n".join(lines) + "\n"


def _cases(kinds: list[str], crop: int, work: Path) -> Iterator[Case]:
    for kind in kinds:
        yield from goldens() if kind == "goldens" else nf1(crop, work) if kind == "nf1" else real(kind, crop, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fields", default="goldens,cpjump1,cdp2,nf1")
    parser.add_argument("--crop", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/fast_parity.md")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/fast_parity")
    parser.add_argument("--minutes", type=float, default=0.0)
    options = parser.parse_args()
    if options.fields != "goldens" and "DOPAINT_DATA" not in os.environ:
        parser.error("real fields: set DOPAINT_DATA to the folder of the development data, or ask for --fields goldens")
    same, whole = Tally(), Tally()
    fields: list[dict[str, object]] = []
    nuclei: list[dict[str, object]] = []
    begin = time.monotonic()
    for case in _cases(options.fields.split(","), options.crop, options.work):
        fields.append(compare(case, same, whole))
        print(f"{(time.monotonic() - begin) / 60:.1f} min: {fields[-1]}", flush=True)
        if case.name.startswith("nf1") and not options.crop:
            nuclei += areas(case)
        # after each field: a run that is stopped has its page
        options.out.write_text(page(same, whole, fields, nuclei, options.crop), encoding="utf-8")
        if options.minutes and time.monotonic() - begin > 60 * options.minutes:
            print(f"stopped after {options.minutes:g} minutes; the same command goes on", flush=True)
            break
    print(options.out.read_text(encoding="utf-8"))
    shares = {
        name: {family: tally.good[family] / n for family, n in tally.total.items() if n}
        for name, tally in (("same_masks", same), ("end_to_end", whole))
    }
    print(json.dumps({"benchmark": "fast_parity", "shares": shares, "fields": fields, "areas": nuclei}))


if __name__ == "__main__":
    main()

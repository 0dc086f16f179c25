"""The Cell Painting Gallery's layout of JUMP-CP (cpg0016): `source_4/images/<batch>/images/<plate>/...tiff`.

Where a plate has a load_data file below `source_4/workspace/load_data_csv/<batch>/<plate>/`, it says which file is
which channel; else the file names and the table of channel numbers in `profiling.jump_channels` do. A local mirror of
the gallery, of one project or of one source; only the first plane of depth and the fluorescent channels are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from profiling.inputs import load_data
from profiling.inputs.field import FieldSet, InvalidInput, Plane, field_set, well_of
from profiling.jump_channels import CHANNELS, FILE_NAMES

LOAD_DATA = ("load_data.parquet", "load_data.csv.gz", "load_data.csv")


def read(
    folder: Path, plates: Sequence[str] = (), channels: Mapping[str, str] | Sequence[str] | None = None
) -> FieldSet:
    """The fields of all plates below `folder` (a source, a project, or the whole mirror), or of `plates` alone.

    `channels`: those to read, default all five; a mapping names them by the load_data file's names.

    Raises:
        InvalidInput: no source_N/images there, no such plate, a source whose channel order is not known, or no field.
    """
    sources = sources_below(folder)
    if not sources:
        raise InvalidInput(f"input: {folder} holds no source_<n>/images: expected the Cell Painting Gallery's layout")
    found: list[tuple[dict[str, str], dict[str, Plane]]] = []
    notes: list[str] = []
    known: list[str] = []
    for source in sources:
        for batch, plate, pictures in _plates(source):
            known.append(plate)
            if not plates or plate in plates:
                meta = {"Source": source.name, "Batch": batch, "Plate": plate}
                fields, note = _plate(source, meta, pictures, channels)
                found += fields
                notes += note
    if missing := sorted(set(plates) - set(known)):
        raise InvalidInput(f"plates: {', '.join(missing)} are not there; {folder} holds {', '.join(known[:10])}")
    return field_set(found, what=str(folder), notes=notes)


def sources_below(folder: Path) -> list[Path]:
    """The folders source_<n> with pictures: `folder` itself, or up to two levels below it, in order of their number."""
    candidates = [folder, *folder.glob("source_*"), *folder.glob("*/source_*")] if folder.is_dir() else []
    sources = {path for path in candidates if path.name.startswith("source_") and (path / "images").is_dir()}
    return sorted(sources, key=lambda path: (len(path.name), path.as_posix()))


def _plates(source: Path) -> list[tuple[str, str, Path]]:
    """Batch, plate and folder of pictures. "BR00117035__2021-05-02T16_02_51-Measurement1" is plate BR00117035."""
    plates = []
    for folder in sorted(source.glob("images/*/images/*")):
        if folder.is_dir():
            inner = folder / "Images"
            pictures = inner if inner.is_dir() else folder
            plates.append((folder.parents[1].name, folder.name.split("__")[0], pictures))
    return plates


def _plate(
    source: Path, meta: Mapping[str, str], pictures: Path, channels: Mapping[str, str] | Sequence[str] | None
) -> tuple[list[tuple[dict[str, str], dict[str, Plane]]], list[str]]:
    tables = source / "workspace/load_data_csv" / meta["Batch"] / meta["Plate"]
    for name in LOAD_DATA:
        if (tables / name).is_file():
            stains = channels or tuple(next(iter(CHANNELS.values())))
            table = load_data.read_table(tables / name)
            # Paths in these tables begin with a bucket, with the source, or (older ones) with the batch.
            roots = [source.parent, source / "images", pictures]
            return load_data.rows(table, tables / name, roots, stains, meta), []
    if source.name not in CHANNELS:
        raise InvalidInput(
            f"input: the channel order of {source.name} is not known (known: {', '.join(CHANNELS)}); put its load_data "
            f"file into {tables}"
        )
    numbers = {stain: number for stain, number in CHANNELS[source.name].items() if not channels or stain in channels}
    return _by_file_names(meta, pictures, numbers)


def _by_file_names(
    meta: Mapping[str, str], pictures: Path, numbers: Mapping[str, int]
) -> tuple[list[tuple[dict[str, str], dict[str, Plane]]], list[str]]:
    fields: dict[tuple[str, str], dict[str, tuple[int, Path]]] = {}
    strange = 0
    for path in sorted(pictures.glob("*.tif*")):
        match = next((m for name in FILE_NAMES.values() if (m := name.fullmatch(path.name))), None)
        if match is None:
            strange += "thumb" not in path.name
            continue
        parts = match.groupdict()
        well = parts.get("well") or well_of(int(parts["row"]), int(parts["column"]))
        depth = int(parts.get("plane") or 1)
        for stain, number in numbers.items():
            if number == int(parts["channel"]):
                planes = fields.setdefault((well, parts["site"]), {})
                if stain not in planes or depth < planes[stain][0]:
                    planes[stain] = (depth, path)
    notes = [f"{strange} pictures of plate {meta['Plate']} have names of no known microscope"] if strange else []
    found = [
        ({**meta, "Well": well, "Site": site}, {stain: Plane(path) for stain, (_, path) in planes.items()})
        for (well, site), planes in fields.items()
    ]
    return found, notes

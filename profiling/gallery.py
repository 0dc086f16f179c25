"""The Cell Painting Gallery as a place of files: on S3 without an account, or a local mirror with the same keys.

    cpg0016-jump/<source>/workspace/load_data_csv/<batch>/<plate>/load_data_with_illum.parquet (or load_data.csv[.gz])
    cpg0016-jump/<source>/images/<batch>/images/<plate folder>/.../<file>.tiff
    cpg0016-jump/<source>/images/<batch>/illum/<plate>/<plate>_Illum<channel>.npy

A plate's load_data table says which file is which channel; without one, file names and the channel numbers of its
source (`profiling.jump_channels`) do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from profiling.inputs.field import well_name, well_of
from profiling.jump_channels import CHANNELS, FILE_NAMES, STAINS

BUCKET = "s3://cellpainting-gallery"
PROJECT = "cpg0016-jump"
TABLES = (
    "load_data_with_illum.parquet",
    "load_data_with_illum.csv.gz",
    "load_data_with_illum.csv",
    "load_data.parquet",
    "load_data.csv.gz",
    "load_data.csv",
)
_ILLUM = re.compile(r"_Illum(?P<stain>DNA|ER|RNA|AGP|Mito)\.npy")


class GalleryError(ValueError):
    """Raised when a gallery cannot be reached, or lacks a plate, a table or the pictures of a field."""


@dataclass(frozen=True)
class RemoteField:
    """One field of view: keys (below the gallery's root) of the picture of each channel and, where the gallery has
    them, of its illumination functions.
    """

    source: str
    batch: str
    plate: str
    well: str
    site: str
    pictures: Mapping[str, str]
    illumination: Mapping[str, str]


@dataclass(frozen=True)
class Gallery:
    """root: an address such as s3://cellpainting-gallery, or a folder. options: of the file system; S3 is read
    anonymously unless they say otherwise ({"client_kwargs": {"endpoint_url": ...}} for another S3 server).
    """

    root: str = BUCKET
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def fs(self) -> Any:
        """The file system. Raises GalleryError for an address that fsspec does not know."""
        import fsspec

        options = {"anon": True, **self.options} if self.root.startswith("s3://") else dict(self.options)
        try:
            return fsspec.core.url_to_fs(self.root, **options)[0]
        except (ValueError, ImportError) as error:
            raise GalleryError(
                f"gallery: {self.root} cannot be opened ({error}); give an s3:// address or a folder"
            ) from error

    @cached_property
    def base(self) -> str:
        """The root as the file system spells it."""
        return str(self.fs._strip_protocol(self.root)).rstrip("/")

    def path(self, key: str) -> str:
        """A key below the root, for the file system."""
        return f"{self.base}/{key}"

    def names(self, key: str) -> list[str]:
        """What lies directly in a folder, by name; nothing when there is no such folder."""
        try:
            found = self.fs.ls(self.path(key), detail=False)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise GalleryError(f"gallery: {self.root} cannot be listed at {key} ({error}); try again later") from error
        return sorted(name for one in found if (name := str(one).rstrip("/").rsplit("/", 1)[-1]))

    def plates(self, source: str) -> pd.DataFrame:
        """Batch, plate and folder of pictures of a source. Raises GalleryError when it has none."""
        rows = []
        images = f"{PROJECT}/{source}/images"
        for batch in self.names(images):
            for folder in self.names(f"{images}/{batch}/images"):
                at = f"{images}/{batch}/images/{folder}"
                rows.append({"source": source, "batch": batch, "plate": folder.split("__")[0], "folder": at})
        if not rows:
            raise GalleryError(f"gallery: {self.root} has no pictures of {source}; check the source and the address")
        return pd.DataFrame(rows)

    def table(self, source: str, batch: str, plate: str) -> pd.DataFrame | None:
        """The plate's load_data table as text, or None without one."""
        folder = f"{PROJECT}/{source}/workspace/load_data_csv/{batch}/{plate}"
        there = self.names(folder)
        for name in TABLES:
            if name in there:
                with self.fs.open(self.path(f"{folder}/{name}"), "rb", compression="infer") as handle:
                    if name.endswith(".parquet"):
                        return pd.read_parquet(handle).astype(str)
                    return pd.read_csv(handle, dtype=str, keep_default_na=False)
        return None

    def fields(self, source: str, batch: str, plate: str, channels: Sequence[str] = STAINS) -> list[RemoteField]:
        """The fields of a plate in order of well and site. Raises GalleryError."""
        table = self.table(source, batch, plate)
        illum = self._illumination(source, batch, plate)
        found = (
            self._by_names(source, batch, plate, channels, illum)
            if table is None
            else from_load_data(table, source, batch, plate, channels, illum)
        )
        if not found:
            raise GalleryError(
                f"gallery: plate {plate} of {source}, batch {batch} has no field with {', '.join(channels)}"
            )
        return sorted(found, key=lambda one: (one.well, int(one.site) if one.site.isdigit() else 0, one.site))

    def _illumination(self, source: str, batch: str, plate: str) -> dict[str, str]:
        folder = f"{PROJECT}/{source}/images/{batch}/illum/{plate}"
        found = ((m["stain"], f"{folder}/{name}") for name in self.names(folder) if (m := _ILLUM.search(name)))
        return dict(found)

    def _by_names(
        self, source: str, batch: str, plate: str, channels: Sequence[str], illum: Mapping[str, str]
    ) -> list[RemoteField]:
        if source not in CHANNELS:
            raise GalleryError(
                f"source: the channel order of {source} is not known (known: {', '.join(CHANNELS)}) and plate {plate} "
                "has no load_data table"
            )
        plates = self.plates(source)
        mine = plates[(plates["batch"] == batch) & (plates["plate"] == plate)]
        stains = {number: stain for stain, number in CHANNELS[source].items() if stain in channels}
        fields: dict[tuple[str, str], dict[str, str]] = {}
        for folder in mine["folder"]:
            inner = f"{folder}/Images" if "Images" in self.names(folder) else folder
            for name in self.names(inner):
                match = next((m for pattern in FILE_NAMES.values() if (m := pattern.fullmatch(name))), None)
                if match and int(match["channel"]) in stains:
                    parts = match.groupdict()
                    well = parts.get("well") or well_of(int(parts["row"]), int(parts["column"]))
                    site = str(int(parts["site"]))
                    fields.setdefault((well, site), {}).setdefault(stains[int(parts["channel"])], f"{inner}/{name}")
        return [
            RemoteField(source, batch, plate, well, site, pictures, illum)
            for (well, site), pictures in fields.items()
            if set(pictures) == set(channels)
        ]


def key_of(folder: str, name: str) -> str:
    """The key below the gallery's root of a file as load_data tables name it: with an s3:// address of any bucket, with
    the path of a mounted bucket, or with the key itself.
    """
    path = f"{folder.rstrip('/')}/{name}" if folder else name
    at = path.find(f"{PROJECT}/")
    return path[at:] if at >= 0 else path.partition("://")[2].partition("/")[2] or path.lstrip("/")


def from_load_data(
    table: pd.DataFrame, source: str, batch: str, plate: str, channels: Sequence[str], illum: Mapping[str, str]
) -> list[RemoteField]:
    """Fields of a load_data table; its own illumination columns go before the plate's folder. Raises GalleryError when
    a channel has no column.
    """
    names = {}
    for stain in channels:
        known = [f"{kind}{stain}" for kind in ("FileName_Orig", "FileName_", "URL_Orig", "URL_")]
        column = next((column for column in known if column in table.columns), None)
        if column is None:
            raise GalleryError(
                f"load_data: the table of plate {plate} has no FileName_Orig{stain}; it has "
                f"{', '.join(c for c in table.columns if 'FileName' in c) or 'no FileName columns'}"
            )
        names[stain] = column
    found = []
    for row in table.to_dict("records"):
        pictures, light = {}, dict(illum)
        for stain, column in names.items():
            folder = str(row.get(column.replace("FileName_", "PathName_"), "")) if "FileName_" in column else ""
            if row[column]:
                pictures[stain] = key_of(folder, str(row[column]))
            if row.get(f"FileName_Illum{stain}"):
                light[stain] = key_of(str(row.get(f"PathName_Illum{stain}", "")), str(row[f"FileName_Illum{stain}"]))
        if set(pictures) == set(channels):
            well, site = well_name(str(row["Metadata_Well"])), str(row.get("Metadata_Site", "1"))
            found.append(
                RemoteField(source, batch, plate, well, str(int(site)) if site.isdigit() else site, pictures, light)
            )
    return found

"""Training data of JUMP-CP pictures: fields of the gallery, joined with the well and compound tables, scaled by the
controls of their source, in the layout that `ldm` trains on. Streamed: memory is a few fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from chem.molecule import InvalidSmiles, standardise
from profiling.crops import stream
from profiling.gallery import BUCKET, Gallery, RemoteField
from profiling.jump import DMSO, PAPER_SOURCES, Tables, read_tables, select_plates, select_wells
from profiling.jump_channels import STAINS
from service.errors import InvalidRequest
from service.rooms import DMSO_INCHIKEY, DMSO_SMILES

LIMIT = 4.0  # stored values are clipped to ±LIMIT; -1 and 1 are the 0.1 and 99.9 percentiles of the source's controls
SCALE_FIELDS = 200  # control fields of a source that its percentiles are taken from
UNKNOWN = "unknown"  # the compound of a well that no table names

Progress = Callable[[int, int, str], None]


def gallery(root: str = BUCKET, endpoint: str | None = None) -> Gallery:
    """The gallery at an address; `endpoint` is another S3 server than Amazon's."""
    return Gallery(root, {"client_kwargs": {"endpoint_url": endpoint}} if endpoint else {})


def compound_table(tables: Tables, jcp: Sequence[str]) -> pd.DataFrame:
    """jcp, compound (InChIKey), smiles of these JUMP identifiers, as `chem` standardises them; an identifier without a
    usable SMILES has the compound "unknown" and no SMILES.
    """
    smiles = dict(zip(tables.compound["compound"], tables.compound["smiles"], strict=True))
    rows = []
    for one in dict.fromkeys(jcp):
        text = DMSO_SMILES if one == DMSO else smiles.get(one)
        try:
            molecule = None if text is None else standardise(text)
        except InvalidSmiles:
            molecule = None
        key, known = (molecule.inchikey, molecule.smiles) if molecule else (UNKNOWN, "")
        rows.append({"jcp": one, "compound": DMSO_INCHIKEY if one == DMSO else key, "smiles": known})
    return pd.DataFrame(rows, columns=["jcp", "compound", "smiles"])


def rows_of(
    fields: Sequence[RemoteField], tables: Tables, sources: Sequence[str], seed: int, val_share: float
) -> pd.DataFrame:
    """One row a field: compound, source, batch, plate, plate_format, row, column, seed, split, well, site, jcp.

    Raises InvalidRequest when no field lies in a well that the tables name.
    """
    wells = select_wells(tables, select_plates(tables, sources))
    keys = ["source", "batch", "plate", "well"]
    found = pd.DataFrame([{k: getattr(one, k) for k in (*keys, "site")} for one in fields])
    joined = found.merge(wells.rename(columns={"compound": "jcp"}), on=keys, how="left")
    named = joined["jcp"].notna().to_numpy()
    if not named.any():
        raise InvalidRequest(
            f"tables: none of {len(fields)} fields lies in a well that the well table names; sources 1 and 9 have no "
            "well table, choose others"
        )
    compounds = compound_table(tables, joined.loc[named, "jcp"].tolist()).set_index("jcp")
    joined["compound"] = joined["jcp"].map(compounds["compound"])
    joined["smiles"] = joined["jcp"].map(compounds["smiles"])
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    joined["seed"] = np.arange(len(joined), dtype=np.uint64)
    joined["split"] = np.where(rng.random(len(joined)) < val_share, "val", "train")
    joined["named"] = named & (joined["compound"] != UNKNOWN).to_numpy()
    return joined


def training_folder(
    where: Gallery,
    tables: str | Path,
    sources: Sequence[str] = PAPER_SOURCES,
    plates: Sequence[str] = (),
    out: Path = Path("out/jump"),
    *,
    size: int = 384,
    seed: int = 1,
    val_share: float = 0.02,
    progress: Progress | None = None,
) -> dict[str, object]:
    """Write pictures.npy, rows.parquet, intensity.json, contexts.parquet and compounds.parquet to `out`.

    Fields that cannot be read and fields without a known compound are left out and counted in the report, which is
    returned and kept in report.json. Raises InvalidTables, GalleryError, InvalidRequest.
    """
    known = read_tables(tables)
    chosen = select_plates(known, sources)
    chosen = chosen[chosen["plate"].isin(list(plates))] if plates else chosen
    fields = [f for p in chosen.itertuples() for f in where.fields(str(p.source), str(p.batch), str(p.plate))]
    rows = rows_of(fields, known, sources, seed, val_share)
    at = np.flatnonzero(rows["named"].to_numpy())
    out.mkdir(parents=True, exist_ok=True)
    scale = intensity(where, [fields[i] for i in at], rows.iloc[at], size)
    part = out / "pictures.part.npy"
    pictures = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=(len(at), len(STAINS), size, size))
    bad: list[str] = []
    kept: list[int] = []
    outside = 0
    place = {id(fields[i]): i for i in at}
    for done, crop in enumerate(stream(where, [fields[i] for i in at], STAINS, size, seed=seed, centre=True)):
        if crop.pixels is None:
            bad.append(crop.bad)
        else:
            low, high = (np.array(scale[crop.field.source][k], np.float32)[:, None, None] for k in ("low", "high"))
            value = (crop.pixels - low) / (high - low) * 2.0 - 1.0
            outside += int((np.abs(value) > 1.0).sum())
            pictures[len(kept)] = np.clip(value, -LIMIT, LIMIT)
            kept.append(int(place[id(crop.field)]))
        if progress is not None:
            progress(done + 1, len(at), "reading fields")
    pictures.flush()
    np.save(out / "pictures.npy", pictures[: len(kept)])
    part.unlink()
    final = rows.iloc[kept].reset_index(drop=True)
    final.drop(columns="named").to_parquet(out / "rows.parquet", index=False)
    share = round(outside / max(final.shape[0] * len(STAINS) * size * size, 1), 6)
    (out / "intensity.json").write_text(
        json.dumps({"channels": list(STAINS), "sources": scale, "share_outside": share}, indent=1)
    )
    contexts = final[["source", "batch", "plate", "plate_format"]].drop_duplicates().reset_index(drop=True)
    contexts.to_parquet(out / "contexts.parquet", index=False)
    table = final[["compound", "smiles"]].drop_duplicates("compound").reset_index(drop=True)
    table.to_parquet(out / "compounds.parquet", index=False)
    report: dict[str, object] = {
        "fields": len(fields),
        "kept": len(kept),
        "without a known compound": len(fields) - len(at),
        "unreadable": len(bad),
        "first reason": bad[0] if bad else "",
        "compounds": len(table),
        "share of pixels outside [-1, 1]": share,
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def intensity(
    where: Gallery, fields: Sequence[RemoteField], rows: pd.DataFrame, size: int
) -> dict[str, dict[str, list[float]]]:
    """0.1 and 99.9 percentiles per (source, channel) over control fields of the training split, in camera units.

    Raises InvalidRequest for a source without a control field.
    """
    scale: dict[str, dict[str, list[float]]] = {}
    control = ((rows["jcp"] == DMSO) & (rows["split"] == "train")).to_numpy()
    source_of = rows["source"].to_numpy()
    for source in sorted(set(source_of)):
        mine = [fields[i] for i in np.flatnonzero(control & (source_of == source))[:SCALE_FIELDS]]
        crops = [c.pixels for c in stream(where, mine, STAINS, size, centre=True) if c.pixels is not None]
        if not crops:
            raise InvalidRequest(
                f"source {source}: no DMSO field could be read, so intensities have no scale; add plates"
            )
        # every 16th pixel of a crop: percentiles of millions of pixels from at most 200 fields
        values = np.concatenate([c.reshape(len(STAINS), -1)[:, ::16] for c in crops], axis=1)
        low, high = np.percentile(values, [0.1, 99.9], axis=1)
        high = np.maximum(high, low + 1e-6)
        scale[source] = {"low": [round(float(v), 6) for v in low], "high": [round(float(v), 6) for v in high]}
    return scale

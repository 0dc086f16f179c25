"""`dopaint benchmark quality`: generated beside real (painted) pictures of the same rows, an unconditional model beside
every number: FID, KID, density and coverage on features that need no network, counterfactual axioms on twins,
memorisation, and a grid to look at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.contexts import Contexts
from causal.phenotype import DMSO
from ldm.counterfactual import axioms
from ldm.data import load_data
from ldm.features import NAME, textures
from ldm.fidelity import Moments, density_coverage, fid, kid, standardised
from ldm.grid import save_grid
from ldm.intensity import IntensityScale
from ldm.memorise import memory, nearest
from service.benchmark_gate import actives
from service.engine import load_room
from service.gate import GateConfig, compound_pairs
from service.library import world

Progress = Callable[[int, int, str], None]
BLOCK = 256  # training pictures in memory at once


@dataclass(frozen=True)
class QualityConfig:
    """compounds: active seen drugs, against DMSO under `draws` shared contexts and noises. grid: rows to look at."""

    compounds: int = 24
    draws: int = 6
    nearest: int = 5
    grid: int = 6
    seed: int = 77


def set_numbers(
    real: Float[np.ndarray, "n k"], generated: Float[np.ndarray, "_ k"], neighbours: int
) -> dict[str, float]:
    """FID, KID, density and coverage of features on the scale of the real ones."""
    one, other = standardised(real, generated)
    sums = []
    for rows in (one, other):
        sums.append(Moments())
        sums[-1].add(rows)
    density, coverage = density_coverage(one, other, neighbours)
    return {
        "fid": round(fid(*sums), 4),
        "kid": round(kid(one, other), 6),
        "density": round(density, 4),
        "coverage": round(coverage, 4),
    }


def training_features(data: Path, split: str) -> Iterator[Float[np.ndarray, "m k"]]:
    """Features of the training folder's pictures in camera units, block by block."""
    opened, scale = load_data(data), IntensityScale.load(data / "intensity.json")
    index = opened.indices(split)
    for start in range(0, len(index), BLOCK):
        part = index[start : start + BLOCK]
        sources = opened.rows["source"].astype(str).iloc[part].tolist()
        yield textures(scale.to_camera(opened.read(part), sources))


def run(
    model: str | Path = "simulation-128",
    out: Path = Path("out/quality"),
    data: Path | None = None,
    config: QualityConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, object]:
    """Paint and measure; writes quality.json and grid.png to `out`. `data`: the training folder, for memorisation."""
    config = config or QualityConfig()
    tell = progress or (lambda *_: None)
    with load_room(model) as room:
        contexts = Contexts.from_table(room.contexts.plates)
        chosen = actives(config.compounds, config.seed)
        gate = GateConfig(compound_draws=config.draws, seed=config.seed)
        pairs = compound_pairs(contexts, chosen, gate)
        columns = [c for c in pairs.columns if c not in ("pair", "end", "draw", "factor")]
        rows = pairs[columns].drop_duplicates().reset_index(drop=True)
        tell(0, 4, "painting the truth")
        real = world().paint(rows)
        tell(1, 4, "painting with the model")
        vectors = room.vectors(list(rows["compound"]))
        painted = room.paint_rows(vectors, rows, None)
        tell(2, 4, "painting without conditions")
        blind = room.paint_rows(vectors, rows, None, unconditional=True)
        again = room.compress(painted, list(rows["source"]))
        channels = list(room.card.channels)
        hashes = room.provenance.document()
        tell(3, 4, "measuring")
        values = {name: textures(p) for name, p in (("real", real), ("model", painted), ("unconditional", blind))}
        values["again"] = textures(again)
        copies = {} if data is None else _memorised(values, data)
    result: dict[str, object] = {
        "evidence": "simulation",
        "features": NAME,
        "hashes": hashes,
        "pictures": len(rows),
        "config": asdict(config),
        "sets": {
            name: set_numbers(values["real"], values[name], config.nearest) for name in ("model", "unconditional")
        },
        "two halves of the truth": set_numbers(values["real"][::2], values["real"][1::2], config.nearest),
        "counterfactual": _twins(pairs, rows, columns, values),
        "memorisation": copies,
    }
    out.mkdir(parents=True, exist_ok=True)
    some = np.linspace(0, len(rows) - 1, config.grid).round().astype(int)
    save_grid(real[some], painted[some], channels, out / "grid.png")
    (out / "quality.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    tell(4, 4, "done")
    return result


def _twins(
    pairs: pd.DataFrame, rows: pd.DataFrame, columns: list[str], values: dict[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Axioms of the model and of the unconditional one: DMSO is the factual end, the compound the counterfactual."""
    place = rows.reset_index().set_index(columns)["index"]
    at = [place.loc[pd.MultiIndex.from_frame(pairs.loc[pairs["end"] == end, columns])].to_numpy() for end in (0, 1)]
    if not (rows["compound"].to_numpy()[at[0]] == DMSO).all():
        raise ValueError("twins: the first end of a pair is not the control")
    table = dict(
        zip(
            ("real", "model", "unconditional", "again"),
            standardised(values["real"], values["model"], values["unconditional"], values["again"]),
            strict=True,
        )
    )
    here, there = at
    truth = (table["real"][here], table["real"][there])
    model = axioms(*truth, table["model"][here], table["model"][there], table["again"][here])
    free = table["unconditional"]
    blind = axioms(*truth, free[here], free[there], free[here])
    return {
        name: {key: round(float(value), 4) for key, value in found.items()}  # type: ignore[arg-type]
        for name, found in (("model", model), ("unconditional", blind))
    }


def _memorised(values: dict[str, np.ndarray], data: Path) -> dict[str, float]:
    """The nearest training picture of generated and of held-out pictures, on the scale of the held-out ones."""
    held = np.concatenate(list(training_features(data, "val")))
    mean, sd = held.mean(0), np.maximum(held.std(0), 1e-9)
    blocks = [(block - mean) / sd for block in training_features(data, "train")]
    generated = nearest((values["model"] - mean) / sd, blocks)[0]
    found = memory(generated, nearest((held - mean) / sd, blocks)[0])
    return {key: round(float(value), 4) for key, value in found.items()}  # type: ignore[arg-type]

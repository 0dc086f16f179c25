"""A machine room that paints blobs in microseconds: the doors, the queue and the folders can be tried without weights.

Its pictures and features are deterministic functions of (compound, context, seed); its compounds shift features along
the direction of their class, so that rankings, intervals and evidence have something to find.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.contexts import Contexts
from chem.molecule import Molecule
from service.reference import EffectSettings, LibrarySettings, Reference
from service.rooms import Measured, ModelCard, Provenance, Standing, Tick

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
N_FEATURES = 40
NAMES = ("Image_Count_Cells", *(f"Cells_Intensity_Fake_{i}" for i in range(N_FEATURES - 1)))
SIZE = 16
VECTOR = 8
LIBRARY = {
    "alpha": ("CCO", "CCCO", "CCCCO", "CCCCCO", "CCCCCCO", "CCCCCCCO"),
    "beta": ("CCN", "CCCN", "CCCCN", "CCCCCN", "CCCCCCN", "CCCCCCCN"),
    "gamma": ("c1ccccc1", "Cc1ccccc1", "CCc1ccccc1", "CCCc1ccccc1", "CCCCc1ccccc1", "CCCCCc1ccccc1"),
}
UNSEEN = ("CCCCCCCCO",)


def _numbers(*words: object, n: int) -> Float[np.ndarray, " n"]:
    key = int.from_bytes(hashlib.sha256("\0".join(map(str, words)).encode()).digest()[:8], "big")
    return np.random.Generator(np.random.Philox(key)).standard_normal(n)


def class_of(smiles: str) -> str:
    """The hidden class of a molecule: by its first hetero atom or ring."""
    return "alpha" if "O" in smiles else "beta" if "N" in smiles else "gamma" if "c1" in smiles else ""


@cache
def _library() -> Reference:
    from service.build_reference import ReferenceCompound, build_reference

    compounds = [
        ReferenceCompound(smiles, f"{moa} {i}", moa, f"T_{moa}|T_any")
        for moa, members in LIBRARY.items()
        for i, smiles in enumerate(members)
    ]
    return build_reference(FakeRoom(), compounds, EffectSettings(), LibrarySettings(draws=6, control_draws=24))


class FakeRoom:
    """See the module.

    `broken`: SMILES for which painting fails. `dead`: without cells in any draw; `sparse`: in every second
    one; `torn`: whose pictures cannot be measured. `slow` is called for every picture painted.
    """

    def __init__(
        self,
        *,
        broken: tuple[str, ...] = (),
        dead: tuple[str, ...] = (),
        sparse: tuple[str, ...] = (),
        torn: tuple[str, ...] = (),
        slow: Tick | None = None,
        engine: str = "fake",
    ) -> None:
        self._broken, self._slow, self._engine = broken, slow, engine
        self._dead, self._sparse, self._torn = dead, sparse, torn
        self._vectors: dict[bytes, str] = {}
        self.workers = 1
        self.card = ModelCard("fake", "simulation", "simulated", CHANNELS, SIZE, 4)
        plates = [
            {"source": f"S{s}", "batch": f"S{s}B{b}", "plate": f"S{s}B{b}P1", "plate_format": 1536 if s == 1 else 384}
            for s in (1, 2)
            for b in (1, 2, 3)
        ]
        self.contexts = Contexts(pd.DataFrame(plates))

    def __enter__(self) -> FakeRoom:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def provenance(self) -> Provenance:
        """Hashes of nothing, but stable ones."""
        return Provenance("0" * 64, "1" * 64, self._engine.rjust(64, "2"), EffectSettings().hash())

    def reference(self) -> Reference:
        """A library of three classes, made by such a room."""
        return _library()

    def standing(self, molecule: Molecule) -> Standing:
        """In the library: the fixed lists above."""
        seen = any(molecule.smiles in members for members in LIBRARY.values())
        known = seen or molecule.smiles in UNSEEN
        zone = "in" if known else "out"
        return Standing(
            known,
            seen,
            molecule.smiles if known else "",
            zone,
            "ethanol",
            "LFQSCWFLJHTTHZ-UHFFFAOYSA-N",
            0.5,
            "A fake molecule.",
        )

    def vector(self, molecule: Molecule) -> Float[np.ndarray, " d"]:
        """Numbers drawn from the SMILES."""
        if molecule.smiles in self._broken:
            raise ValueError("this room was told to break here")
        vector = _numbers("vector", molecule.smiles, n=VECTOR).astype(np.float32)
        self._vectors[vector.tobytes()] = molecule.smiles
        return vector

    def paint(self, vector: Float[np.ndarray, " d"], rows: pd.DataFrame, tick: Tick) -> Float[np.ndarray, "n c h w"]:
        """A grey level a channel, with the features hidden in the pixels of the first one."""
        smiles = self._vectors[vector.tobytes()]
        direction = (
            2.0 * _numbers("class", class_of(smiles), n=N_FEATURES)
            if class_of(smiles) and smiles != "CS(C)=O"
            else np.zeros(N_FEATURES)
        )
        own = _numbers("own", smiles, n=N_FEATURES) * (0.3 if smiles != "CS(C)=O" else 0.0)
        pictures = np.empty((len(rows), len(CHANNELS), SIZE, SIZE), np.float32)
        for i, row in enumerate(rows.to_dict("records")):
            noise = _numbers("noise", row["seed"], n=N_FEATURES) + 0.3 * _numbers(
                "pair", row["seed"], smiles, n=N_FEATURES
            )
            place = _numbers("context", row["batch"], row["row"], row["column"], n=N_FEATURES)
            values = np.zeros(SIZE * SIZE)
            values[:N_FEATURES] = direction + own + noise + place
            pictures[i] = np.clip(0.15 + values / 100, 0, 1).reshape(SIZE, SIZE)
            if smiles in self._dead or (smiles in self._sparse and row["draw"] % 2):
                pictures[i] = 0.0
            if smiles in self._torn:
                pictures[i] = 1.0
            if self._slow is not None:
                self._slow(1)
            tick(1)
        return pictures

    def paint_rows(
        self, vectors: Float[np.ndarray, "n d"], rows: pd.DataFrame, progress: Tick | None
    ) -> Float[np.ndarray, "n c h w"]:
        """Row by row as `paint` does."""
        pictures = np.empty((len(rows), len(CHANNELS), SIZE, SIZE), np.float32)
        for i in range(len(rows)):
            pictures[i] = self.paint(vectors[i], rows.iloc[[i]], lambda _: None)[0]
            if progress is not None:
                progress(i + 1)
        return pictures

    def measure_each(self, pictures: Float[np.ndarray, "n c h w"], tick: Tick) -> list[Measured]:
        """Picture by picture as `measure` does."""
        return [self.measure(picture[None], tick) for picture in pictures]

    def warm(self) -> None:
        """Nothing is slow here."""

    def measure(self, pictures: Float[np.ndarray, "n c h w"], tick: Tick) -> Measured:
        """Reads the features back from the pixels."""
        values = (pictures[:, 0].reshape(len(pictures), -1)[:, :N_FEATURES].astype(np.float64) - 0.15) * 100
        outcomes = np.where(
            pictures.max((1, 2, 3)) == 0, "no_cells", np.where(pictures.min((1, 2, 3)) == 1, "failed", "ok")
        )
        values[outcomes != "ok"] = np.nan
        values[outcomes == "no_cells", 0] = 0.0
        tick(len(pictures))
        reasons = tuple("" if one == "ok" else f"this room was told so: {one}" for one in outcomes)
        return Measured(values, NAMES, tuple(outcomes.tolist()), reasons)

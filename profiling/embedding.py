"""Two coordinates for each profile, for pictures only: UMAP (McInnes, Healy and Melville 2018, arXiv 1802.03426).

Distances between clusters and the sizes of clusters mean nothing in these coordinates: no score is computed on them but
IMAD, which says so (`activity.cohesion`). Same rows, same seed, same coordinates on one machine; several tables that
are to be compared must be embedded together.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from profiling.profiles import InvalidProfiles


@dataclass(frozen=True)
class UmapConfig:
    """The defaults of umap-learn, and the measure that profiles are compared with elsewhere here."""

    neighbours: int = 15
    least_distance: float = 0.1
    metric: str = "cosine"


def coordinates(
    values: Float[np.ndarray, "n k"], seed: int = 0, config: UmapConfig | None = None
) -> Float[np.ndarray, "n 2"]:
    """Profiles -> points in the plane, without a unit.

    The first call on a machine compiles for some minutes. Raises `InvalidProfiles` for NaN or fewer than four rows.
    """
    config = config or UmapConfig()
    if np.isnan(values).any():
        raise InvalidProfiles(f"values contain {int(np.isnan(values).sum())} NaN: select features or rows first")
    if len(values) < 4:
        raise InvalidProfiles(f"values have {len(values)} rows: expected at least four to lay out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap-learn tells that TensorFlow is absent, and that a seed means one thread
        from umap import UMAP

        few = len(values) <= config.neighbours + 2
        made = UMAP(
            n_neighbors=min(config.neighbours, len(values) - 1),
            min_dist=config.least_distance,
            metric=config.metric,
            init="random" if few else "spectral",  # the spectral start needs more rows than neighbours
            random_state=seed,
            n_jobs=1,
        ).fit_transform(values)
    return np.asarray(made, dtype=np.float64)

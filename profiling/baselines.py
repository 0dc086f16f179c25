"""What a profile must beat: the number of cells alone, as a similarity of compounds. (Structure alone: see `service`.)

Many activity benchmarks follow viability and can be predicted from a cell count (brightfield paper). Both stand beside
every score: a profile that ranks no better than them adds nothing.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float

from profiling.profiles import COUNT_CELLS, META, Profiles
from profiling.protocol import KEY, ProtocolConfig, Similarity, match_key

CELL_COUNT = "cell count"
STRUCTURE = "structure"


def cell_counts(profiles: Profiles) -> Float[np.ndarray, " n"] | None:
    """Cells of each row, from the feature `Image_Count_Cells` or the column `Metadata_Count_Cells`; None without."""
    if COUNT_CELLS in profiles.names:
        return profiles.values[:, profiles.names.index(COUNT_CELLS)]
    if f"{META}Count_Cells" in profiles.meta.columns:
        return profiles.column("Count_Cells").astype(np.float64)
    return None


def count_similarity(
    a: Float[np.ndarray, " n"] | Float[np.ndarray, ""], b: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "n m"]:
    """Minus the difference in cell count, in the units of the counts: 0 for equal counts, never above."""
    return -np.abs(np.atleast_1d(a)[:, None] - b[None, :])


def by_cell_count(profiles: Profiles, config: ProtocolConfig) -> Similarity | None:
    """The baseline for `protocol.score`: compounds compared by their mean cell count. None where there is no count."""
    counts = cell_counts(profiles)
    if counts is None:
        return None
    key = match_key(pd.Series(profiles.column(config.profile_key)), config.match)
    mean = pd.Series(counts).groupby(key.to_numpy(dtype=object)).mean()

    def similarity(compounds: Profiles) -> Float[np.ndarray, "n n"]:
        own = mean.reindex(compounds.meta[KEY]).to_numpy(dtype=np.float64)
        return count_similarity(own, own)

    return similarity

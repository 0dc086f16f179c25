"""Seen and unseen compounds: evaluated only on pictures that no training saw, as the paper does.

A compound is seen when it was in training; its evaluation pictures come from batches that its training pictures did not
come from. An unseen compound has no training picture at all, in whatever salt or stereo form: compounds are compared by
the first InChIKey block, whatever the key of the labels is.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from profiling.profiles import META, InvalidProfiles, Profiles

SEEN = f"{META}Seen"
BLOCK = 14  # characters of the first block of an InChIKey


@dataclass(frozen=True)
class HeldOut:
    """`profiles`: the rows that may be evaluated, with `Metadata_Seen`; `removed`: metadata of the others, with a
    reason; `funnel`: counts after each rule."""

    profiles: Profiles
    removed: pd.DataFrame
    funnel: pd.DataFrame


def hold_out(
    profiles: Profiles,
    training: pd.DataFrame,
    key: str = "InChIKey",
    batch: str = "Batch",
    inchikey: bool = True,
) -> HeldOut:
    """Leave out what training saw. `training` has the columns `key` and `batch`, one row a picture or fewer.

    A batch is held out when no training picture came from it. Rows of seen compounds in other batches are left out;
    rows of unseen compounds stay, whatever their batch, and say so by `Metadata_Seen` = False. `inchikey`: compare the
    first block only. Raises `InvalidProfiles` where a column is missing, or no row is left.
    """
    if missing := [c for c in (key, batch) if c not in training.columns]:
        raise InvalidProfiles(f"training has no columns {missing}: it has {list(training.columns)}")
    cut = slice(BLOCK) if inchikey else slice(None)
    trained = set(training[key].dropna().astype(str).str.strip().str[cut])
    batches = set(training[batch].dropna().astype(str))
    own = pd.Series(profiles.column(key)).astype("string").str.strip().str[cut]
    seen = own.isin(trained).to_numpy(dtype=bool)
    from_training = np.isin(profiles.column(batch).astype(str), list(batches))
    keep = ~(seen & from_training)
    if not keep.any():
        raise InvalidProfiles(
            f"no row is left: all {len(profiles)} are of compounds seen in training, from its batches: hold batches out"
        )
    meta = profiles.meta.assign(**{SEEN: seen})
    counts = [
        ("rows", len(profiles), int(own.nunique())),
        ("of unseen compounds", int((~seen).sum()), int(own[~seen].nunique())),
        ("of seen compounds", int(seen.sum()), int(own[seen].nunique())),
        ("of seen compounds, from held-out batches", int((seen & keep).sum()), int(own[seen & keep].nunique())),
    ]
    kept = Profiles(meta[keep].reset_index(drop=True), profiles.values[keep], profiles.names)
    reason = "seen compound in a batch of training"
    removed = meta[~keep].assign(**{f"{META}Excluded_By": reason}).reset_index(drop=True)
    return HeldOut(kept, removed, pd.DataFrame(counts, columns=["rule", "rows", "compounds"]))

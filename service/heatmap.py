"""The effects of a compound in groups a person can read: compartment by channel by family of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from profiling.drivers import read_name
from service.score import plain


def heatmap(effects: pd.DataFrame, channels: Sequence[str]) -> dict[str, Any]:
    """One cell a group of features: mean and median effect, the strongest feature, the share beyond zero.

    Args:
        effects: one row a feature: feature, value, low, high (control MADs); NaN where the effect is not defined.
        channels: names of the model's channels, as they stand in feature names.
    """
    named = [read_name(str(name), channels) for name in effects["feature"]]
    table = effects.assign(
        compartment=[one.compartment for one in named],
        channel=[one.channel for one in named],
        family=[one.family for one in named],
    )
    table = table[np.isfinite(table["value"])]
    cells = [
        _cell(str(compartment), str(channel), str(family), rows)
        for (compartment, channel, family), rows in table.groupby(["compartment", "channel", "family"], sort=True)
    ]
    return {
        "unit": "control MADs",
        "interval_covers": "draws",
        "compartments": sorted(table["compartment"].unique().tolist()),
        "channels": _ordered(table["channel"].unique().tolist(), channels),
        "families": sorted(table["family"].unique().tolist()),
        "cells": cells,
    }


def _cell(compartment: str, channel: str, family: str, rows: pd.DataFrame) -> dict[str, Any]:
    strongest = rows.loc[rows["value"].abs().idxmax()]
    known = rows[np.isfinite(rows["low"]) & np.isfinite(rows["high"])]
    beyond = ((known["low"] > 0) | (known["high"] < 0)).mean() if len(known) else float("nan")
    return {
        "compartment": compartment,
        "channel": channel,
        "family": family,
        "n_features": len(rows),
        "mean": plain(float(rows["value"].mean())),
        "median": plain(float(rows["value"].median())),
        "share_beyond": plain(float(beyond)),
        "strongest": {
            "feature": str(strongest["feature"]),
            **{name: plain(float(strongest[name])) for name in ("value", "low", "high")},
        },
    }


def _ordered(found: Sequence[str], channels: Sequence[str]) -> list[str]:
    """Single channels in the model's order, then pairs, then "none"."""
    place = {name: i for i, name in enumerate(channels)}

    def rank(name: str) -> tuple[int, list[int]]:
        parts = name.split("+")
        return (0 if len(parts) == 1 and name in place else 1 if "+" in name else 2, [place.get(p, 99) for p in parts])

    return sorted(found, key=rank)

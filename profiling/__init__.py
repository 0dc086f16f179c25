"""Pictures to profiles to mechanisms.

What comes in: pictures with named channels, or tables of features. What goes out: profiles, sub-profiles,
Biosimilarities and calls with their chance levels and intervals. This room never sees a molecule: compounds are rows
with a name. Public names load when they are asked for, so that a measuring worker imports no more than it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiling.metrics import evaluate, rank_test
    from profiling.normalise import Normalisation, fit, transform
    from profiling.predict import Null, Prediction, References, reference_null, to_json
    from profiling.profiles import Profiles, aggregate, concatenate, field_medians
    from profiling.select import SelectConfig, Selection
    from profiling.subprofile import SubProfiles, biosimilarity, build
    from profiling.tables import read_profiles, write_profiles

_HOME = {
    "evaluate": "metrics",
    "rank_test": "metrics",
    "Normalisation": "normalise",
    "fit": "normalise",
    "transform": "normalise",
    "Null": "predict",
    "Prediction": "predict",
    "References": "predict",
    "reference_null": "predict",
    "to_json": "predict",
    "Profiles": "profiles",
    "aggregate": "profiles",
    "concatenate": "profiles",
    "field_medians": "profiles",
    "SelectConfig": "select",
    "Selection": "select",
    "SubProfiles": "subprofile",
    "biosimilarity": "subprofile",
    "build": "subprofile",
    "read_profiles": "tables",
    "write_profiles": "tables",
}

__all__ = [
    "Normalisation",
    "Null",
    "Prediction",
    "Profiles",
    "References",
    "SelectConfig",
    "Selection",
    "SubProfiles",
    "aggregate",
    "biosimilarity",
    "build",
    "concatenate",
    "evaluate",
    "field_medians",
    "fit",
    "rank_test",
    "read_profiles",
    "reference_null",
    "to_json",
    "transform",
    "write_profiles",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'profiling' has no attribute {name!r}")
    return getattr(import_module(f"profiling.{_HOME[name]}"), name)

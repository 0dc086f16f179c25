"""How good a representation is, in the forms of the papers: hits, activity and consistency, probes, doses, channels.

In go vectors with their labels; out come numbers with chance levels. Replicate and mechanism retrieval, mAP-ES, folds
of enrichment, recall and IMAD are in `profiling` itself and serve CellProfiler's features and embedders alike.
"""

from profiling.embedders.evaluate.channels import combinations_of
from profiling.embedders.evaluate.consistency import Consistency, activity_and_consistency
from profiling.embedders.evaluate.doses import DoseTable, dose_curve
from profiling.embedders.evaluate.hits import HitRanking, effect_sizes, rank_hits
from profiling.embedders.evaluate.probe import MultiLabel, Probe, across_domains, linear_probe, multi_label_probe

__all__ = [
    "Consistency",
    "DoseTable",
    "HitRanking",
    "MultiLabel",
    "Probe",
    "across_domains",
    "activity_and_consistency",
    "combinations_of",
    "dose_curve",
    "effect_sizes",
    "linear_probe",
    "multi_label_probe",
    "rank_hits",
]

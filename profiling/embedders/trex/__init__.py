"""TRex: task-guided adaptation of frozen features of any engine. In go vectors of cells, fields or wells, with labels
at training; out comes the third layer of a small network that was trained to name mechanisms or compounds.
"""

from profiling.embedders.trex.fit import Adaptation, TrexConfig, fit, load_adaptation
from profiling.embedders.trex.score import TrexScores, score

__all__ = ["Adaptation", "TrexConfig", "TrexScores", "fit", "load_adaptation", "score"]

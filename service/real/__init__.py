"""Studies on published tables of real pictures: each reads its files, scores every correction and gives a `Study`.

They show what the scoring does on real cells. No model of this repository takes part, and none was trained on them.
"""

from service.real.study import Study, write

__all__ = ["Study", "write"]

"""From a SMILES to Cell Painting pictures, profiles and mechanisms of action, under the intervention do(compound).

A thin facade over `service.pipeline`: `predict` does everything in this process, `load` keeps a model for many calls,
`Design` says how many draws and which seed, `Client` speaks to a running service.
"""

from dopaint.facade import Design, load, predict
from service.client import Client, Refused
from service.version import __version__

__all__ = ["Client", "Design", "Refused", "__version__", "load", "predict"]

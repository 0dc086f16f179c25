"""The facade: a SMILES in; pictures, profiles, effects and predicted mechanisms out. `service` defines all of it."""

from service.version import __version__

__all__ = ["__version__"]

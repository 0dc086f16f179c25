"""The version of the code; `CHANGELOG.md` names the same one first, and a test compares them."""

__version__ = "0.1.0"

"""The roof over the rooms: it wires molecules, model, engine and reference library into predictions, and opens the
doors to them: a command, an HTTP service with a persistent queue, a page. Only this room sees all the others.
"""

__all__ = [
    "app",
    "cli",
    "client",
    "engine",
    "errors",
    "pipeline",
    "reference",
    "settings",
]

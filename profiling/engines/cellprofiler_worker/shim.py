"""Lets CellProfiler 4.2.8.1 import and measure without Java, and on scikit-image 0.20 and numpy 1.24.

Call `install()` before the first import of cellprofiler. Three things are put in place:

* stand-ins for the Java bridges (javabridge, bioformats, prokaryote): pictures come from memory, so nothing calls them,
  and what would start a Java machine raises;
* `selem`, the old name of the argument `footprint` in `skimage.morphology`;
* `reconstruction` in float64, as scikit-image up to 0.18 did: later releases keep float32, which moves
  MeasureGranularity by up to 3e-4 relative.
"""

from __future__ import annotations

import functools
import sys
import types
from typing import Any


class JavaMissing(RuntimeError):
    """Something asked for Java, which this process does not have: pictures come from memory, not from files."""


def _refuse(*_: Any, **__: Any) -> None:
    raise JavaMissing("this CellProfiler worker has no Java: it measures pictures from memory and reads no files")


class _Bridge(types.ModuleType):
    """A module whose every unknown name is a function that refuses."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _refuse


def _stub_java() -> None:
    java_names = ("javabridge", "javabridge.jutil", "javabridge.locate")
    format_names = ("bioformats", "bioformats.formatreader", "bioformats.formatwriter", "bioformats.omexml")
    modules = {name: _Bridge(name) for name in (*java_names, *format_names)}
    for name, module in modules.items():
        module.__path__ = []
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    java, reader, omexml = modules["javabridge"], modules["bioformats.formatreader"], modules["bioformats.omexml"]
    exception = type("JavaException", (Exception,), {})
    vars(java).update(JARS=[], JavaException=exception)
    vars(modules["javabridge.jutil"]).update(JavaException=exception)
    for name in ("attach", "detach", "start_vm", "kill_vm"):
        vars(java)[name] = lambda *_, **__: None
    for name in ("clear_image_reader_cache", "release_image_reader"):
        vars(reader)[name] = lambda *_, **__: None
    for name in ("SERVER", "PORT", "USER", "SESSION_ID", "PASSWORD", "CONFIG_FILE"):
        vars(reader)["K_OMERO_" + name] = name
    for name in ("PT_UINT8", "PT_UINT16", "PT_FLOAT"):
        vars(omexml)[name] = name
    prokaryote = types.ModuleType("prokaryote")
    prokaryote.__file__ = __file__
    sys.modules["prokaryote"] = prokaryote


def _accept_selem(function: Any) -> Any:
    @functools.wraps(function)
    def accepting(*args: Any, selem: Any = None, **kwargs: Any) -> Any:
        if selem is not None:
            kwargs["footprint"] = selem
        return function(*args, **kwargs)

    return accepting


def _old_morphology() -> None:
    import numpy as np
    import skimage.morphology

    plain = ("erosion", "dilation", "opening", "closing")
    for name in (*plain, "white_tophat", "black_tophat", "binary_erosion", "binary_dilation", "reconstruction"):
        setattr(skimage.morphology, name, _accept_selem(getattr(skimage.morphology, name)))
    keeping_float32: Any = skimage.morphology.reconstruction

    def reconstruction(seed: Any, mask: Any, *args: Any, **kwargs: Any) -> Any:
        return keeping_float32(np.asarray(seed, float), np.asarray(mask, float), *args, **kwargs)

    skimage.morphology.reconstruction = reconstruction


def _old_numpy_names() -> None:
    import numpy as np

    for name, kind in (("bool", bool), ("int", int), ("float", float), ("object", object), ("str", str)):
        if name not in np.__dict__:
            setattr(np, name, kind)


def install() -> None:
    """Puts everything in place; once, before cellprofiler is imported."""
    import numpy as np

    np.seterr(all="ignore")  # as cellprofiler.__main__ does
    _stub_java()
    _old_numpy_names()
    _old_morphology()

"""A CellProfiler pipeline file, run module by module on pictures that are already in memory."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import cellprofiler.modules
import numpy as np
from cellprofiler_core.constants.modules import all_modules, builtin_modules, renamed_modules
from cellprofiler_core.image import Image
from cellprofiler_core.object import ObjectSet
from cellprofiler_core.pipeline import Pipeline
from cellprofiler_core.setting.subscriber import (
    ImageListSubscriber,
    ImageSubscriber,
    LabelListSubscriber,
    LabelSubscriber,
)
from cellprofiler_core.setting.text import ImageName, LabelName
from cellprofiler_core.utilities.core import modules as catalogue
from cellprofiler_core.workspace import Workspace

from profiling.engines.cellprofiler_worker import given_masks

#: Modules that read or write files: the pictures come from memory and the measurements go back over the pipe.
FILE_MODULES = (
    "Images", "Metadata", "NamesAndTypes", "Groups", "LoadData",
    "SaveImages", "ExportToSpreadsheet", "ExportToDatabase", "CreateBatchFiles",
)  # fmt: skip
#: Modules that wait for a person, and modules that start another program.
INTERACTIVE = ("IdentifyObjectsManually", "EditObjectsManually")
EXTERNAL = ("RunImageJMacro",)
CAMERA_MAXIMUM = 65535.0  # pictures in [0, 1] stand for 16-bit camera counts


class Refused(ValueError):
    """This pipeline cannot be run here; the message is one sentence for the user."""


class ModuleFailed(RuntimeError):
    """A module raised on a picture; the message names the module."""


def register_modules(text: str) -> None:
    """Imports the module classes that a pipeline names and no others: all of them take seconds and want a database."""
    classes = {name: ("cellprofiler.modules", file) for file, name in cellprofiler.modules.builtin_modules.items()}
    classes |= {name: ("cellprofiler_core.modules", file) for file, name in builtin_modules.items()}
    # The package of the core modules fills the register with all modules when it is imported.
    catalogue.fill_modules = lambda: None
    for found in sorted(set(re.findall(r"^([A-Za-z]\w*):\[", text, flags=re.MULTILINE))):
        name = renamed_modules.get(found, found)
        if name in classes and name not in all_modules:
            package, file = classes[name]
            all_modules[name] = getattr(importlib.import_module(f"{package}.{file}"), name)


def load(path: Path) -> Pipeline:
    """Opens a .cppipe file with CellProfiler's own loader.

    Raises:
        Refused: a module is unknown or cannot be set up, wants a person or another program, or needs all pictures of a
        series at once.
    """
    try:
        register_modules(path.read_text(encoding="utf-8"))
        pipeline = Pipeline()
        with path.open(encoding="utf-8") as file:
            pipeline.loadtxt(file, raise_on_error=True)
    except Exception as error:
        said = str(error).strip().splitlines()
        raise Refused(
            f"CellProfiler 4.2.8.1 cannot open it: {said[0].rstrip('.') if said else type(error).__name__}"
        ) from error
    for module in pipeline.modules():
        name = module.module_name
        if name in FILE_MODULES:
            continue
        reason = ""
        if name in INTERACTIVE:
            reason = "waits for a person at a window, and this engine has none"
        elif name in EXTERNAL:
            reason = "starts another program, which this engine does not do"
        elif module.is_aggregation_module():
            reason = "works on a series of pictures together, and this engine measures each picture by itself"
        if reason:
            raise Refused(f"its module {module.module_num}, {name}, {reason}; disable it in the file")
    return pipeline


def measured_columns(pipeline: Pipeline) -> dict[str, list[str]]:
    """Numeric columns that the pipeline's measuring modules declare: object (and "Image") → feature names, in order."""
    columns: dict[str, list[str]] = {}
    skipped = {module.module_num for module in pipeline.modules() if module.module_name in FILE_MODULES}
    for module in pipeline.modules():
        if module.module_num in skipped:
            continue
        for column in module.get_measurement_columns(pipeline):
            owner, feature, kind = column[:3]
            names = columns.setdefault(owner, [])
            if kind in ("float", "integer") and feature not in names:
                names.append(feature)
    columns.pop("Experiment", None)
    return columns


def input_images(pipeline: Pipeline) -> list[str]:
    """Names of the pictures that modules take and no earlier module makes, in the order of their first use."""
    made: set[str] = set()
    wanted: list[str] = []
    for module in pipeline.modules():
        if module.module_name in FILE_MODULES:
            continue
        for setting in module.visible_settings():
            if isinstance(setting, ImageListSubscriber):
                names = list(setting.value)
            elif isinstance(setting, ImageSubscriber):
                names = [setting.value]
            else:
                continue
            blank = ("None", "Leave blank", "Leave this blank", "Do not use")
            wanted += [name for name in names if name not in made and name not in wanted and name not in blank]
        made |= {setting.value for setting in module.visible_settings() if isinstance(setting, ImageName)}
    return wanted


def _objects_made(module: Any) -> set[str]:
    return {setting.value for setting in module.visible_settings() if isinstance(setting, LabelName)}


def _objects_used(module: Any) -> set[str]:
    used: set[str] = set()
    for setting in module.visible_settings():
        if isinstance(setting, LabelListSubscriber):
            used |= set(setting.value)
        elif isinstance(setting, LabelSubscriber):
            used.add(setting.value)
    return used


def modules_to_run(pipeline: Pipeline, given: set[str], wanted: set[str]) -> list[Any]:
    """All modules but those of files; with `given` objects, without those that make them or make what nobody needs.

    A module that makes objects is needed if a module that measures uses them, or they are `wanted`, or another needed
    module starts from them.
    """
    modules = [module for module in pipeline.modules() if module.module_name not in FILE_MODULES]
    if not given:
        return modules
    needed, kept = set(wanted), []
    for module in reversed(modules):
        made = _objects_made(module)
        if made & given or (made and not made & needed):
            continue
        needed |= _objects_used(module)
        kept.append(module)
    return kept[::-1]


def run(
    pipeline: Pipeline,
    planes: dict[str, np.ndarray],
    measurements: Any,
    masks: dict[str, np.ndarray] | None = None,
    wanted: tuple[str, ...] = (),
) -> ObjectSet:
    """Runs every module but those of files on one field; `planes` are float32 [h, w] in [0, 1], by channel name.

    `masks` are label images that take the place of what the pipeline would find; see `modules_to_run`.

    Raises:
        ModuleFailed: a module raised. MemoryError: the process may not take more memory.
    """
    masks = masks or {}
    measurements.group_number = measurements.group_index = 1
    for name, plane in planes.items():
        measurements.add(name, Image(plane, scale=CAMERA_MAXIMUM))
    objects = ObjectSet()
    given_masks.add(objects, measurements, masks)
    for module in modules_to_run(pipeline, set(masks), set(wanted)):
        try:
            module.run(Workspace(pipeline, module, measurements, objects, measurements, None))
        except MemoryError:
            raise
        except Exception as error:
            said = (str(error).splitlines() or [""])[0] or repr(error)
            raise ModuleFailed(
                f"{module.module_name} (module {module.module_num}) raised {type(error).__name__}: {said}"
            ) from error
    return objects

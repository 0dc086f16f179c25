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
from cellprofiler_core.utilities.core import modules as catalogue
from cellprofiler_core.workspace import Workspace

#: Modules that read or write files: the pictures come from memory and the measurements go back over the pipe.
FILE_MODULES = (
    "Images", "Metadata", "NamesAndTypes", "Groups", "LoadData",
    "SaveImages", "ExportToSpreadsheet", "ExportToDatabase", "CreateBatchFiles",
)  # fmt: skip
CAMERA_MAXIMUM = 65535.0  # pictures in [0, 1] stand for 16-bit camera counts


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
    """Opens a .cppipe file with CellProfiler's own loader; a module that cannot be set up raises."""
    register_modules(path.read_text(encoding="utf-8"))
    pipeline = Pipeline()
    with path.open(encoding="utf-8") as file:
        pipeline.loadtxt(file, raise_on_error=True)
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
    """Names of the pictures that a NamesAndTypes module would load; empty where another module loads them."""
    for module in pipeline.modules():
        if module.module_name == "NamesAndTypes" and module.assignment_method.value == "Images matching rules":
            return [group.image_name.value for group in module.assignments]
    return []


def run(pipeline: Pipeline, planes: dict[str, np.ndarray], measurements: Any) -> ObjectSet:
    """Runs every module but those of files on one field; `planes` are float32 [h, w] in [0, 1], by channel name."""
    measurements.group_number = measurements.group_index = 1
    for name, plane in planes.items():
        measurements.add(name, Image(plane, scale=CAMERA_MAXIMUM))
    objects = ObjectSet()
    for module in pipeline.modules():
        if module.module_name not in FILE_MODULES:
            module.run(Workspace(pipeline, module, measurements, objects, measurements, None))
    return objects

"""Oracle: the stock command line `cellprofiler -c -r`, which reads TIFF files through Java and writes CSV.

    cd tests/golden
    for name in sim128_sparse jump_border full_large; do PYTHON stock_command_line.py PIPELINE.cppipe \\
        profiling/fast/$name.npz profiling/command_line/$name.npz; done     # PIPELINE: that of the settings

The picture is `picture` of the first file, uint16 [channels, h, w] in the pipeline's order of channels. The second gets
`values/<object>` float64 [n, k] and `names/<object>`, as text with one name a line, for each table and for Image.
PYTHON is CellProfiler's environment with the Java bridge in it (not needed by dopaint, and never installed by it):

    openjdk-17-jdk-headless from the distribution; then, in a copy of the environment that `dopaint setup` makes,
    pip install wheel "cython<3"
    pip install --no-build-isolation --no-deps python-javabridge==4.0.5
    pip install --no-deps python-bioformats==4.1.0 prokaryote==2.4.4 && pip install sentry-sdk==0.18.0

Of the engine's shim only the old names of arguments are used, and float64 in `reconstruction`, which make CellProfiler
4.2.8.1 run on scikit-image 0.20 and numpy 1.24 as it does on the releases that it pins.
"""

import csv
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def _old_names() -> None:
    spec = importlib.util.spec_from_file_location("shim", ROOT / "profiling/engines/cellprofiler_worker/shim.py")
    shim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shim)
    shim._old_numpy_names()
    shim._old_morphology()


def command_line(arguments: list[str]) -> None:
    """CellProfiler's own entry, in this process."""
    _old_names()
    sys.argv = ["cellprofiler", *arguments]
    from cellprofiler.__main__ import main

    main()


def with_export(pipeline_file: str, target: Path) -> list[str]:
    """Writes the pipeline with ExportToSpreadsheet behind it; returns the names of its channels."""
    _old_names()
    from cellprofiler_core.preferences import set_headless

    set_headless()
    from cellprofiler.modules.exporttospreadsheet import ExportToSpreadsheet
    from cellprofiler_core.pipeline import Pipeline
    from cellprofiler_core.utilities.core.modules import fill_modules

    fill_modules()
    pipeline = Pipeline()
    pipeline.load(pipeline_file)
    export = ExportToSpreadsheet()
    export.wants_prefix.value = False
    export.wants_overwrite_without_warning.value = export.wants_everything.value = True
    export.set_module_num(len(pipeline.modules()) + 1)
    pipeline.add_module(export)
    with target.open("w", encoding="utf-8") as file:
        pipeline.dump(file, save_image_plane_details=False)
    names = next(module for module in pipeline.modules() if module.module_name == "NamesAndTypes")
    return [group.image_name.value for group in names.assignments]


def read_csv(path: Path) -> dict[str, np.ndarray]:
    """Numeric columns of one of its tables."""
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    out = {}
    for name, column in zip(head, zip(*rows, strict=True) if rows else [()] * len(head), strict=True):
        try:
            out[name] = np.array([float(text or "nan") for text in column])
        except ValueError:
            continue
    return out


def main(pipeline_file: str, picture_file: str, out_file: str) -> None:
    """Runs the command line on the picture and collects what it wrote."""
    import tifffile

    with np.load(picture_file) as archive:
        picture = archive["picture"]
    out = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images, tables = folder / "images", folder / "tables"
        images.mkdir()
        tables.mkdir()
        channels = with_export(pipeline_file, folder / "run.cppipe")
        for name, plane in zip(channels, picture, strict=True):
            tifffile.imwrite(images / f"field_{name}.tif", plane)
        run = [sys.executable, __file__, "--run", "-c", "-r", "-p", str(folder / "run.cppipe")]
        subprocess.run([*run, "-i", str(images), "-o", str(tables)], check=True)
        for path in sorted(tables.glob("*.csv")):
            if path.stem != "Experiment":
                table = read_csv(path)
                kept = [name for name in table if not name.startswith("ExecutionTime_")]
                out[f"values/{path.stem}"] = np.stack([table[name] for name in kept], axis=1)
                out[f"names/{path.stem}"] = np.frombuffer("\n".join(kept).encode(), np.uint8)
    np.savez_compressed(out_file, **out)


if __name__ == "__main__":
    if sys.argv[1] == "--run":
        command_line(sys.argv[2:])
    elif sys.argv[1] == "--write":  # the pipeline with its export, and the names of its channels on the last line
        sys.stdout.write(json.dumps(with_export(sys.argv[2], Path(sys.argv[3]))) + "\n")
    else:
        main(*sys.argv[1:])

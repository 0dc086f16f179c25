"""The families of features of the engine `fast`, one file each, and what they share.

A family is what one CellProfiler module measures. Its file offers plain functions over `regions.Regions` (the pixels of
every object, sorted by object) and pictures by channel name:

* `names(settings) -> tuple[str, ...]`: the features of one object table that this module adds, in the order of the
  module's `get_measurement_columns`; `settings` is the module's dataclass of `pipeline_settings`;
* `measure(regions, pictures, settings) -> float64 [n, k]`: their values, one row an object, NaN where CellProfiler says
  NaN; `pictures` maps a channel to float32 [h, w] in [0, 1];
* `image_names(settings)` and `measure_image(...)` where the module also measures the whole picture: the columns of the
  table `Image`, and float64 [k].

Cost follows pixels: single passes over the pixels of the objects in numba kernels that release the interpreter lock, no
Python loop over objects.
"""

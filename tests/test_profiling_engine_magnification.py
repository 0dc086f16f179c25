"""Pipelines for other pixel sizes: lengths follow, everything else stays, and CellProfiler finds the same cells."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import zoom

from profiling.engines import CellProfilerEngine, InvalidSettings
from profiling.engines.magnification import PIXEL_UM, for_pixel_size, pixel_size_um, scaled
from profiling.engines.pipeline_settings import read_modules


def values(path: Path, text: str) -> list[str]:
    return [value for module in read_modules(path) for value in module.all(text)]


def test_pixel_size_of_a_microscope() -> None:
    assert pixel_size_um(6.5, 20.0) == 0.325
    assert pixel_size_um(6.5, 20.0, binning=2) == 0.65
    with pytest.raises(InvalidSettings, match=r"got 6\.5, 0\.0, 1"):
        pixel_size_um(6.5, 0.0)


def test_lengths_follow_the_pixel_size_and_nothing_else_changes(tmp_path: Path, repository: Path) -> None:
    source = repository / "configs/profiling/cell_painting_jump.cppipe"
    half = for_pixel_size("jump", 0.299, tmp_path / "half.cppipe")
    assert values(half, "Typical diameter of objects, in pixel units (Min,Max)") == ["20,120"]
    assert values(half, "Size of smoothing filter") == ["20"]
    assert values(half, "Suppress local maxima that are closer than this minimum allowed distance") == ["16"]
    assert values(half, "Threshold smoothing scale") == ["2.6976", "0.0"]
    assert values(half, "Texture scale to measure") == ["6", "10", "20"]
    assert values(half, "Spatial scale for blur measurements") == ["10", "20", "40", "100"]
    assert values(half, "Neighbor distance") == ["10", "2", "10"]
    # A pixel of the smaller picture stays 0.598 / 0.5 µm wide: 0.299 / 0.25.
    assert values(half, "Subsampling factor for granularity measurements") == ["0.25"]
    assert values(half, "Radius of structuring element") == ["10"]
    before, after = source.read_text().splitlines(), half.read_text().splitlines()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    # The note; diameter, smoothing, suppression, threshold's scale, window (twice), growth, subsampling, last ring;
    # four windows of blur, three distances, three scales of texture.
    assert len(changed) == 1 + 9 + 4 + 3 + 3
    assert "Lengths scaled from 0.598 to 0.299 um a pixel by dopaint." in changed[0][1]


def test_same_pixel_size_changes_no_setting(repository: Path) -> None:
    for name in PIXEL_UM:
        for path in (repository / "configs/profiling").glob(f"*{name}*.cppipe"):
            text = path.read_text()
            assert scaled(text, 1.0) == text


def test_granularity_where_pixels_are_too_large_to_shrink(tmp_path: Path) -> None:
    coarse = for_pixel_size("jump", 1.495, tmp_path / "coarse.cppipe")  # 2.5 times larger: 0.5 would become 1.25
    assert values(coarse, "Subsampling factor for granularity measurements") == ["1"]
    assert values(coarse, "Radius of structuring element") == ["8"]  # 10 / 1.25


def test_what_cannot_be_is_refused(tmp_path: Path, repository: Path) -> None:
    out = tmp_path / "out.cppipe"
    with pytest.raises(InvalidSettings, match=r"jump\.cppipe at 5 µm a pixel: two settings '.*' become 1 pixels"):
        for_pixel_size("jump", 5.0, out)
    with pytest.raises(InvalidSettings, match="does not say for which pixel size"):
        for_pixel_size(repository / "tests/golden/user/three_channels.cppipe", 0.3, out)
    with pytest.raises(InvalidSettings, match="got -1"):
        for_pixel_size("jump", -1.0, out)
    assert not out.exists()


def test_cellprofiler_opens_it_and_finds_the_same_cells(tmp_path: Path, repository: Path) -> None:
    golden = np.load(repository / "tests/golden/profiling/fast/jump_border.npz")
    picture = (golden["picture"] / 65535).astype(np.float32)
    large = np.clip(zoom(picture, (1, 2, 2), order=1), 0, 1)
    text = for_pixel_size("jump", 0.299, tmp_path / "half.cppipe").read_text()
    head = text[: text.index("MeasureImageQuality:[")]  # segmentation and sizes only
    shape = text[text.index("MeasureObjectSizeShape:[") : text.index("MeasureTexture:[")]
    (tmp_path / "short.cppipe").write_text(head + shape)
    with CellProfilerEngine(tmp_path / "short.cppipe", workers=1) as engine:
        (field,) = engine.measure(large[None], ("DNA", "ER", "RNA", "AGP", "Mito"))
    assert field.outcome == "ok", field.reason
    names = golden["names/Nuclei"].tobytes().decode().split("\n")
    areas = golden["values/Nuclei"][:, names.index("AreaShape_Area")]
    table = field.objects["Nuclei"]
    found = table.values[:, table.names.index("AreaShape_Area")]
    assert len(found) == len(areas)
    # Four pixels for one; the interpolated rim and the blur of twice the width move it by less than a pixel.
    assert np.sort(found / 4) == pytest.approx(np.sort(areas), rel=0.1)

"""The engine `fast` on a device: the same numbers as its twin on a core, in any batch, and what is refused.

The device here is torch's CPU; on a GPU the same code runs on another device (`test_on_a_gpu` runs where there is one).
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from profiling.engines import FastEngine, FieldMeasurement
from profiling.engines.families_torch import batch, distance, fields, granularity, morphology
from profiling.engines.families_torch.device import InvalidDevice, checked

GOLDEN = Path(__file__).resolve().parent / "golden/profiling/fast"
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
#: Settings and the painted fields that are measured with them, all of one size.
CASES = {
    "jump": ("jump_border",),
    "full": ("full_large",),
    "sim128": ("sim128_sparse", "sim128_tiny", "sim128_noise"),
}
#: Zero in exact arithmetic; both values are rounding noise.
NOISE = ("AreaShape_CentralMoment_0_1", "AreaShape_CentralMoment_1_0")
#: Slopes near 0 of float32 spectra: two transforms round differently, by about 1e-7 of the spectrum.
SLOPE = "ImageQuality_PowerLogLogSlope"


def load(*names: str) -> np.ndarray:
    found = []
    for name in names:
        with np.load(GOLDEN / f"{name}.npz") as archive:
            found.append((archive["picture"] / 65535.0).astype(np.float32))
    return np.stack(found)


def measured(settings: str, pictures: np.ndarray, **options: Any) -> list[FieldMeasurement]:
    with FastEngine(settings, workers=1, masks=True, **options) as engine:
        return engine.measure(pictures, CHANNELS)


def agreeing(expected: np.ndarray, got: np.ndarray, tolerance: float) -> np.ndarray:
    """Within `tolerance` of the larger value, or 1e-12 of the column's largest, or NaN in both."""
    larger = np.maximum(np.abs(expected), np.abs(got))
    floor = 1e-12 * np.nanmax(np.abs(expected), axis=0, initial=0.0)
    off = np.abs(expected - got)
    return (off <= tolerance * larger) | (off <= floor) | (np.isnan(expected) & np.isnan(got))


def assert_equal(expected: FieldMeasurement, got: FieldMeasurement) -> None:
    """To 1e-6 relative, the standard of docs/fast_parity.md: every value but those named above."""
    assert (got.outcome, got.reason) == (expected.outcome, expected.reason)
    tables = [(name, table.names, table.values, got.objects[name].values) for name, table in expected.objects.items()]
    images = [np.array([list(one.image.values())]) for one in (expected, got)]
    assert tuple(expected.image) == tuple(got.image)
    for owner, names, a, b in [*tables, ("Image", tuple(expected.image), *images)]:
        kept = [k for k, name in enumerate(names) if name not in NOISE and not name.startswith(SLOPE)]
        wrong = ~agreeing(a[:, kept], b[:, kept], 1e-6)
        assert not wrong.any(), (owner, [names[kept[k]] for k in np.flatnonzero(wrong.any(axis=0))][:5])
        slopes = [k for k, name in enumerate(names) if name.startswith(SLOPE)]
        np.testing.assert_allclose(b[:, slopes], a[:, slopes], atol=1e-6)
    for owner, labels in expected.masks.items():
        np.testing.assert_array_equal(got.masks[owner], labels)


class Watch(TorchFunctionMode):
    """Every tensor that is made must be told where: on a GPU one that was not would lie on the host."""

    FACTORIES = (
        torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.tensor, torch.as_tensor, torch.eye,
        torch.linspace,
    )  # fmt: skip

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in self.FACTORIES or "device" in (kwargs or {}), f"{func.__name__} was not told a device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("settings", "stable"), [("full", False), ("full", True), ("sim128", False)])
def test_values_are_those_of_the_engine_on_a_core_and_every_tensor_is_told_its_device(
    settings: str, stable: bool
) -> None:
    pictures = load(*CASES[settings])
    expected = measured(settings, pictures, stable=stable)
    with Watch():
        found = measured(settings, pictures, stable=stable, device="cpu")
    for one, other in zip(expected, found, strict=True):
        assert_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jump_field384", "jump_border", "sim128_crowded", "sim128_touching", "sim128_border"])
def test_values_of_crowded_and_of_large_fields(name: str) -> None:
    settings, pictures = name.split("_")[0], load(name)
    [expected], [got] = measured(settings, pictures), measured(settings, pictures, device="cpu")
    assert_equal(expected, got)


def test_empty_and_bad_pictures_keep_their_outcomes_in_a_batch() -> None:
    picture = load("sim128_empty")[0]
    bad = picture.copy()
    bad[0, 0, 0] = np.nan
    found = measured("sim128", np.stack([picture, bad, picture]), device="cpu", batch=2)
    [expected] = measured("sim128", picture[None])
    assert [one.outcome for one in found] == ["no_cells", "failed", "no_cells"]
    assert found[1].reason == "picture has values that are not finite"
    assert_equal(expected, found[0])
    assert_equal(expected, found[2])


def test_a_field_does_not_depend_on_its_batch_nor_on_workers() -> None:
    pictures = load("sim128_sparse", "sim128_noise", "sim128_tiny")
    seen: list[int] = []
    with FastEngine("sim128", workers=2, device="cpu", batch=2) as engine:
        apart = engine.measure(pictures, CHANNELS, seen.append)
        assert len(engine.worker_pids) == 2
    together = measured("sim128", pictures, device="cpu")
    assert seen == [1, 2, 3]
    for a, b in zip(apart, together, strict=True):
        for owner, table in a.objects.items():
            np.testing.assert_array_equal(table.values, b.objects[owner].values)


def test_given_masks() -> None:
    pictures = load("sim128_sparse")
    [found] = measured("sim128", pictures)
    given = {name: labels[None].astype(np.int32) for name, labels in found.masks.items()}
    with FastEngine("sim128", workers=1, masks=True) as engine:
        [expected] = engine.measure_masks(pictures, CHANNELS, given)
    with FastEngine("sim128", workers=1, masks=True, device="cpu") as engine:
        [got] = engine.measure_masks(pictures, CHANNELS, given)
    assert_equal(expected, got)


def test_a_batch_that_fails_is_measured_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = load("sim128_empty")[0]
    pictures = np.stack([picture, picture * np.float32(0.5), picture])
    real = fields.measure

    def scarce(plan: Any, planes: np.ndarray, *rest: Any, **options: Any) -> list[dict[str, np.ndarray]]:
        if len(planes) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory, on purpose")
        if planes.max() < 0.75 * picture.max():
            raise RuntimeError("this one never")
        return real(plan, planes, *rest, **options)

    monkeypatch.setattr(fields, "measure", scarce)
    found = measured("sim128", pictures, device="cpu")
    assert [one.outcome for one in found] == ["no_cells", "failed", "no_cells"]
    assert found[1].reason == "RuntimeError: this one never"


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidDevice, match="sees 0 GPUs: use --device cpu"):
        FastEngine("sim128", device="cuda")
    for name in ("gpu", "cpu:1", "cuda:x", ""):
        with pytest.raises(InvalidDevice, match="expected one of cpu, cuda"):
            checked(name)
    with pytest.raises(ValueError, match="batch must be positive"):
        FastEngine("sim128", device="cpu", batch=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(checked("cuda:1")) == "cuda:1"
    with pytest.raises(InvalidDevice, match="sees 2 GPUs"):
        checked("cuda:2")


def test_hash_tells_the_device_path_from_the_core() -> None:
    assert FastEngine("sim128").hash != FastEngine("sim128", device="cpu").hash
    assert FastEngine("sim128", device="cpu", batch=2).hash == FastEngine("sim128", device="cpu").hash


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("settings", CASES)
def test_on_a_gpu(settings: str) -> None:
    pictures = load(*CASES[settings])
    for one, other in zip(measured(settings, pictures), measured(settings, pictures, device="cuda"), strict=True):
        assert_equal(one, other)


@pytest.fixture
def planes() -> SimpleNamespace:
    rng = np.random.default_rng(5)
    labels = np.zeros((2, 40, 50), np.int32)
    for f in range(2):
        for k, (y, x) in enumerate([(3, 4), (5, 30), (24, 10), (22, 33)]):
            yy, xx = np.mgrid[:40, :50]
            labels[f][((yy - y - 6) / 7) ** 2 + ((xx - x - 7) / (6 + 2 * f)) ** 2 <= 1] = k + 1
    return SimpleNamespace(labels=labels, values=rng.random((2, 40, 50)).astype(np.float32))


def test_lists_are_the_regions_of_each_field(planes: SimpleNamespace) -> None:
    from profiling.engines.families.regions import regions

    of = batch.lists(torch.from_numpy(planes.labels))
    alone = [regions(labels) for labels in planes.labels]
    assert of.n == 8
    assert of.first == (0, 4, 8)
    np.testing.assert_array_equal(of.area, np.concatenate([one.area for one in alone]))
    np.testing.assert_array_equal(of.index % 2000, np.concatenate([one.index for one in alone]))
    sums = np.concatenate([one.sums(one.gather(v).astype(float)) for one, v in zip(alone, planes.values, strict=True)])
    np.testing.assert_allclose(of.sums(of.gather(torch.from_numpy(planes.values))), sums, rtol=1e-14)


def test_sums_of_runs_longer_than_a_piece() -> None:
    lengths = torch.tensor([0, 1, 256, 257, 0, 1000])
    values = torch.rand(int(lengths.sum()), 3, dtype=torch.float64)
    parts = torch.split(values, lengths.tolist())
    over = batch.runs(lengths)
    torch.testing.assert_close(batch.reduce(values, "sum", over), torch.stack([part.sum(dim=0) for part in parts]))
    high = torch.stack([part.amax(dim=0) if len(part) else torch.full((3,), -torch.inf) for part in parts])
    torch.testing.assert_close(batch.reduce(values, "max", over), high, check_dtype=False)


def test_distances_are_those_of_a_core_to_the_bit(planes: SimpleNamespace) -> None:
    from profiling.engines.families import edge_distance
    from profiling.engines.families.regions import regions

    of = batch.lists(torch.from_numpy(planes.labels))
    alone = [regions(labels) for labels in planes.labels]
    squared = distance.squared_to_edge(of.ids)
    np.testing.assert_array_equal(squared, np.stack([edge_distance.squared_to_edge(one) for one in alone]))
    first = batch.first_maxima(of, of.gather(squared))
    expected = [edge_distance.path_from(one, c) for one, c in zip(alone, np.split(first.numpy(), 2), strict=True)]
    np.testing.assert_array_equal(distance.path_from(of, first), np.concatenate(expected))
    whole = torch.zeros(1, 20, 30, dtype=torch.int64)  # one object without any edge
    assert int(distance.squared_to_edge(whole).min()) >= 1 << 28


def test_morphology_is_that_of_a_core_to_the_bit(planes: SimpleNamespace) -> None:
    from profiling.engines.families import granularity as host
    from profiling.engines.families import grey_morphology

    tensor = torch.from_numpy(planes.values)
    for radius in (1, 4, 10):
        opened = [grey_morphology.open_disk(plane.view(np.int32), radius).view(np.float32) for plane in planes.values]
        np.testing.assert_array_equal(morphology.open_disk(tensor, radius), np.stack(opened))
    steps = [host.reconstructions(plane, 5)[5] for plane in planes.values]
    eroded = now = tensor
    for _ in range(5):
        eroded = morphology.erode_cross(eroded)
        now = morphology.reconstruct(eroded, now)
    np.testing.assert_array_equal(now, np.stack(steps))
    rows, columns = np.arange(33) * 1.2, np.arange(70) * 0.71
    sampled = [host._sample(plane, rows, columns) for plane in planes.values]
    np.testing.assert_array_equal(granularity._sample(tensor, rows, columns), np.stack(sampled))

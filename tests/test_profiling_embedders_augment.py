"""Views of crops: where every pixel goes, and that a view is a function of its generator."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from profiling.embedders.augment import PLAIN, Augmentation, blurred, clipped, cut, self_normalised, view

TURN = {0: [[1, 0], [0, 1]], 1: [[0, -1], [1, 0]]}


def picture(c: int = 1, side: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, c, side, side, generator=torch.Generator().manual_seed(seed))


def at(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float32)


def test_a_crop_of_its_own_size_is_the_pixels_there() -> None:
    x = picture(2)
    # the window of 4 pixels around the corner between pixels 5 and 6 holds pixels 4 to 7
    got = cut(x, at(5.5, 3.5), at(4.0, 4.0), 4)
    torch.testing.assert_close(got, x[:, :, 4:8, 2:6], atol=1e-5, rtol=1e-5)
    whole = cut(x, at(5.5, 5.5), at(12.0, 12.0), 12)
    torch.testing.assert_close(whole, x, atol=1e-5, rtol=1e-5)


def test_turns_mirrors_and_the_outside() -> None:
    x = picture()
    turned = cut(x, at(5.5, 5.5), at(4.0, 4.0), 4, torch.tensor([TURN[1]], dtype=torch.float32))
    expected = [torch.rot90(x[:, :, 4:8, 4:8], k, (2, 3)) for k in (1, 3)]
    assert any(torch.allclose(turned, one, atol=1e-5) for one in expected)
    mirrored = cut(x, at(5.5, 5.5), at(4.0, 4.0), 4, torch.tensor([[[-1.0, 0.0], [0.0, 1.0]]]))
    torch.testing.assert_close(mirrored, x[:, :, 4:8, 4:8].flip(3), atol=1e-5, rtol=1e-5)
    edge = cut(x, at(-0.5, 5.5), at(4.0, 4.0), 4)  # half outside: mirrored at the border
    torch.testing.assert_close(edge[:, :, :2], x[:, :, :2, 4:8].flip(2), atol=1e-5, rtol=1e-5)


def test_rectangles_are_stretched_to_squares() -> None:
    x = torch.arange(12.0).expand(12, 12)[None, None]  # brightness is the column
    got = cut(x, at(5.5, 5.5), at(4.0, 8.0), 4)
    torch.testing.assert_close(got[0, 0, 0], torch.tensor([2.5, 4.5, 6.5, 8.5]))  # centres of four columns two wide


def test_blur_is_scipys_gaussian_row_by_row() -> None:
    x = picture(2, 21).double().repeat(2, 1, 1, 1)
    got = blurred(x, torch.tensor([1.2, 0.0], dtype=torch.float64))
    for c in range(2):
        expected = ndimage.gaussian_filter(x[0, c].numpy(), 1.2, mode="mirror", truncate=4 / 1.2)
        np.testing.assert_allclose(got[0, c].numpy(), expected, atol=1e-9)
    torch.testing.assert_close(got[1], x[1])
    assert blurred(x, torch.zeros(2)) is x


def test_percentiles_and_self_normalising() -> None:
    values = np.random.default_rng(0).random((2, 50, 40), dtype=np.float32)
    values[0, 0, 0] = 1000.0
    values[1] = 7.0
    out = clipped(values)
    low, high = np.percentile(values[0], [0.1, 99.9])
    np.testing.assert_allclose(out[0], np.clip((values[0] - low) / (high - low), 0, 1), atol=1e-5)
    assert (out[1] == 0).all()
    np.testing.assert_allclose(clipped(3 * values + 5)[0], out[0], atol=1e-4)  # a camera's gain and offset do nothing
    x = self_normalised(picture(3, 16) * 5 + 2)
    np.testing.assert_allclose(x.mean(dim=(2, 3)).numpy(), 0, atol=1e-6)
    np.testing.assert_allclose(x.var(dim=(2, 3), unbiased=False).numpy(), 1, atol=1e-4)


def test_a_plain_view_is_the_crop_standardised() -> None:
    x = picture(1, 20)
    got = view(x, np.array([[9.5, 9.5]]), np.array([8.0]), 8, PLAIN, np.random.default_rng(0))
    torch.testing.assert_close(got, self_normalised(x[:, :, 6:14, 6:14]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(blur=0.5, gamma=1.5, noise=0.05)])
def test_a_view_is_a_function_of_its_generator(augmentation: Augmentation) -> None:
    x = picture(2, 24).repeat(6, 1, 1, 1).clamp(0, 1)
    centres, sides = np.full((6, 2), 11.5), np.full(6, 16.0)
    one, two = (view(x, centres, sides, 8, augmentation, np.random.default_rng(4)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, view(x, centres, sides, 8, augmentation, np.random.default_rng(5)))
    assert not torch.allclose(one[0], one[1])  # rows are drawn apart


def test_views_stay_inside_their_crop() -> None:
    """Brightness is the row: a view of a crop of 8 pixels sees no row beyond it."""
    x = torch.arange(32.0)[:, None].expand(32, 32)[None, None].repeat(50, 1, 1, 1)
    plain = Augmentation(area=(0.05, 1.0), flips=False, turns=False)
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    view(x, np.full((50, 2), 15.5), np.full(50, 8.0), 6, plain, rng)
    rng.bit_generator.state = state
    area = rng.uniform(0.05, 1.0, 50)
    ratio = np.exp(rng.uniform(-np.log(1.333), np.log(1.333), 50))
    share = np.minimum(np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)], axis=1), 1.0)
    middle = 15.5 + rng.uniform(-0.5, 0.5, (50, 2)) * (1 - share) * 8.0
    assert (middle - share * 4.0 >= 11.5 - 1e-9).all()
    assert (middle + share * 4.0 <= 19.5 + 1e-9).all()

"""Losses of the embedders against hand-written loops."""

import math

import numpy as np
import pytest
import torch

from profiling.embedders.objectives import barlow, contrastive, dino, focal, masked, phenotype

# float64 throughout: sums of fewer than 1000 terms of order 1, so 1e-10 is generous
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def test_dino_loss_is_a_loop_over_pairs_of_crops() -> None:
    student = [drawn(3, 5, seed=s) for s in range(4)]
    teacher = [drawn(3, 5, seed=10 + s) for s in range(2)]
    centre = drawn(1, 5, seed=20)
    total = []
    for i in range(2):
        for j in range(4):
            if i == j:
                continue
            for row in range(3):
                p = softmax(((teacher[i] - centre)[row] / 0.05).numpy())
                q = softmax((student[j][row] / 0.1).numpy())
                total.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    said = dino.dino_loss(student, teacher, centre, 0.1, 0.05)
    np.testing.assert_allclose(float(said), np.mean(total), **CLOSE)


def test_the_teacher_gets_no_gradient_and_follows_the_student() -> None:
    student, teacher = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    with torch.no_grad():
        student.weight += 1.0
        student.running_mean += 5.0
    before = teacher.weight.clone()
    dino.follow(teacher, student, 0.9)
    torch.testing.assert_close(teacher.weight, 0.9 * before + 0.1 * student.weight)
    torch.testing.assert_close(teacher.running_mean, student.running_mean)
    out = drawn(4, 6).requires_grad_()
    crops = [drawn(4, 6, seed=1).requires_grad_(), drawn(4, 6, seed=2).requires_grad_()]
    dino.dino_loss(crops, [out, out], drawn(1, 6), 0.1, 0.05).backward()
    assert crops[1].grad is not None
    assert out.grad is None


def test_centre_and_schedules() -> None:
    centre, outputs = drawn(1, 4), [drawn(2, 4, seed=1), drawn(2, 4, seed=2)]
    by_hand = 0.9 * centre[0] + 0.1 * (outputs[0].sum(0) + outputs[1].sum(0)) / 4
    torch.testing.assert_close(dino.next_centre(centre, outputs)[0], by_hand)
    assert dino.rising(0.996, 1.0, 0.0) == pytest.approx(0.996)
    assert dino.rising(0.996, 1.0, 0.5) == pytest.approx(0.998)
    assert dino.rising(0.996, 1.0, 1.0) == pytest.approx(1.0)
    assert dino.warmed(0.04, 0.07, 0.15, 0.3) == pytest.approx(0.055)
    assert dino.warmed(0.04, 0.07, 0.9, 0.3) == 0.07


def test_barlow_twins_is_a_loop_over_pairs_of_features() -> None:
    one, other = drawn(6, 4), drawn(6, 4, seed=1)

    def standard(z: torch.Tensor) -> np.ndarray:
        x = z.numpy()
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

    a, b = standard(one), standard(other)
    total = 0.0
    for i in range(4):
        for j in range(4):
            c = sum(a[n, i] * b[n, j] for n in range(6)) / 6
            total += (1 - c) ** 2 if i == j else 0.5 * c**2
    np.testing.assert_allclose(float(barlow.barlow_loss(one, other, 0.5)), total / 4, **CLOSE)


def test_barlow_twins_is_least_for_equal_and_unrelated_features() -> None:
    grid = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    assert float(barlow.barlow_loss(grid, grid)) < 1e-9
    repeated = grid[:, [0, 0]]  # the same feature twice: C is all ones, so only the off-diagonal pays: 0.5 * 2 / 2
    assert float(barlow.barlow_loss(repeated, repeated)) == pytest.approx(0.5, abs=1e-4)


def test_nt_xent_is_a_loop_over_views() -> None:
    one, other = drawn(3, 5), drawn(3, 5, seed=1)
    z = torch.cat([one, other]).numpy()
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    losses = []
    for i in range(6):
        j = (i + 3) % 6
        below = sum(math.exp(z[i] @ z[k] / 0.2) for k in range(6) if k != i)
        losses.append(-math.log(math.exp(z[i] @ z[j] / 0.2) / below))
    np.testing.assert_allclose(float(contrastive.nt_xent(one, other, 0.2)), np.mean(losses), **CLOSE)


def test_supcon_is_a_loop_over_anchors_and_partners() -> None:
    z, labels = drawn(7, 4), [0, 0, 1, 2, 1, 1, 3]
    unit = z.numpy() / np.linalg.norm(z.numpy(), axis=1, keepdims=True)
    losses = []
    for i in range(7):
        partners = [p for p in range(7) if p != i and labels[p] == labels[i]]
        if not partners:
            continue
        below = sum(math.exp(unit[i] @ unit[a] / 0.1) for a in range(7) if a != i)
        losses.append(-np.mean([math.log(math.exp(unit[i] @ unit[p] / 0.1) / below) for p in partners]))
    said = contrastive.supcon(z, torch.tensor(labels), 0.1)
    np.testing.assert_allclose(float(said), np.mean(losses), **CLOSE)


def test_supcon_without_a_pair_is_zero_with_a_gradient() -> None:
    z = drawn(3, 4).requires_grad_()
    loss = contrastive.supcon(z, torch.tensor([0, 1, 2]), 0.1)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert z.grad is not None
    assert bool((z.grad == 0).all())


def test_patches_are_the_tokens_of_the_picture_and_go_back() -> None:
    x = torch.arange(2 * 2 * 4 * 6, dtype=torch.float64).reshape(2, 2, 4, 6)
    patches = masked.patchify(x, 2)
    assert patches.shape == (2, 2, 6, 4)
    torch.testing.assert_close(patches[1, 0, 4], x[1, 0, 2:4, 2:4].flatten())  # second row, second column of the grid
    torch.testing.assert_close(masked.unpatchify(patches, 2, 4, 6), x)


def test_masks_hide_what_they_should() -> None:
    generator = torch.Generator().manual_seed(3)
    mask = masked.random_mask(50, 16, 0.75, generator)
    assert bool((mask.sum(dim=1) == 12).all())
    assert len({tuple(row.tolist()) for row in mask}) > 40  # rows are drawn apart
    both = masked.channel_patch_mask(200, 5, 16, 0.75, 0.5, generator)
    share = both.float().mean(dim=2)
    whole = ((share == 0) | (share == 1)).all(dim=1)
    assert 60 < int(whole.sum()) < 140  # about half: 5 standard deviations of a binomial are 35
    assert bool((share[~whole] == 0.75).all())
    assert not bool((share == 1).all(dim=1).any())
    assert set(share[whole].sum(dim=1).long().tolist()) == {1, 2, 3, 4}


@pytest.mark.parametrize("normalised", [False, True])
def test_masked_loss_is_a_loop_over_hidden_patches(normalised: bool) -> None:
    said, pixels = drawn(2, 2, 3, 4), drawn(2, 2, 3, 4, seed=1)
    hidden = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[0, 0, 0], [1, 0, 0]]], dtype=torch.bool)
    losses = []
    for at in zip(*np.nonzero(hidden.numpy()), strict=True):
        truth = pixels[at].numpy()
        if normalised:
            truth = (truth - truth.mean()) / np.sqrt(truth.var(ddof=1) + 1e-6)
        losses.append(((said[at].numpy() - truth) ** 2).mean())
    np.testing.assert_allclose(float(masked.masked_loss(said, pixels, hidden, normalised)), np.mean(losses), **CLOSE)


def test_focal_losses_are_loops_and_cross_entropy_without_gamma() -> None:
    logits, truth = drawn(4, 3), torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.float64)
    losses = []
    for i in range(4):
        for m in range(3):
            p = 1 / (1 + math.exp(-float(logits[i, m])))
            right = p if truth[i, m] else 1 - p
            losses.append((0.25 if truth[i, m] else 0.75) * (1 - right) ** 2 * -math.log(right))
    np.testing.assert_allclose(float(focal.focal_binary(logits, truth, 2.0, 0.25)), np.mean(losses), **CLOSE)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    np.testing.assert_allclose(float(focal.focal_binary(logits, truth, 0.0)), float(plain), **CLOSE)
    labels = torch.tensor([0, 2, 1, 1])
    single = []
    for i in range(4):
        p = softmax(logits[i].numpy())[int(labels[i])]
        single.append((1 - p) ** 2 * -math.log(p))
    np.testing.assert_allclose(float(focal.focal_single(logits, labels, 2.0)), np.mean(single), **CLOSE)


def test_phenoprofilers_losses_are_equations_12_to_15() -> None:
    logits, labels = drawn(3, 4), torch.tensor([0, 3, 1])
    said, profile = drawn(3, 5, seed=1), drawn(3, 5, seed=2)
    classification = np.mean([-math.log(softmax(logits[i].numpy())[int(labels[i])]) for i in range(3)])
    regression = np.mean([[(float(said[i, k] - profile[i, k])) ** 2 for k in range(5)] for i in range(3)])
    matching = np.mean([-math.log(softmax((profile @ said[i]).numpy() / 2.0)[i]) for i in range(3)])
    parts = phenotype.total(logits, labels, said, profile, (0.1, 100.0, 1.0), 2.0)
    np.testing.assert_allclose(float(parts["classification"]), classification, **CLOSE)
    np.testing.assert_allclose(float(parts["regression"]), regression, **CLOSE)
    np.testing.assert_allclose(float(parts["matching"]), matching, **CLOSE)
    whole = 0.1 * classification + 100 * regression + matching
    np.testing.assert_allclose(float(parts["loss"]), whole, **CLOSE)
    alone = phenotype.total(logits, labels, said, profile, (0.0, 100.0, 0.0))
    assert set(alone) == {"loss", "regression"}
    np.testing.assert_allclose(float(alone["loss"]), 100 * regression, **CLOSE)

"""Networks of the embedders: what depends on what, and the layouts of published weights."""

import numpy as np
import pytest
import torch

from profiling.embedders.networks.build import NetworkConfig, build_encoder, n_parameters
from profiling.embedders.networks.channel_vit import ChannelVit
from profiling.embedders.networks.efficientnet import EfficientNet, EfficientNetConfig
from profiling.embedders.networks.heads import DinoHead
from profiling.embedders.networks.resnet import ResNet, ResNetConfig
from profiling.embedders.networks.vit import VisionTransformer, VitConfig, grid_positions
from profiling.embedders.recipe import InvalidRecipe

TINY = NetworkConfig(image=16, patch=4, dim=16, depth=2, heads=2)
MCA = NetworkConfig(kind="mca", image=16, patch=4, dim=16, depth=2, heads=2, memory=2)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_one_block_is_the_textbook_formula() -> None:
    vit = VisionTransformer(VitConfig(8, 4, 8, 1, 2))
    x = torch.randn(1, 1, 8, 8)
    w = {name: p.detach().numpy().astype(float) for name, p in vit.named_parameters()}

    def norm(t: np.ndarray, name: str) -> np.ndarray:
        z = (t - t.mean(-1, keepdims=True)) / np.sqrt(t.var(-1, keepdims=True) + 1e-6)
        return z * w[f"{name}.weight"] + w[f"{name}.bias"]

    tokens = [w["cls_token"][0, 0]]
    for row in range(2):
        for column in range(2):
            patch = x[0, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].numpy()
            tokens.append((w["patch_embed.proj.weight"][:, 0] * patch).sum((1, 2)) + w["patch_embed.proj.bias"])
    t = np.array(tokens) + w["pos_embed"][0]
    qkv = norm(t, "blocks.0.norm1") @ w["blocks.0.attn.qkv.weight"].T + w["blocks.0.attn.qkv.bias"]
    heads = []
    for h in range(2):
        q, k, v = (qkv[:, 8 * part + 4 * h : 8 * part + 4 * h + 4] for part in range(3))
        e = np.exp(q @ k.T / 2.0)  # square root of 4
        heads.append(e / e.sum(1, keepdims=True) @ v)
    t = t + np.concatenate(heads, 1) @ w["blocks.0.attn.proj.weight"].T + w["blocks.0.attn.proj.bias"]
    inner = norm(t, "blocks.0.norm2") @ w["blocks.0.mlp.fc1.weight"].T + w["blocks.0.mlp.fc1.bias"]
    inner = torch.nn.functional.gelu(torch.from_numpy(inner)).numpy()
    t = t + inner @ w["blocks.0.mlp.fc2.weight"].T + w["blocks.0.mlp.fc2.bias"]
    # float32 against float64, a few hundred operations
    np.testing.assert_allclose(vit(x)[0].detach().numpy(), norm(t, "norm"), atol=2e-5)


def test_positions_of_another_grid_and_attention_of_the_class_token() -> None:
    vit = VisionTransformer(VitConfig(16, 4, 16, 2, 2))
    assert vit(torch.randn(2, 1, 8, 8)).shape == (2, 5, 16)
    flat = torch.cat([torch.zeros(1, 1, 3), torch.ones(1, 16, 3)], dim=1)
    torch.testing.assert_close(grid_positions(flat, 2, 3)[:, 1:], torch.ones(1, 6, 3))
    attention, keys = vit.last_attention(torch.randn(2, 1, 16, 16))
    assert attention.shape == (2, 2, 16)
    assert keys.shape == (2, 16, 16)
    assert bool((attention.sum(dim=-1) < 1.0).all())  # the rest is what it gives itself


def test_bag_of_channels_reads_each_channel_by_itself_in_the_order_of_names() -> None:
    net = build_encoder(TINY, ("ER", "DNA")).eval()
    x = torch.randn(2, 2, 16, 16)
    with torch.no_grad():
        both = net.embed(x, ("ER", "DNA"))
        turned = net.embed(x[:, [1, 0]], ("DNA", "ER"))
        alone = net.embed(x[:, :1], ("ER",))
    torch.testing.assert_close(both, turned)
    torch.testing.assert_close(both[:, 16:], alone, atol=1e-6, rtol=1e-5)  # ER comes after DNA
    assert net.width(("A", "B", "C")) == 48


def test_attention_among_channels_knows_names_and_ignores_absent_channels() -> None:
    net = build_encoder(MCA, ("DNA", "ER", "RNA")).eval()
    x = torch.randn(2, 3, 16, 16)
    names = ("DNA", "ER", "RNA")
    with torch.no_grad():
        whole = net.embed(x, names)
        torch.testing.assert_close(whole, net.embed(x[:, [2, 0, 1]], ("RNA", "DNA", "ER")), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(whole, net.embed(x, ("ER", "DNA", "RNA")), atol=1e-4)  # names matter
        present = torch.tensor([[True, True, False], [True, True, True]])
        other = x.clone()
        other[0, 2] += 100.0
        absent = net.embed(other, names, present)
        torch.testing.assert_close(absent[0], net.embed(x[:, :2], names[:2])[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(absent[1], whole[1], atol=1e-5, rtol=1e-4)
        net.embed(x, ("DNA", "ER", "never seen"))


def test_an_unknown_channel_gets_the_mean_of_the_known_embeddings() -> None:
    vit = ChannelVit(VitConfig(8, 4, 8, 1, 2), ("A", "B"))
    assert vit.index(("B", "?", "A")).tolist() == [1, -1, 0]
    x = torch.randn(1, 1, 8, 8)
    known = vit.patches(x, vit.index(("A",))) + vit.patches(x, vit.index(("B",)))
    torch.testing.assert_close(vit.patches(x, vit.index(("?",))), known / 2)


def test_a_row_does_not_see_the_batch() -> None:
    for net in (build_encoder(TINY, ("A",)).eval(), build_encoder(MCA, ("A",)).eval()):
        x = torch.randn(5, 1, 16, 16)
        with torch.no_grad():
            whole = net.embed(x, ("A",))
            torch.testing.assert_close(whole[2:3], net.embed(x[2:3], ("A",)), atol=1e-5, rtol=1e-4)


def test_published_shapes() -> None:
    """Numbers of parameters stated by the papers and packages: ResNet-50 25.557 M with its 1000 classes,
    EfficientNet-B0 5.289 M with them, ViT-small/16 of DINO 21.67 M without a head for three channels."""
    assert n_parameters(ResNet(ResNetConfig())) + 2048 * 1000 + 1000 == 25_557_032
    assert n_parameters(EfficientNet(EfficientNetConfig())) + 1280 * 1000 + 1000 == 5_288_548
    assert n_parameters(VisionTransformer(VitConfig(224, 16, 384, 12, 6, channels=3))) == 21_665_664


def test_convolutions_give_maps_of_the_promised_width() -> None:
    x = torch.randn(2, 3, 64, 64)
    small = ResNet(ResNetConfig(width=8, blocks=(1, 1)))
    assert small(x).shape == (2, small.config.out) == (2, 64)
    efficient = EfficientNet(EfficientNetConfig(width=0.25, depth=0.3))
    assert efficient.maps(x).shape == (2, efficient.config.out, 2, 2)


def test_dino_heads_speak_in_cosines() -> None:
    head = DinoHead(8, 10, 16, 4)
    said = head(torch.randn(6, 8)).detach()
    assert float(said.abs().max()) <= 1.0 + 1e-6
    with torch.no_grad():
        before = head(torch.ones(1, 8))
        head.last.weight *= 3.0
    torch.testing.assert_close(head(torch.ones(1, 8)), before)


def test_refusals() -> None:
    with pytest.raises(InvalidRecipe, match="kind is 'bag'"):
        NetworkConfig(kind="bag")
    with pytest.raises(InvalidRecipe, match="multiples of patch"):
        NetworkConfig(image=30)

"""Check the reference solutions in the `vision` chapter against independent implementations."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solutions.day2.vision import (
    BidirectionalBlock,
    PatchEmbedding,
    SelfAttention,
    ViT,
    attention_distance,
    linear_cka,
    patchify,
    unpatchify,
)

IMAGES = [((2, 3, 8, 10), 2), ((4, 1, 9, 6), 3), ((1, 5, 4, 4), 4), ((3, 2, 5, 7), 1)]


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(20)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize(("shape", "p"), IMAGES)
def test_patchify_matches_unfold(shape: tuple[int, ...], p: int) -> None:
    images = normal(*shape)
    assert torch.equal(patchify(images, p), F.unfold(images, p, stride=p).mT)


@pytest.mark.parametrize(("shape", "p"), IMAGES)
def test_unpatchify_matches_fold(shape: tuple[int, ...], p: int) -> None:
    b, c, height, width = shape
    patches = normal(b, (height // p) * (width // p), c * p * p)
    image = F.fold(patches.mT, (height, width), p, stride=p)
    assert torch.equal(unpatchify(patches, p, height, width), image)
    assert torch.equal(patchify(image, p), patches)


@pytest.mark.parametrize(("height", "width"), [(7, 6), (6, 7), (2, 9)])
def test_patchify_rejects_sizes_that_are_not_divisible(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="patch_size"):
        patchify(normal(1, 1, height, width), 3)


def test_patch_embedding_matches_a_convolution() -> None:
    embedding = PatchEmbedding(image_size=6, patch_size=2, channels=3, d_model=5).double()
    nn.init.normal_(embedding.class_token)
    kernel = embedding.projection.weight.reshape(5, 3, 2, 2)
    images = normal(4, 3, 6, 6)
    maps = F.conv2d(images, kernel, embedding.projection.bias, stride=2)  # shape (4, 5, 3, 3)
    places = embedding.position[0, 1:].T.reshape(5, 3, 3)
    tokens = embedding(images)
    torch.testing.assert_close(tokens[:, 1:].mT.reshape(4, 5, 3, 3), maps + places)
    first = embedding.class_token[0, 0] + embedding.position[0, 0]
    torch.testing.assert_close(tokens[:, 0], first.expand(4, 5))


def torch_block(block: BidirectionalBlock) -> nn.Module:
    """Return a pre-norm `nn.TransformerEncoderLayer` with the same weights as `block`."""
    d = block.attention.out.in_features
    layer = nn.TransformerEncoderLayer(
        d, block.attention.n_heads, 4 * d, 0.0, "gelu", batch_first=True, norm_first=True
    ).double()
    names = {
        "self_attn.in_proj_": "attention.qkv.",
        "self_attn.out_proj.": "attention.out.",
        **{f"{part}.": f"{part}." for part in ("norm1", "norm2", "linear1", "linear2")},
    }
    weights = block.state_dict()
    kinds = ("weight", "bias")
    layer.load_state_dict({t + kind: weights[o + kind] for t, o in names.items() for kind in kinds})
    return layer


def test_block_matches_torch() -> None:
    block = BidirectionalBlock(12, 3).double()
    nn.init.normal_(block.norm1.weight)
    nn.init.normal_(block.norm2.bias)
    x = normal(2, 5, 12)
    torch.testing.assert_close(block(x), torch_block(block)(x))


def test_attention_stores_the_weights_of_its_last_call() -> None:
    attention = SelfAttention(12, 3).double()
    x = normal(2, 5, 12)
    attention(normal(1, 7, 12))
    attention(x)
    reference = nn.MultiheadAttention(12, 3, batch_first=True).double()
    reference.in_proj_weight = attention.qkv.weight
    reference.in_proj_bias = attention.qkv.bias
    _, weights = reference(x, x, x, average_attn_weights=False)
    assert attention.weights is not None
    torch.testing.assert_close(attention.weights, weights)


@pytest.mark.parametrize("n_layers", [1, 3])
def test_vit_matches_torch_encoder_at_the_class_token(n_layers: int) -> None:
    model = ViT(6, 2, channels=3, n_classes=4, d_model=8, n_heads=2, n_layers=n_layers).double()
    nn.init.normal_(model.norm.weight)
    images = normal(3, 3, 6, 6)
    encoder = nn.Sequential(*map(torch_block, model.blocks), model.norm, model.head)
    torch.testing.assert_close(model(images), encoder(model.embedding(images))[:, 0])


@pytest.mark.parametrize(("grid", "p"), [(1, 8), (3, 5), (4, 2)])
def test_attention_distance_matches_a_loop(grid: int, p: int) -> None:
    n = grid**2
    weights = normal(2, 3, n, n).softmax(dim=-1)
    expected = torch.zeros(3, dtype=torch.float64)
    for image in weights:
        for head in range(3):
            for q in range(n):
                for k in range(n):
                    from_, to = divmod(q, grid), divmod(k, grid)
                    expected[head] += image[head, q, k] * p * math.dist(from_, to) / (2 * n)
    torch.testing.assert_close(attention_distance(weights, grid, p), expected, rtol=1e-6, atol=1e-6)


def hsic_cka(x: Tensor, y: Tensor) -> Tensor:
    """Compute CKA from the Gram matrices of the inputs, as in Raghu et al. (2021), section 2."""
    centring = torch.eye(len(x), dtype=x.dtype) - 1 / len(x)

    def hsic(k: Tensor, m: Tensor) -> Tensor:
        return torch.trace(k @ centring @ m @ centring)

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt()


@pytest.mark.parametrize("shape", [(13, 3, 5), (5, 9, 2), (4, 1, 1)])
def test_linear_cka_matches_gram_matrices(shape: tuple[int, int, int]) -> None:
    n, d1, d2 = shape
    x = normal(n, d1) + 3
    y = x @ normal(d1, d2) + normal(n, d2)
    torch.testing.assert_close(linear_cka(x, y), hsic_cka(x, y))
    torch.testing.assert_close(linear_cka(y, x), hsic_cka(x, y))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_linear_cka_of_constant_features_is_zero(dtype: torch.dtype) -> None:
    x = normal(7, 3).to(dtype).requires_grad_()
    for value in (0.0, 0.3, 2.5, -1000.1):
        constant = torch.full((7, 2), value, dtype=dtype)
        for other in (x, constant, constant / 3):
            similarity = linear_cka(constant, other)
            assert similarity == 0
            assert similarity.dtype == dtype
    linear_cka(x, torch.full_like(x, 0.3)).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_linear_cka_is_invariant_in_float32(scale: float) -> None:
    x, y = normal(20, 4).float(), normal(20, 6).float()
    y = y + x.repeat(1, 2)[:, :6]
    rotation, _ = torch.linalg.qr(normal(6, 6))
    before = linear_cka(x, y)
    moved = scale * (y @ rotation.float()) + torch.arange(6) * scale
    torch.testing.assert_close(linear_cka(scale * x, moved), before, rtol=1e-4, atol=1e-4)

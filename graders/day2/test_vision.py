"""Hidden tests for the vision chapter. The oracles use `F.unfold`, `F.fold`, explicit formulas and loops, in float64."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from autograder.execution.checks import (
    Draw,
    backpropagate,
    close,
    equal,
    finite,
    gradient,
    on_meta,
    shaped,
    unchanged,
    value_error,
    weight,
)
from autograder.execution.student import RemoteModule
from graders.equivalent_calls import first_supported, with_strides_of

HALF_AND_DOUBLE = (torch.float64, torch.float16, torch.bfloat16)

# Each entry contains the number of channels, the numbers of patch rows and patch columns, and
# the patch size. All four numbers differ.
GRIDS = [(3, 4, 5, 2), (2, 5, 3, 4), (4, 2, 5, 3)]

# The ViT in these tests has 9 patches of 2 × 2 pixels and 3 channels.
IMAGE, PATCH, CHANNELS, CLASSES, D, HEADS = 6, 2, 3, 5, 8, 4
NAMES = ("images", "patch_size", "H", "W", "height", "width", "h", "w", "p")


def patchify_oracle(images: Tensor, p: int) -> Tensor:
    """Cut images into patches with `F.unfold`, in float64."""
    return F.unfold(images.double(), p, stride=p).mT.to(images.dtype)


def unpatchify_oracle(patches: Tensor, p: int, height: int, width: int) -> Tensor:
    """Assemble images from patches with `F.fold`, in float64."""
    return F.fold(patches.double().mT, (height, width), p, stride=p).to(patches.dtype)


def numbered_image(rows: int, columns: int, p: int) -> Tensor:
    """Return a batch of two equal images in which the value of every pixel is the index of its patch."""
    image = torch.zeros(2, 1, rows * p, columns * p)
    for number in range(rows * columns):
        top, left = number // columns * p, number % columns * p
        image[..., top : top + p, left : left + p] = number
    return image


def patchify(student):
    """Return the student's function, for code that supports only square images. `test_order_of_patches` calls it directly."""

    def square(images: Tensor, p: int) -> Tensor:
        height, width = images.shape[-2:]
        side = max(height, width)
        padded = with_strides_of(images, F.pad(images, (0, side - width, 0, side - height)))
        size = len(images), (side // p) ** 2, images.shape[1] * p * p
        seen = shaped(student.patchify(padded, p), size)
        rows, columns = height // p, width // p
        return seen.unflatten(1, (side // p, -1))[:, :rows, :columns].flatten(1, 2)

    def call(images: Tensor, p: int) -> Tensor:
        calls = [partial(student.patchify, images, p), partial(square, images, p)]
        return first_supported(calls, 3)

    return call


def unpatchify(student):
    """Return the student's function, for code that supports only square images. `test_places_of_patches` calls it directly."""

    def square(patches: Tensor, p: int, height: int, width: int) -> Tensor:
        side, rows, columns = max(height, width), height // p, width // p
        grid = patches.unflatten(1, (rows, columns))
        grid = F.pad(grid, (0, 0, 0, side // p - columns, 0, side // p - rows))
        padded = with_strides_of(patches, grid.flatten(1, 2))
        size = len(patches), patches.shape[-1] // (p * p), side, side
        seen = shaped(student.unpatchify(padded, p, side, side), size)
        return seen[..., :height, :width]

    def call(*args) -> Tensor:
        return first_supported([partial(student.unpatchify, *args), partial(square, *args)], 4)

    return call


class TestPatchify:
    exercise = "patchify"

    @weight(1)
    def test_squares(self, student):
        """Each patch is a square of p × p neighbouring pixels."""
        _, rows, columns, p = GRIDS[1]
        seen = patchify(student)(numbered_image(rows, columns, p), p)
        seen = shaped(seen, (2, rows * columns, p * p))
        for number, patch in enumerate(seen[0].tolist()):
            assert len(set(patch)) == 1, (
                f"for {rows} × {columns} patches of {p} × {p} pixels, patch {number} of your result "
                f"mixes pixels from patches {sorted({int(n) for n in patch})}"
            )

    @weight(1)
    def test_order_of_patches(self, student):
        """Patches are ordered from left to right, then from top to bottom."""
        for _, rows, columns, p in (GRIDS[2], (1, 1, 3, 2), (1, 3, 1, 2)):
            seen = student.patchify(numbered_image(rows, columns, p), p)
            seen = shaped(seen, (2, rows * columns, p * p))[0].mean(dim=-1).tolist()
            expected = list(range(rows * columns))
            assert seen == expected, (
                f"for {rows} × {columns} patches, the order should be {expected}; "
                f"yours is {[round(number, 2) for number in seen]}"
            )

    @weight(2)
    def test_order_inside(self, student, seed):
        """Each patch is flattened in the order (channel, row, column)."""
        draw = Draw(seed)
        for c, rows, columns, p in GRIDS:
            images = draw.normal(6, c, rows * p, columns * p)
            what = f"the result for shape {tuple(images.shape)} and patch_size = {p}"
            equal(patchify(student)(images, p), patchify_oracle(images, p), what)
        unchanged(student)

    @weight(1)
    def test_not_divisible(self, student, seed):
        """A ValueError is raised if H or W is not divisible by `patch_size`."""
        draw = Draw(seed)
        for height, width, p in ((7, 6, 3), (6, 7, 3), (5, 7, 3), (2, 8, 4), (9, 4, 6)):
            images = draw.normal(2, 1, height, width)
            with value_error(*NAMES, when=f"H is {height}, W is {width} and patch_size is {p}"):
                student.patchify(images, p)

    @weight(0.5)
    def test_extreme_sizes(self, student, seed):
        """A patch may be a single pixel, as tall as the image, or the whole image."""
        draw = Draw(seed)
        for shape, p in (
            ((2, 3, 4, 5), 1),
            ((3, 2, 4, 4), 4),
            ((2, 3, 2, 6), 2),
            ((1, 1, 1, 1), 1),
        ):
            images = draw.normal(*shape)
            what = f"the result for shape {shape} and patch_size = {p}"
            equal(patchify(student)(images, p), patchify_oracle(images, p), what)

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """The result keeps the dtype of the images, which may be non-contiguous."""
        draw = Draw(seed)
        images = draw.normal(2, 3, 4, 6, dtype=torch.float64)
        for dtype in HALF_AND_DOUBLE:
            equal(patchify(student)(images.to(dtype), 2), patchify_oracle(images.to(dtype), 2))
        what = "the result for non-contiguous images"
        equal(patchify(student)(draw.strided(images), 2), patchify_oracle(images, 2), what)

    @weight(0.5)
    def test_gradient(self, student, seed):
        """Each patch passes its gradient back to the pixels that it came from."""
        draw = Draw(seed)
        images, upstream = draw.normal(2, 3, 4, 6).requires_grad_(), draw.normal(2, 6, 12)
        seen = gradient(patchify(student)(images, 2), images, upstream, "the images")
        close(seen, unpatchify_oracle(upstream, 2, 4, 6), "the gradient of the images")


class TestUnpatchify:
    exercise = "unpatchify"

    @weight(1)
    def test_places_of_patches(self, student, seed):
        """Patches fill an image of size `height` × `width` from left to right, then from top to bottom."""
        p = 2
        for rows, columns in ((3, 4), (4, 3), (1, 12), (12, 1)):
            image = numbered_image(rows, columns, p)
            patches = torch.arange(12.0).reshape(1, 12, 1).expand(2, 12, p * p).clone()
            seen = student.unpatchify(patches, p, rows * p, columns * p)
            what = f"the image assembled from 12 patches, with height = {rows * p} and width = {columns * p}"
            equal(seen, image, what)

    @weight(2)
    def test_inside_of_patches(self, student, seed):
        """The pixels of each patch are in the order (channel, row, column)."""
        draw = Draw(seed)
        for c, rows, columns, p in GRIDS:
            patches = draw.normal(6, rows * columns, c * p * p)
            height, width = rows * p, columns * p
            what = f"the image for {c} channels, {height} × {width} pixels and patch_size = {p}"
            seen = unpatchify(student)(patches, p, height, width)
            equal(seen, unpatchify_oracle(patches, p, height, width), what)
        unchanged(student)

    @weight(1)
    def test_round_trip(self, student, seed):
        """`unpatchify` inverts `patchify`, and its arguments can be passed by name."""
        draw = Draw(seed)
        c, rows, columns, p = GRIDS[1]
        images = draw.normal(2, c, rows * p, columns * p)
        size = {"height": rows * p, "width": columns * p}
        equal(student.unpatchify(patches=patchify_oracle(images, p), patch_size=p, **size), images)

    @weight(0.5)
    def test_extreme_sizes(self, student, seed):
        """A patch may be a single pixel or the whole image."""
        draw = Draw(seed)
        for (b, c, height, width), p in (((2, 3, 4, 5), 1), ((3, 2, 4, 4), 4), ((1, 1, 1, 1), 1)):
            images = draw.normal(b, c, height, width)
            what = f"the image for {c} channels, {height} × {width} pixels and patch_size = {p}"
            equal(unpatchify(student)(patchify_oracle(images, p), p, height, width), images, what)

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """The result keeps the dtype of the patches, which may be non-contiguous."""
        draw = Draw(seed)
        images = draw.normal(2, 3, 4, 6, dtype=torch.float64)
        for dtype in HALF_AND_DOUBLE:
            equal(
                unpatchify(student)(patchify_oracle(images.to(dtype), 2), 2, 4, 6), images.to(dtype)
            )
        patches = draw.strided(patchify_oracle(images, 2))
        what = "the result for non-contiguous patches"
        equal(unpatchify(student)(patches, 2, 4, 6), images, what)

    @weight(0.5)
    def test_gradient(self, student, seed):
        """The gradient of the image flows back to the patches."""
        draw = Draw(seed)
        patches, upstream = draw.normal(2, 6, 12).requires_grad_(), draw.normal(2, 3, 4, 6)
        seen = gradient(unpatchify(student)(patches, 2, 4, 6), patches, upstream, "the patches")
        close(seen, patchify_oracle(upstream, 2), "the gradient of the patches")


def embedding_weights(
    draw: Draw, image: int = IMAGE, p: int = PATCH, c: int = CHANNELS, d: int = D
) -> dict[str, Tensor]:
    """Return random weights for a `PatchEmbedding`."""
    return {
        "projection.weight": draw.normal(d, c * p * p, scale=(c * p * p) ** -0.5),
        "projection.bias": draw.normal(d),
        "class_token": draw.normal(1, 1, d),
        "position": draw.normal(1, (image // p) ** 2 + 1, d),
    }


def embedding_oracle(images: Tensor, weights: dict[str, Tensor], p: int = PATCH) -> Tensor:
    """Compute the tokens of each image separately, in float64."""
    w = {name: value.double() for name, value in weights.items()}
    tokens = []
    for patches in patchify_oracle(images, p).double():
        projected = patches @ w["projection.weight"].T + w["projection.bias"]
        tokens.append(torch.cat([w["class_token"][0], projected]) + w["position"][0])
    return torch.stack(tokens)


class TestPatchEmbedding:
    exercise = "PatchEmbedding"

    @weight(0.5)
    def test_parameters(self, student, seed):
        """The parameters have the names and shapes given in the docstring."""
        weights = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D).weights()
        for name, expected in embedding_weights(Draw(seed)).items():
            names = ", ".join(f"`{other}`" for other in weights)
            assert name in weights, (
                f"your layer should have a parameter `{name}`; it has {names or 'none'}"
            )
            shaped(weights[name], expected.shape, what=f"`{name}`")

    @weight(1)
    def test_class_token_first(self, student, seed):
        """The first token is the class token, which does not depend on the image."""
        draw = Draw(seed)
        weights = embedding_weights(draw) | {"position": torch.zeros(1, 10, D)}
        layer = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D).eval()
        layer.load(weights)
        for b in (4, 1):
            seen = shaped(layer(draw.normal(b, CHANNELS, IMAGE, IMAGE)), (b, 10, D))
            expected = weights["class_token"][:, 0].expand(b, D)
            close(seen[:, 0], expected, "the first token (if `position` is zero)")

    @weight(1)
    def test_patches_after_it(self, student, seed):
        """The tokens after the class token are the projected patches, in the order of `patchify`."""
        draw = Draw(seed)
        weights = embedding_weights(draw) | {"position": torch.zeros(1, 10, D)}
        layer = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D).eval()
        layer.load(weights)
        images = draw.normal(4, CHANNELS, IMAGE, IMAGE)
        seen = shaped(layer(images), (4, 10, D))
        unchanged(student)
        expected = embedding_oracle(images, weights)[:, 1:].float()
        close(seen[:, 1:], expected, "the patch tokens (if `position` is zero)", atol=1e-4)

    @weight(1)
    def test_position_of_every_token(self, student, seed):
        """Row i of `position` is added to token i, including the class token (i = 0)."""
        draw = Draw(seed)
        weights = embedding_weights(draw)
        layer = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D).eval()
        images = draw.normal(2, CHANNELS, IMAGE, IMAGE)
        layer.load(weights | {"position": torch.zeros(1, 10, D)})
        without = finite(shaped(layer(images), (2, 10, D)))
        layer.load(weights)
        added = shaped(layer(images), (2, 10, D)) - without
        expected = weights["position"].expand(2, 10, D)
        what = "the change that `position` makes to the class token"
        close(added[:, 0], expected[:, 0], what, atol=1e-4)
        close(added, expected, "the change that `position` makes to the tokens", atol=1e-4)

    @weight(1)
    def test_gradients(self, student, seed):
        """The gradients of the class token, position embedding, projection and images are correct."""
        draw = Draw(seed)
        layer = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D).eval()
        weights = embedding_weights(draw)
        layer.load(weights)
        images = draw.normal(3, CHANNELS, IMAGE, IMAGE).requires_grad_()
        upstream = draw.normal(3, 10, D)
        leaves = layer.weights()
        copies = {name: value.double().requires_grad_() for name, value in weights.items()}
        pixels = images.detach().double().requires_grad_()
        seen = shaped(layer(images), (3, 10, D), torch.float32)
        backpropagate(seen, upstream)
        backpropagate(embedding_oracle(pixels, copies), upstream)
        for name, leaf in [(f"`{name}`", leaves.get(name)) for name in copies] + [
            ("images", images)
        ]:
            assert leaf is not None, f"your layer should have a parameter {name}"
            assert leaf.grad is not None, f"no gradient reaches {name}"
            expected = pixels.grad if name == "images" else copies[name.strip("`")].grad
            close(leaf.grad, expected, f"the gradient of {name}", 1e-4, 1e-4, torch.float32)

    @weight(0.5)
    def test_other_sizes(self, student, seed):
        """The layer works for other image sizes, patch sizes and numbers of channels, even if several instances exist."""
        draw, cases = Draw(seed), ((4, 4, 2, 5), (3, 1, 1, 7), (8, 2, 1, 3))
        layers = [
            student.PatchEmbedding(image_size=image, patch_size=p, channels=c, d_model=d).eval()
            for image, p, c, d in cases
        ]
        for layer, (image, p, c, d) in zip(layers, cases, strict=True):
            weights = embedding_weights(draw, image, p, c, d)
            layer.load(weights)
            images = draw.strided(draw.normal(2, c, image, image))
            what = f"the result for image_size = {image}, patch_size = {p} and channels = {c}"
            close(
                layer(images), embedding_oracle(images, weights, p), what, 1e-4, 1e-4, torch.float32
            )

    @weight(0.25)
    def test_modes(self, student, seed):
        """The result is the same in training and evaluation mode."""
        draw = Draw(seed)
        layer = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D)
        layer.load(embedding_weights(draw))
        images = draw.normal(2, CHANNELS, IMAGE, IMAGE)
        expected = finite(shaped(layer.eval()(images), (2, 10, D)), "the result in evaluation mode")
        close(layer.train()(images), expected, "the result in training mode")

    @weight(0.5)
    def test_dtypes(self, student, seed):
        """After `.to(dtype)`, images of that dtype give tokens of that dtype."""
        draw = Draw(seed)
        weights = embedding_weights(draw)
        images = draw.normal(2, CHANNELS, IMAGE, IMAGE, dtype=torch.float64)
        for dtype in HALF_AND_DOUBLE:
            layer = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D).eval().to(dtype)
            rounded = {name: value.to(dtype) for name, value in weights.items()}
            layer.load(rounded)
            expected = embedding_oracle(images.to(dtype), rounded)
            close(layer(images.to(dtype)), expected, f"the result in {dtype}", dtype=dtype)

    @weight(0.25)
    def test_device(self, student):
        """After `.to(device)`, the layer works with images on that device."""
        layer = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D).eval()
        images = torch.zeros(2, CHANNELS, IMAGE, IMAGE, device="meta")
        on_meta(lambda: layer.to("meta")(images), (2, 10, D))


def vit_weights(draw: Draw, n_layers: int) -> dict[str, Tensor]:
    """Return random weights for a `ViT`."""
    weights = {f"embedding.{name}": value for name, value in embedding_weights(draw).items()}
    maps = {"head": (CLASSES, D)}
    norms = ["norm"]
    for i in range(n_layers):
        maps |= {f"blocks.{i}.attention.qkv": (3 * D, D), f"blocks.{i}.attention.out": (D, D)}
        maps |= {f"blocks.{i}.linear1": (4 * D, D), f"blocks.{i}.linear2": (D, 4 * D)}
        norms += [f"blocks.{i}.norm1", f"blocks.{i}.norm2"]
    for name, (to, of) in maps.items():
        weights |= {f"{name}.weight": draw.normal(to, of, scale=of**-0.5)}
        weights |= {f"{name}.bias": draw.normal(to, scale=0.5)}
    for name in norms:
        weights |= {f"{name}.weight": draw.uniform(D, low=0.5, high=1.5)}
        weights |= {f"{name}.bias": draw.normal(D, scale=0.5)}
    return weights


def identity_blocks(n_layers: int) -> dict[str, Tensor]:
    """Return weights that make every block return its input unchanged."""
    weights: dict[str, Tensor] = {}
    for i in range(n_layers):
        for name, width in ((f"blocks.{i}.attention.out", D), (f"blocks.{i}.linear2", 4 * D)):
            weights |= {f"{name}.weight": torch.zeros(D, width), f"{name}.bias": torch.zeros(D)}
    return weights


def vit_oracle(images: Tensor, weights: dict[str, Tensor], n_layers: int, heads: int) -> Tensor:
    """Compute the logits of a ViT with these weights, in float64."""
    w = {name: value.double() for name, value in weights.items()}

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def normed(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (D,), w[f"{name}.weight"], w[f"{name}.bias"])

    def by_head(x: Tensor) -> Tensor:
        return torch.stack(x.chunk(heads, dim=-1), dim=1)

    prefix = "embedding."
    embedding = {n.removeprefix(prefix): v for n, v in w.items() if n.startswith(prefix)}
    x = embedding_oracle(images, embedding)
    for i in range(n_layers):
        block = f"blocks.{i}"
        parts = linear(normed(x, f"{block}.norm1"), f"{block}.attention.qkv").chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(*map(by_head, parts))
        x = x + linear(torch.cat(mixed.unbind(1), dim=-1), f"{block}.attention.out")
        hidden = F.gelu(linear(normed(x, f"{block}.norm2"), f"{block}.linear1"))
        x = x + linear(hidden, f"{block}.linear2")
    return linear(normed(x[:, 0], "norm"), "head")


def make_vit(
    student, n_layers: int, weights: dict[str, Tensor], heads: int = HEADS
) -> RemoteModule:
    """Return the student's ViT with these weights, in evaluation mode."""
    model = student.ViT(IMAGE, PATCH, CHANNELS, CLASSES, D, heads, n_layers).eval()
    model.load(weights)
    return model


class TestViT:
    exercise = "ViT"

    @weight(0.5)
    def test_blocks(self, student, seed):
        """The model has `n_layers` blocks, each with its own weights."""
        weights = vit_weights(Draw(seed), 3)
        model = make_vit(student, 3, weights)
        count = model.length("blocks")
        assert count == 3, f"with n_layers = 3, `blocks` should hold 3 blocks, not {count}"
        seen = model.weights()
        for name, value in weights.items():
            what = f"`{name}` after loading different weights into every block"
            equal(seen[name].detach(), value, what)

    @weight(1)
    def test_class_token_decides(self, student, seed):
        """The logits are computed from the class token: if the blocks add nothing, all images get the same logits."""
        draw = Draw(seed)
        model = make_vit(student, 2, vit_weights(draw, 2) | identity_blocks(2))
        images = draw.normal(4, CHANNELS, IMAGE, IMAGE)
        seen = finite(shaped(model(images), (4, CLASSES)))
        what = "the logits of different images (if the blocks add nothing)"
        close(seen[1:], seen[:1].expand(3, CLASSES), what)

    @weight(1)
    def test_last_norm_and_head(self, student, seed):
        """After the last block, the class token goes through `norm` and then through `head`."""
        draw = Draw(seed)
        weights = vit_weights(draw, 1) | identity_blocks(1)
        weights["blocks.0.linear2.bias"] = draw.normal(D, scale=20.0)
        images = draw.normal(2, CHANNELS, IMAGE, IMAGE)
        seen = make_vit(student, 1, weights)(images)
        what = "the logits (if the block adds the same large vector to every token)"
        close(seen, vit_oracle(images, weights, 1, HEADS), what, 2e-3, 2e-3, torch.float32)

    @weight(2)
    def test_values(self, student, seed):
        """Given a set of weights, the model computes the correct logits, with one layer and with three layers."""
        draw = Draw(seed)
        # The two forms of GELU differ by less than the tolerance.
        for n_layers, heads in ((1, 4), (3, 2)):
            weights = vit_weights(draw, n_layers)
            images = draw.strided(draw.normal(3, CHANNELS, IMAGE, IMAGE))
            seen = make_vit(student, n_layers, weights, heads)(images)
            unchanged(student)
            what = f"the logits for n_layers = {n_layers} and n_heads = {heads}"
            expected = vit_oracle(images, weights, n_layers, heads)
            close(seen, expected, what, 1e-2, 1e-2, torch.float32)

    @weight(0.5)
    def test_eps(self, student, seed):
        """The last norm uses eps = 1e-5, which matters when the class token is small."""
        draw = Draw(seed)
        weights = vit_weights(draw, 1) | identity_blocks(1)
        for name in ("embedding.class_token", "embedding.position"):
            weights[name] = 2e-3 * weights[name]
        images = draw.normal(2, CHANNELS, IMAGE, IMAGE)
        what = "the logits (if the class token is small and the block adds nothing)"
        expected = vit_oracle(images, weights, 1, HEADS)
        close(make_vit(student, 1, weights)(images), expected, what, 1e-3, 1e-3, torch.float32)

    @weight(0.5)
    def test_images_alone(self, student, seed):
        """An image's logits are the same alone and in a batch, and in training and evaluation mode."""
        draw = Draw(seed)
        model = make_vit(student, 2, vit_weights(draw, 2))
        images = draw.normal(3, CHANNELS, IMAGE, IMAGE)
        together = shaped(model(images), (3, CLASSES))
        close(model(images[1:2]), together[1:2], "the logits of a single image", atol=1e-4)
        close(model.train()(images), together, "the logits in training mode", atol=1e-4)

    @weight(0.5)
    def test_gradients(self, student, seed):
        """Gradients reach the images and every part of the model."""
        draw = Draw(seed)
        weights = vit_weights(draw, 2)
        model = make_vit(student, 2, weights)
        images = draw.normal(3, CHANNELS, IMAGE, IMAGE).requires_grad_()
        leaves = model.weights()
        seen = shaped(model(images), (3, CLASSES))
        backpropagate(seen, draw.normal(3, CLASSES))
        reached = {f"`{name}`": leaves[name].grad for name in weights} | {"images": images.grad}
        for name, found in reached.items():
            assert found is not None, f"no gradient reaches {name}"
            finite(found, f"the gradient of {name}")
            assert found.abs().max() > 0, f"the gradient of {name} is zero"

    @weight(0.5)
    def test_dtype(self, student, seed):
        """After `.to(torch.bfloat16)`, the logits are bfloat16."""
        draw = Draw(seed)
        weights = {name: value.bfloat16().float() for name, value in vit_weights(draw, 1).items()}
        images = draw.normal(2, CHANNELS, IMAGE, IMAGE, dtype=torch.bfloat16)
        model = make_vit(student, 1, weights)
        expected = finite(shaped(model(images.float()), (2, CLASSES)), "the logits in float32")
        what = "the logits in bfloat16, compared with those in float32"
        close(model.to(torch.bfloat16)(images), expected, what, 2e-1, 2e-1, torch.bfloat16)


def patch_distances(grid: int, p: int) -> Tensor:
    """Return the distances in pixels between the centres of all pairs of patches, in float64."""
    centres = [(p * (r + 0.5), p * (c + 0.5)) for r in range(grid) for c in range(grid)]
    places = torch.tensor(centres, dtype=torch.float64)
    return (places[:, None] - places[None]).square().sum(dim=-1).sqrt()


def distance_oracle(weights: Tensor, grid: int, p: int) -> Tensor:
    """Compute the mean attention distance of each head, in float64."""
    b, _, n, _ = weights.shape
    return torch.einsum("bhij,ij->h", weights.double(), patch_distances(grid, p)) / (b * n)


class TestAttentionDistance:
    exercise = "attention_distance"

    @weight(0.5)
    def test_own_patch(self, student, seed):
        """If every query attends only to its own patch, the distance is 0; the result has one value per head."""
        weights = torch.eye(9).expand(2, 4, 9, 9).clone()
        close(student.attention_distance(weights, 3, 5), torch.zeros(4))

    @weight(1)
    def test_straight_line(self, student):
        """The result is the mean straight-line distance in pixels between patch centres."""
        p = 7
        # In head 0, query 1 of a 3 × 3 grid attends to itself; in the other heads, to keys at other distances.
        targets = {"1 (itself)": (1, 0), "4": (4, p), "7": (7, 2 * p), "2": (2, p)}
        targets |= {"6": (6, p * 5**0.5), "3": (3, p * 2**0.5)}
        weights = torch.eye(9).repeat(2, len(targets), 1, 1)
        for head, (key, _) in enumerate(targets.values()):
            weights[:, head, 1] = torch.eye(9)[key]
        seen = student.attention_distance(weights, 3, p)
        seen = shaped(seen, (len(targets),), torch.float32)
        for (key, (_, far)), value in zip(targets.items(), seen.tolist(), strict=True):
            assert abs(value - far / 9) < 1e-3, (
                f"in a 3 × 3 grid with patch_size = {p}, query 1 attends to key {key} and all other queries "
                f"to themselves. The mean distance should be {far / 9:.4f}; yours is {value:.4f}"
            )

    @weight(0.5)
    def test_rows_of_the_grid(self, student, seed):
        """The last patch in a row of the grid is far from the first patch in the next row."""
        grid, p = 4, 3
        weights = torch.eye(16).reshape(1, 1, 16, 16).clone()
        weights[0, 0, 7] = torch.eye(16)[8]
        expected = torch.tensor([p * 10**0.5 / 16])
        what = "the distance in a 4 × 4 grid if query 7 attends to key 8 and every other query to itself"
        close(student.attention_distance(weights, grid, p), expected, what, atol=1e-4)

    @weight(1)
    def test_weighted_by_attention(self, student, seed):
        """The distance for a query is the average distance to all keys, weighted by the attention weights."""
        draw = Draw(seed)
        grid = 4
        n = grid**2
        weights = draw.normal(1, 1, n, n, scale=2.0).softmax(dim=-1)
        for case, given in (("random", weights), ("equal", torch.full((1, 1, n, n), 1 / n))):
            what = f"the distance for {case} weights in a {grid} × {grid} grid with patch_size = 5"
            expected = distance_oracle(given, grid, 5)
            seen = student.attention_distance(given, grid, 5)
            close(seen, expected, what, 1e-3, 1e-4, torch.float32)
        weights = draw.normal(1, 1, 81, 81, scale=2.0).softmax(dim=-1)
        seen, what = student.attention_distance(weights, 9, 5), "the distance in a 9 × 9 grid"
        close(seen, distance_oracle(weights, 9, 5), what, 1e-3, 1e-4, torch.float32)

    @weight(1)
    def test_heads_and_batch(self, student, seed):
        """The result has one distance per head, averaged over queries and images."""
        draw = Draw(seed)
        sharp = torch.tensor([0.5, 2.0, 8.0]).reshape(1, 3, 1, 1)
        weights = (draw.normal(5, 3, 4, 4) * sharp).softmax(dim=-1)
        seen = shaped(student.attention_distance(weights, 2, 7), (3,))
        unchanged(student)
        what = "the distances of 3 heads for 5 images"
        close(seen, distance_oracle(weights, 2, 7), what, 1e-3, 1e-4, torch.float32)

    @weight(0.5)
    def test_patch_size(self, student, seed):
        """The result is in pixels: tripling the patch size triples the distances."""
        weights = Draw(seed).normal(2, 3, 9, 9).softmax(dim=-1)
        small = finite(shaped(student.attention_distance(weights, grid=3, patch_size=4), (3,)))
        large = student.attention_distance(weights, grid=3, patch_size=12)
        close(
            large,
            3 * small,
            "the distance for patch_size = 12, compared with three times your result for patch_size = 4",
            atol=1e-4,
        )

    @weight(0.5)
    def test_extremes(self, student, seed):
        """For a single patch, the distance is 0; the result keeps the dtype of the weights, which may be non-contiguous."""
        draw = Draw(seed)
        close(student.attention_distance(torch.ones(2, 3, 1, 1), 1, 8), torch.zeros(3))
        weights = draw.normal(2, 3, 9, 9, dtype=torch.float64).softmax(dim=-1)
        what = "the distance for non-contiguous weights"
        seen = student.attention_distance(draw.strided(weights), 3, 2)
        # Computing the distances in float32 is accepted.
        close(seen, distance_oracle(weights, 3, 2), what, 1e-5, 1e-5)
        for dtype in (torch.float16, torch.bfloat16):
            seen = student.attention_distance(weights.to(dtype), 3, 2)
            expected = distance_oracle(weights.to(dtype), 3, 2)
            close(seen, expected, f"the distance in {dtype}", dtype=dtype)

    @weight(0.25)
    def test_device(self, student):
        """The result is on the same device as the weights."""
        weights = torch.zeros(2, 3, 9, 9, device="meta")
        on_meta(lambda: student.attention_distance(weights, 3, 2), (3,))

    @weight(0.5)
    def test_gradient(self, student, seed):
        """If the weights are a softmax of scores, the gradient of the scores is correct."""
        draw = Draw(seed)
        scores = draw.normal(2, 3, 4, 4).requires_grad_()
        upstream = draw.normal(3)
        distances = student.attention_distance(scores.softmax(dim=-1), 2, 3)
        seen = gradient(distances, scores, upstream, "the scores before softmax")
        copy = scores.detach().double().requires_grad_()
        backpropagate(distance_oracle(copy.softmax(dim=-1), 2, 3), upstream)
        what = "the gradient of the scores before softmax"
        close(seen, copy.grad, what, atol=1e-4, dtype=torch.float32)


def cka_oracle(x: Tensor, y: Tensor) -> Tensor:
    """Compute CKA from the centred Gram matrices, in float64."""
    n = len(x)
    centring = torch.eye(n, dtype=torch.float64) - 1 / n
    k, m = (centring @ (z @ z.T) @ centring for z in (x.double(), y.double()))
    return (k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt()


def related_inputs(draw: Draw, n: int, d1: int, d2: int) -> tuple[Tensor, Tensor]:
    """Return two representations that are correlated but not centred."""
    x = draw.normal(n, d1)
    y = x @ draw.normal(d1, d2, scale=d1**-0.5) + draw.normal(n, d2)
    return x + draw.normal(d1), y + draw.normal(d2)


class TestLinearCka:
    exercise = "linear_cka"

    @weight(1.5)
    def test_values(self, student, seed):
        """The result is the linear CKA of x and y, whether there are more inputs than features or fewer."""
        draw = Draw(seed)
        for n, d1, d2 in ((13, 3, 5), (6, 9, 4), (5, 2, 11), (8, 1, 1)):
            x, y = related_inputs(draw, n, d1, d2)
            seen = student.linear_cka(x, y)
            unchanged(student)
            what = f"the result for shapes ({n}, {d1}) and ({n}, {d2})"
            close(seen, cka_oracle(x, y), what, 1e-4, 1e-4, torch.float32)
        x, y = related_inputs(draw, 17, 4, 6)
        x, y = x * draw.mask(17, 4), y * draw.mask(17, 6)
        seen = student.linear_cka(x, y)
        close(seen, cka_oracle(x, y), "the result if many entries are 0", 1e-4, 1e-4, torch.float32)

    @weight(1)
    def test_itself(self, student, seed):
        """The similarity of x to itself is 1, and the result is always in [0, 1]."""
        draw = Draw(seed)
        x, y = related_inputs(draw, 11, 4, 6)
        close(student.linear_cka(x, x), torch.tensor(1.0), "the result for x and x", atol=1e-4)
        value = float(shaped(student.linear_cka(x, y), ()))
        assert -1e-4 <= value <= 1 + 1e-4, f"the result should be in [0, 1]; yours is {value:.4f}"

    @weight(1)
    def test_added_constants(self, student, seed):
        """Adding a constant to a column does not change the result, because columns are centred."""
        draw = Draw(seed)
        for what, a, b in (
            ("x plus a constant per column", draw.normal(5, scale=4.0), 0.0),
            ("y plus a constant per column", 0.0, draw.normal(3, scale=4.0)),
            ("x and y plus 10", 10.0, 10.0),
        ):
            x, y = related_inputs(draw, 12, 5, 3)
            seen = student.linear_cka(x + a, y + b)
            close(seen, cka_oracle(x, y), f"the result for {what}", 1e-3, 1e-3, torch.float32)

    @weight(0.5)
    def test_rotation(self, student, seed):
        """Rotating or reflecting the features does not change the result."""
        draw = Draw(seed)
        for d in (6, 3):
            x, y = related_inputs(draw, 10, 4, d)
            rotation, _ = torch.linalg.qr(draw.normal(d, d, dtype=torch.float64))
            seen = student.linear_cka(x, y @ rotation.float())
            close(seen, cka_oracle(x, y), "the result for a rotated y", 1e-4, 1e-4, torch.float32)

    @weight(0.5)
    def test_scale(self, student, seed):
        """Scaling x, y or both by factors from 10⁻³ to 10³ does not change the result."""
        draw = Draw(seed)
        for a, b in ((1e-3, 1.0), (1.0, 1e3), (1e-3, 1e-3), (1e3, 1e3), (-2.0, 1.0)):
            x, y = related_inputs(draw, 24, 4, 5)
            what = f"the result for {a:g} · x and {b:g} · y"
            seen = student.linear_cka(a * x, b * y)
            close(seen, cka_oracle(x, y), what, 1e-3, 1e-3, torch.float32)

    @weight(1)
    def test_constant(self, student, seed):
        """If all rows of x or y are equal, the result is 0, not NaN."""
        draw = Draw(seed)
        x, _ = related_inputs(draw, 7, 3, 2)
        constants = {f"all {value:g}": torch.full((7, 4), value) for value in (1.0, 2.5, 0.3)}
        constants["one row repeated"] = draw.normal(1, 5).expand(7, 5).clone()
        nothing = torch.tensor(0.0)
        for name, constant in constants.items():
            for what, a, b in ((f"y is {name}", x, constant), (f"x is {name}", constant, x)):
                close(student.linear_cka(a, b), nothing, f"the result if {what}", atol=1e-4)
        seen = student.linear_cka(constants["all 0.3"], torch.full((7, 3), 0.7))
        close(seen, nothing, "the result if x is all 0.3 and y is all 0.7", atol=1e-4)
        # Even in float64, the mean of equal numbers can differ from them by a rounding error.
        for n, a, b in ((9, 0.3, 0.7), (11, -0.3, -0.7)):
            constant = (torch.full((n, 4), value, dtype=torch.float64) for value in (a, b))
            what = f"the result in float64 if x is all {a} and y is all {b}, for {n} inputs"
            seen = shaped(
                student.linear_cka(*constant), (), what=what
            )  # the dtype has its own test
            close(seen.double(), nothing.double(), what, atol=1e-4)
        close(student.linear_cka(x[:1], x[:1]), nothing, "the result for a single input")

    @weight(0.5)
    def test_constant_column(self, student, seed):
        """Adding a constant column to x does not change the result."""
        draw = Draw(seed)
        for n in (9, 6):
            x, y = related_inputs(draw, n, 3, 4)
            with_constant = torch.cat([x[:, :1], torch.full((n, 1), 0.3), x[:, 1:]], dim=1)
            what = f"the result with a constant column in x, for {n} inputs"
            seen = student.linear_cka(with_constant, y)
            close(seen, cka_oracle(x, y), what, 1e-4, 1e-4, torch.float32)

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """The result has the dtype of the inputs, which may be non-contiguous."""
        draw = Draw(seed)
        x, y = (z.double() for z in related_inputs(draw, 12, 4, 3))
        # Computing in float32 is accepted for every dtype.
        for dtype, tolerance in zip(HALF_AND_DOUBLE, (1e-5, 2e-2, 1e-1), strict=True):
            a, b = x.to(dtype), y.to(dtype)
            seen = student.linear_cka(a, b)
            close(seen, cka_oracle(a, b), f"the result in {dtype}", tolerance, tolerance, dtype)
        seen = student.linear_cka(draw.strided(x), draw.strided(y))
        close(seen, cka_oracle(x, y), "the result for non-contiguous inputs", 1e-5, 1e-5)

    @weight(0.5)
    def test_gradient(self, student, seed):
        """The gradients of x and y are correct."""
        draw = Draw(seed)
        x, y = (z.requires_grad_() for z in related_inputs(draw, 8, 3, 4))
        a, b = (z.detach().double().requires_grad_() for z in (x, y))
        cka_oracle(a, b).backward()
        for name, leaf, expected in (("x", x, a.grad), ("y", y, b.grad)):
            seen = gradient(student.linear_cka(x, y), leaf, torch.tensor(1.0), f"`{name}`")
            close(seen, expected, f"the gradient of `{name}`", 1e-3, 1e-3, torch.float32)

    @weight(0.25)
    def test_device(self, student):
        """The result is on the same device as the inputs."""
        x, y = (torch.zeros(5, d, device="meta") for d in (3, 4))
        on_meta(lambda: student.linear_cka(x, y), ())

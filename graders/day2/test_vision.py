"""Hidden graders of the chapter vision; the oracles are unfold and fold, formulas and loops in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from autograder.execution.checks import (
    Draw,
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

HALF_AND_DOUBLE = (torch.float64, torch.float16, torch.bfloat16)

# Channels, rows of patches, columns of patches, side of a patch: no two of them equal.
GRIDS = [(3, 4, 5, 2), (2, 5, 3, 4), (4, 2, 5, 3)]

# The ViT of the tests: 9 patches of 2 × 2 pixels in 3 channels.
IMAGE, PATCH, CHANNELS, CLASSES, D, HEADS = 6, 2, 3, 5, 8, 4
NAMES = ("images", "patch_size", "H", "W", "height", "width", "h", "w", "p")


def cut(images: Tensor, p: int) -> Tensor:
    """The patches, by torch's own operator, which wants a float of at least 32 bits."""
    return F.unfold(images.double(), p, stride=p).mT.to(images.dtype)


def joined(patches: Tensor, p: int, height: int, width: int) -> Tensor:
    """The image, by torch's own operator."""
    return F.fold(patches.double().mT, (height, width), p, stride=p).to(patches.dtype)


def numbered(rows: int, columns: int, p: int) -> Tensor:
    """An image in which every pixel holds the number of its patch."""
    image = torch.zeros(1, 1, rows * p, columns * p)
    for number in range(rows * columns):
        top, left = number // columns * p, number % columns * p
        image[..., top : top + p, left : left + p] = number
    return image


class TestPatchify:
    exercise = "patchify"

    @weight(1)
    def test_squares(self, student, seed):
        """A patch is a square: p rows of p pixels that lie next to each other in the image."""
        _, rows, columns, p = Draw(seed).choice(GRIDS)
        seen = student.patchify(numbered(rows, columns, p), p)
        seen = shaped(seen, (1, rows * columns, p * p))
        for number, patch in enumerate(seen[0].tolist()):
            assert len(set(patch)) == 1, (
                f"for {rows} × {columns} patches of {p} × {p} pixels, entry {number} of your result "
                f"mixes pixels of the patches {sorted({int(n) for n in patch})}"
            )

    @weight(1)
    def test_order_of_patches(self, student, seed):
        """Patches are counted from left to right, then row by row."""
        draw = Draw(seed)
        for _, rows, columns, p in (draw.choice(GRIDS), (1, 1, 3, 2), (1, 3, 1, 2)):
            seen = student.patchify(numbered(rows, columns, p), p)
            seen = shaped(seen, (1, rows * columns, p * p))[0].mean(dim=-1).tolist()
            expected = list(range(rows * columns))
            assert seen == expected, (
                f"{rows} × {columns} patches, numbered as one reads, should stand in the order "
                f"{expected}, yours in {[round(number, 2) for number in seen]}"
            )

    @weight(2)
    def test_order_inside(self, student, seed):
        """A patch is flattened as (channel, row, column)."""
        draw = Draw(seed)
        for c, rows, columns, p in GRIDS:
            images = draw.normal(6, c, rows * p, columns * p)
            what = f"the result for the shape {tuple(images.shape)} and patch_size {p}"
            equal(student.patchify(images, p), cut(images, p), what)
        unchanged(student)

    @weight(1)
    def test_not_divisible(self, student, seed):
        """Where H or W is not divisible by patch_size, a ValueError says so."""
        draw = Draw(seed)
        for height, width, p in ((7, 6, 3), (6, 7, 3), (5, 7, 3), (2, 8, 4), (9, 4, 6)):
            images = draw.normal(2, 1, height, width)
            with value_error(*NAMES, when=f"H is {height}, W is {width} and patch_size is {p}"):
                student.patchify(images, p)

    @weight(0.5)
    def test_extreme_sizes(self, student, seed):
        """Patches of one pixel, and one patch that is the whole image or all of its height, work, too."""
        draw = Draw(seed)
        for shape, p in (
            ((2, 3, 4, 5), 1),
            ((3, 2, 4, 4), 4),
            ((2, 3, 2, 6), 2),
            ((1, 1, 1, 1), 1),
        ):
            images = draw.normal(*shape)
            what = f"the result for the shape {shape} and patch_size {p}"
            equal(student.patchify(images, p), cut(images, p), what)

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """Any floating dtype stays, and images may lie in memory in any way."""
        draw = Draw(seed)
        images = draw.normal(2, 3, 4, 6, dtype=torch.float64)
        for dtype in HALF_AND_DOUBLE:
            equal(student.patchify(images.to(dtype), 2), cut(images.to(dtype), 2))
        what = "the result for images that are not contiguous"
        equal(student.patchify(draw.strided(images), 2), cut(images, 2), what)

    @weight(0.5)
    def test_gradient(self, student, seed):
        """Gradients flow back to the pixels that they belong to."""
        draw = Draw(seed)
        images, upstream = draw.normal(2, 3, 4, 6).requires_grad_(), draw.normal(2, 6, 12)
        seen = gradient(student.patchify(images, 2), images, upstream, "the images")
        close(seen, joined(upstream, 2, 4, 6), "the gradient of the images")


class TestUnpatchify:
    exercise = "unpatchify"

    @weight(1)
    def test_places_of_patches(self, student, seed):
        """Patches fill the image from left to right, then row by row; N alone does not say how."""
        p = 2
        for rows, columns in ((3, 4), (4, 3), (1, 12), (12, 1)):
            image = numbered(rows, columns, p)
            patches = torch.arange(12.0).reshape(1, 12, 1).expand(1, 12, p * p).clone()
            seen = student.unpatchify(patches, p, rows * p, columns * p)
            what = f"12 patches of 2 × 2 as an image of {rows * p} × {columns * p}"
            equal(seen, image, what)

    @weight(2)
    def test_inside_of_patches(self, student, seed):
        """A row of a patch holds its pixels as (channel, row, column)."""
        draw = Draw(seed)
        for c, rows, columns, p in GRIDS:
            patches = draw.normal(6, rows * columns, c * p * p)
            height, width = rows * p, columns * p
            what = f"the image of {c} channels and {height} × {width} pixels with patch_size {p}"
            seen = student.unpatchify(patches, p, height, width)
            equal(seen, joined(patches, p, height, width), what)
        unchanged(student)

    @weight(1)
    def test_round_trip(self, student, seed):
        """Images that were cut come back as they were, by name of the arguments as well."""
        draw = Draw(seed)
        c, rows, columns, p = draw.choice(GRIDS)
        images = draw.normal(2, c, rows * p, columns * p)
        size = {"height": rows * p, "width": columns * p}
        equal(student.unpatchify(patches=cut(images, p), patch_size=p, **size), images)

    @weight(0.5)
    def test_extreme_sizes(self, student, seed):
        """Patches of one pixel, and one patch that is the whole image, work, too."""
        draw = Draw(seed)
        for (b, c, height, width), p in (((2, 3, 4, 5), 1), ((3, 2, 4, 4), 4), ((1, 1, 1, 1), 1)):
            images = draw.normal(b, c, height, width)
            what = f"the image of {c} channels and {height} × {width} pixels with patch_size {p}"
            equal(student.unpatchify(cut(images, p), p, height, width), images, what)

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """Any floating dtype stays, and patches may lie in memory in any way."""
        draw = Draw(seed)
        images = draw.normal(2, 3, 4, 6, dtype=torch.float64)
        for dtype in HALF_AND_DOUBLE:
            equal(student.unpatchify(cut(images.to(dtype), 2), 2, 4, 6), images.to(dtype))
        patches = draw.strided(cut(images, 2))
        what = "the result for patches that are not contiguous"
        equal(student.unpatchify(patches, 2, 4, 6), images, what)

    @weight(0.5)
    def test_gradient(self, student, seed):
        """Gradients flow back to the patches that they belong to."""
        draw = Draw(seed)
        patches, upstream = draw.normal(2, 6, 12).requires_grad_(), draw.normal(2, 3, 4, 6)
        seen = gradient(student.unpatchify(patches, 2, 4, 6), patches, upstream, "the patches")
        close(seen, cut(upstream, 2), "the gradient of the patches")


def embedding_weights(
    draw: Draw, image: int = IMAGE, p: int = PATCH, c: int = CHANNELS, d: int = D
) -> dict[str, Tensor]:
    """Random weights of a `PatchEmbedding`."""
    return {
        "projection.weight": draw.normal(d, c * p * p, scale=(c * p * p) ** -0.5),
        "projection.bias": draw.normal(d),
        "class_token": draw.normal(1, 1, d),
        "position": draw.normal(1, (image // p) ** 2 + 1, d),
    }


def embedded(images: Tensor, weights: dict[str, Tensor], p: int = PATCH) -> Tensor:
    """The tokens of the images, in float64, each by itself."""
    w = {name: value.double() for name, value in weights.items()}
    tokens = []
    for patches in cut(images, p).double():
        projected = patches @ w["projection.weight"].T + w["projection.bias"]
        tokens.append(torch.cat([w["class_token"][0], projected]) + w["position"][0])
    return torch.stack(tokens)


class TestPatchEmbedding:
    exercise = "PatchEmbedding"

    @weight(0.5)
    def test_parameters(self, student, seed):
        """The parameters have the names and shapes that the docstring gives them."""
        weights = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D).weights()
        for name, expected in embedding_weights(Draw(seed)).items():
            there = ", ".join(f"`{other}`" for other in weights)
            assert name in weights, f"there is no parameter `{name}`; its parameters are: {there}"
            shaped(weights[name], expected.shape, what=f"`{name}`")

    @weight(1)
    def test_class_token_first(self, student, seed):
        """The first token of every image is the class token, whatever the image shows."""
        draw = Draw(seed)
        weights = embedding_weights(draw) | {"position": torch.zeros(1, 10, D)}
        layer = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D)
        layer.load(weights)
        for b in (4, 1):
            seen = shaped(layer(draw.normal(b, CHANNELS, IMAGE, IMAGE)), (b, 10, D))
            expected = weights["class_token"][:, 0].expand(b, D)
            close(seen[:, 0], expected, "the first token, with all positions 0,")

    @weight(1)
    def test_patches_after_it(self, student, seed):
        """The other tokens are the projected patches, in the order and with the pixels of `patchify`."""
        draw = Draw(seed)
        weights = embedding_weights(draw) | {"position": torch.zeros(1, 10, D)}
        layer = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D)
        layer.load(weights)
        images = draw.normal(4, CHANNELS, IMAGE, IMAGE)
        seen = shaped(layer(images), (4, 10, D))
        unchanged(student)
        expected = embedded(images, weights)[:, 1:].float()
        close(seen[:, 1:], expected, "the tokens of the patches, with all positions 0,", atol=1e-4)

    @weight(1)
    def test_position_of_every_token(self, student, seed):
        """A position is added to every token, to the class token as well."""
        draw = Draw(seed)
        weights = embedding_weights(draw)
        layer = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D)
        images = draw.normal(2, CHANNELS, IMAGE, IMAGE)
        layer.load(weights | {"position": torch.zeros(1, 10, D)})
        without = shaped(layer(images), (2, 10, D))
        layer.load(weights)
        added = shaped(layer(images), (2, 10, D)) - without
        expected = weights["position"].expand(2, 10, D)
        what = "what `position` adds to the class token"
        close(added[:, 0], expected[:, 0], what, atol=1e-4)
        close(added, expected, "what `position` adds to the tokens", atol=1e-4)

    @weight(1)
    def test_gradients(self, student, seed):
        """Gradients reach the class token, the positions, the projection and the images."""
        draw = Draw(seed)
        layer = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D)
        weights = embedding_weights(draw)
        layer.load(weights)
        images = draw.normal(3, CHANNELS, IMAGE, IMAGE).requires_grad_()
        upstream = draw.normal(3, 10, D)
        leaves = layer.weights()
        copies = {name: value.double().requires_grad_() for name, value in weights.items()}
        pixels = images.detach().double().requires_grad_()
        seen = shaped(layer(images), (3, 10, D), torch.float32)
        assert seen.requires_grad, "no gradient flows through the result"
        seen.backward(upstream)
        embedded(pixels, copies).backward(upstream.double())
        for name, leaf in [(f"`{name}`", leaves.get(name)) for name in copies] + [
            ("images", images)
        ]:
            assert leaf is not None, f"there is no parameter {name}"
            assert leaf.grad is not None, f"no gradient reaches {name}"
            right = pixels.grad if name == "images" else copies[name.strip("`")].grad
            close(leaf.grad, right, f"the gradient of {name}", 1e-4, 1e-4, torch.float32)

    @weight(0.5)
    def test_other_sizes(self, student, seed):
        """Other sizes of image and patch and another number of channels work, too."""
        draw = Draw(seed)
        for image, p, c, d in ((4, 4, 2, 5), (3, 1, 1, 7), (8, 2, 1, 3)):
            weights = embedding_weights(draw, image, p, c, d)
            layer = student.PatchEmbedding(image_size=image, patch_size=p, channels=c, d_model=d)
            layer.load(weights)
            images = draw.strided(draw.normal(2, c, image, image))
            what = f"the result for image_size {image}, patch_size {p} and {c} channels"
            close(layer(images), embedded(images, weights, p), what, 1e-4, 1e-4, torch.float32)

    @weight(0.5)
    def test_dtypes(self, student, seed):
        """After `.to(dtype)` the tokens of images in this dtype have it, too."""
        draw = Draw(seed)
        weights = embedding_weights(draw)
        images = draw.normal(2, CHANNELS, IMAGE, IMAGE, dtype=torch.float64)
        for dtype in HALF_AND_DOUBLE:
            layer = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D).to(dtype)
            rounded = {name: value.to(dtype) for name, value in weights.items()}
            layer.load(rounded)
            expected = embedded(images.to(dtype), rounded)
            close(layer(images.to(dtype)), expected, f"the result in {dtype}", dtype=dtype)

    @weight(0.25)
    def test_device(self, student):
        """After a move to another device the layer works on images that are there."""
        layer = student.PatchEmbedding(IMAGE, PATCH, CHANNELS, D)
        images = torch.zeros(2, CHANNELS, IMAGE, IMAGE, device="meta")
        on_meta(lambda: layer.to_empty(device="meta")(images), (2, 10, D))


def vit_weights(draw: Draw, n_layers: int) -> dict[str, Tensor]:
    """Random weights of a `ViT`."""
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


def silent(n_layers: int) -> dict[str, Tensor]:
    """Weights with which no block adds anything."""
    still: dict[str, Tensor] = {}
    for i in range(n_layers):
        for name, width in ((f"blocks.{i}.attention.out", D), (f"blocks.{i}.linear2", 4 * D)):
            still |= {f"{name}.weight": torch.zeros(D, width), f"{name}.bias": torch.zeros(D)}
    return still


def logits_of(images: Tensor, weights: dict[str, Tensor], n_layers: int, heads: int) -> Tensor:
    """What a ViT with these weights says of the images, in float64."""
    w = {name: value.double() for name, value in weights.items()}

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def normed(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (D,), w[f"{name}.weight"], w[f"{name}.bias"])

    def by_head(x: Tensor) -> Tensor:
        return torch.stack(x.chunk(heads, dim=-1), dim=1)

    prefix = "embedding."
    embedding = {n.removeprefix(prefix): v for n, v in w.items() if n.startswith(prefix)}
    x = embedded(images, embedding)
    for i in range(n_layers):
        block = f"blocks.{i}"
        parts = linear(normed(x, f"{block}.norm1"), f"{block}.attention.qkv").chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(*map(by_head, parts))
        x = x + linear(torch.cat(mixed.unbind(1), dim=-1), f"{block}.attention.out")
        hidden = F.gelu(linear(normed(x, f"{block}.norm2"), f"{block}.linear1"))
        x = x + linear(hidden, f"{block}.linear2")
    return linear(normed(x[:, 0], "norm"), "head")


def vit(student, n_layers: int, weights: dict[str, Tensor], heads: int = HEADS) -> RemoteModule:
    """A student's ViT with these weights, in evaluation mode."""
    model = student.ViT(IMAGE, PATCH, CHANNELS, CLASSES, D, heads, n_layers).eval()
    model.load(weights)
    return model


class TestViT:
    exercise = "ViT"

    @weight(0.5)
    def test_blocks(self, student, seed):
        """There are `n_layers` blocks, and each has weights of its own."""
        weights = vit_weights(Draw(seed), 3)
        model = vit(student, 3, weights)
        count = model.length("blocks")
        assert count == 3, f"with n_layers 3 there should be 3 blocks, yours has {count}"
        seen = model.weights()
        for name, value in weights.items():
            what = f"`{name}`, after other weights were loaded into the other blocks,"
            equal(seen[name].detach(), value, what)

    @weight(1)
    def test_class_token_decides(self, student, seed):
        """Logits are read from the class token: where blocks add nothing, it knows no image."""
        draw = Draw(seed)
        model = vit(student, 2, vit_weights(draw, 2) | silent(2))
        images = draw.normal(4, CHANNELS, IMAGE, IMAGE)
        seen = shaped(model(images), (4, CLASSES))
        what = "the logits of other images, where no block adds anything,"
        close(seen[1:], seen[:1].expand(3, CLASSES), what)

    @weight(1)
    def test_last_norm_and_head(self, student, seed):
        """The class token is normed once more after the last block, then goes through the head."""
        draw = Draw(seed)
        weights = vit_weights(draw, 1) | silent(1)
        weights["blocks.0.linear2.bias"] = draw.normal(D, scale=20.0)
        images = draw.normal(2, CHANNELS, IMAGE, IMAGE)
        seen = vit(student, 1, weights)(images)
        what = "the logits, where the block adds the same large vector to every token,"
        close(seen, logits_of(images, weights, 1, HEADS), what, 2e-3, 2e-3, torch.float32)

    @weight(2)
    def test_values(self, student, seed):
        """On copied weights the logits are those of the formula, with 1 and with 3 layers."""
        draw = Draw(seed)
        # GELU has two forms that differ by less than this.
        for n_layers, heads in ((1, 4), (3, 2)):
            weights = vit_weights(draw, n_layers)
            images = draw.strided(draw.normal(3, CHANNELS, IMAGE, IMAGE))
            seen = vit(student, n_layers, weights, heads)(images)
            unchanged(student)
            what = f"the logits with n_layers {n_layers} and n_heads {heads}"
            expected = logits_of(images, weights, n_layers, heads)
            close(seen, expected, what, 1e-2, 1e-2, torch.float32)

    @weight(0.5)
    def test_eps(self, student, seed):
        """The last norm has an eps of 1e-5: it shows where the class token is small."""
        draw = Draw(seed)
        weights = vit_weights(draw, 1) | silent(1)
        for name in ("embedding.class_token", "embedding.position"):
            weights[name] = 2e-3 * weights[name]
        images = draw.normal(2, CHANNELS, IMAGE, IMAGE)
        what = "the logits, where the class token is small and the block adds nothing,"
        expected = logits_of(images, weights, 1, HEADS)
        close(vit(student, 1, weights)(images), expected, what, 1e-3, 1e-3, torch.float32)

    @weight(0.5)
    def test_images_alone(self, student, seed):
        """An image gets the same logits alone, in a batch, and in training mode."""
        draw = Draw(seed)
        model = vit(student, 2, vit_weights(draw, 2))
        images = draw.normal(3, CHANNELS, IMAGE, IMAGE)
        together = shaped(model(images), (3, CLASSES))
        close(model(images[1:2]), together[1:2], "the logits of an image alone", atol=1e-4)
        close(model.train()(images), together, "the logits in train()", atol=1e-4)

    @weight(0.5)
    def test_gradients(self, student, seed):
        """Gradients reach every part: embedding, both blocks, norm and head, and the images."""
        draw = Draw(seed)
        weights = vit_weights(draw, 2)
        model = vit(student, 2, weights)
        images = draw.normal(3, CHANNELS, IMAGE, IMAGE).requires_grad_()
        leaves = model.weights()
        seen = shaped(model(images), (3, CLASSES))
        assert seen.requires_grad, "no gradient flows through the result"
        seen.backward(draw.normal(3, CLASSES))
        reached = {f"`{name}`": leaves[name].grad for name in weights} | {"images": images.grad}
        for name, found in reached.items():
            assert found is not None, f"no gradient reaches {name}"
            finite(found, f"the gradient of {name}")
            assert found.abs().max() > 0, f"no gradient reaches {name}"

    @weight(0.5)
    def test_dtype(self, student, seed):
        """After `.to(torch.bfloat16)` the logits have this dtype, too."""
        draw = Draw(seed)
        weights = vit_weights(draw, 1)
        images = draw.normal(2, CHANNELS, IMAGE, IMAGE, dtype=torch.bfloat16)
        model = student.ViT(IMAGE, PATCH, CHANNELS, CLASSES, D, HEADS, 1).eval().to(torch.bfloat16)
        rounded = {name: value.bfloat16() for name, value in weights.items()}
        model.load(rounded)
        expected = logits_of(images, rounded, 1, HEADS)
        what = "the logits in bfloat16"
        close(model(images), expected, what, 2e-1, 2e-1, torch.bfloat16)


def distances(grid: int, p: int) -> Tensor:
    """Pixels between the centres of any two patches, in float64."""
    centres = [(p * (r + 0.5), p * (c + 0.5)) for r in range(grid) for c in range(grid)]
    places = torch.tensor(centres, dtype=torch.float64)
    return (places[:, None] - places[None]).square().sum(dim=-1).sqrt()


def looked(weights: Tensor, grid: int, p: int) -> Tensor:
    """How far each head looks, in float64."""
    b, _, n, _ = weights.shape
    return torch.einsum("bhij,ij->h", weights.double(), distances(grid, p)) / (b * n)


class TestAttentionDistance:
    exercise = "attention_distance"

    @weight(0.5)
    def test_own_patch(self, student, seed):
        """A head that looks at the query's own patch only has distance 0; there is one number a head."""
        weights = torch.eye(9).expand(2, 4, 9, 9).clone()
        close(student.attention_distance(weights, 3, 5), torch.zeros(4))

    @weight(1)
    def test_straight_line(self, student, seed):
        """The distance is the length of the straight line between the centres, in pixels."""
        draw = Draw(seed)
        p = draw.choice([5, 7, 11])
        # A grid of 3: from patch 1 to itself, below, two below, beside, and like a knight.
        targets = {"1, itself": (1, 0), "4": (4, p), "7": (7, 2 * p), "2": (2, p)}
        targets |= {"6": (6, p * 5**0.5), "3": (3, p * 2**0.5)}
        weights = torch.eye(9).repeat(2, len(targets), 1, 1)
        for head, (key, _) in enumerate(targets.values()):
            weights[:, head, 1] = torch.eye(9)[key]
        seen = student.attention_distance(weights, 3, p)
        seen = shaped(seen, (len(targets),), torch.float32)
        for (key, (_, far)), value in zip(targets.items(), seen.tolist(), strict=True):
            assert abs(value - far / 9) < 1e-3, (
                f"in a grid of 3 with patch_size {p}, query 1 looks at key {key}, and all other 8 "
                f"queries at themselves: the mean should be {far / 9:.4f}, yours is {value:.4f}"
            )

    @weight(0.5)
    def test_rows_of_the_grid(self, student, seed):
        """The last patch of a row and the first of the next one are far from each other."""
        grid, p = 4, 3
        weights = torch.eye(16).reshape(1, 1, 16, 16).clone()
        weights[0, 0, 7] = torch.eye(16)[8]
        expected = torch.tensor([p * 10**0.5 / 16])
        what = "the mean, where query 7 looks at key 8 in a grid of 4, others at themselves,"
        close(student.attention_distance(weights, grid, p), expected, what, atol=1e-4)

    @weight(1)
    def test_weighted_by_attention(self, student, seed):
        """Every distance counts as much as the query attends to that key."""
        draw = Draw(seed)
        grid = draw.choice([3, 4])
        n = grid**2
        weights = draw.normal(1, 1, n, n, scale=2.0).softmax(dim=-1)
        for case, given in (("random", weights), ("equal", torch.full((1, 1, n, n), 1 / n))):
            what = f"the distance for {case} weights in a grid of {grid} with patch_size 5"
            expected = looked(given, grid, 5)
            seen = student.attention_distance(given, grid, 5)
            close(seen, expected, what, 1e-3, 1e-4, torch.float32)
        weights = draw.normal(1, 1, 81, 81, scale=2.0).softmax(dim=-1)
        seen, what = student.attention_distance(weights, 9, 5), "the distance in a grid of 9"
        close(seen, looked(weights, 9, 5), what, 1e-3, 1e-4, torch.float32)

    @weight(1)
    def test_heads_and_batch(self, student, seed):
        """Heads stay apart; queries and images of the batch are averaged."""
        draw = Draw(seed)
        sharp = torch.tensor([0.5, 2.0, 8.0]).reshape(1, 3, 1, 1)
        weights = (draw.normal(5, 3, 4, 4) * sharp).softmax(dim=-1)
        seen = shaped(student.attention_distance(weights, 2, 7), (3,))
        unchanged(student)
        what = "the distance of each of 3 heads, for 5 images,"
        close(seen, looked(weights, 2, 7), what, 1e-3, 1e-4, torch.float32)

    @weight(0.5)
    def test_patch_size(self, student, seed):
        """The result is in pixels: patches of three times the side are three times as far apart."""
        weights = Draw(seed).normal(2, 3, 9, 9).softmax(dim=-1)
        small = shaped(student.attention_distance(weights, grid=3, patch_size=4), (3,))
        large = student.attention_distance(weights, grid=3, patch_size=12)
        close(large, 3 * small, "the distance with patch_size 12, against 4,", atol=1e-4)

    @weight(0.5)
    def test_extremes(self, student, seed):
        """A single patch has distance 0; dtypes stay; weights may lie in memory in any way."""
        draw = Draw(seed)
        close(student.attention_distance(torch.ones(2, 3, 1, 1), 1, 8), torch.zeros(3))
        weights = draw.normal(2, 3, 9, 9, dtype=torch.float64).softmax(dim=-1)
        what = "the distance for weights that are not contiguous"
        seen = student.attention_distance(draw.strided(weights), 3, 2)
        # Distances that are computed in float32 are no mistake.
        close(seen, looked(weights, 3, 2), what, 1e-5, 1e-5)
        for dtype in (torch.float16, torch.bfloat16):
            seen = student.attention_distance(weights.to(dtype), 3, 2)
            expected = looked(weights.to(dtype), 3, 2)
            close(seen, expected, f"the distance in {dtype}", dtype=dtype)

    @weight(0.25)
    def test_device(self, student):
        """The distances are where the weights are."""
        weights = torch.zeros(2, 3, 9, 9, device="meta")
        on_meta(lambda: student.attention_distance(weights, 3, 2), (3,))

    @weight(0.5)
    def test_gradient(self, student, seed):
        """A gradient flows to the weights: what each counts."""
        draw = Draw(seed)
        weights = draw.normal(2, 3, 4, 4).softmax(dim=-1).requires_grad_()
        upstream = draw.normal(3)
        seen = gradient(student.attention_distance(weights, 2, 3), weights, upstream, "the weights")
        expected = upstream.reshape(1, 3, 1, 1) * distances(2, 3).float().expand(2, 3, 4, 4) / 8
        close(seen, expected, "the gradient of the weights", atol=1e-4)


def cka(x: Tensor, y: Tensor) -> Tensor:
    """The same in its other form, in float64: how alike are the similarities of the inputs?"""
    n = len(x)
    centring = torch.eye(n, dtype=torch.float64) - 1 / n
    k, m = (centring @ (z @ z.T) @ centring for z in (x.double(), y.double()))
    return (k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt()


def related(draw: Draw, n: int, d1: int, d2: int) -> tuple[Tensor, Tensor]:
    """Two representations that have something in common, neither of them centred."""
    x = draw.normal(n, d1)
    y = x @ draw.normal(d1, d2, scale=d1**-0.5) + draw.normal(n, d2)
    return x + draw.normal(d1), y + draw.normal(d2)


class TestLinearCka:
    exercise = "linear_cka"

    @weight(1.5)
    def test_values(self, student, seed):
        """The value is that of the formula, for more inputs than features and for fewer."""
        draw = Draw(seed)
        for n, d1, d2 in ((13, 3, 5), (6, 9, 4), (5, 2, 11), (8, 1, 1)):
            x, y = related(draw, n, d1, d2)
            seen = student.linear_cka(x, y)
            unchanged(student)
            what = f"the result for shapes ({n}, {d1}) and ({n}, {d2})"
            close(seen, cka(x, y), what, 1e-4, 1e-4, torch.float32)
        x, y = related(draw, 17, 4, 6)
        x, y = x * draw.mask(17, 4), y * draw.mask(17, 6)
        seen = student.linear_cka(x, y)
        close(seen, cka(x, y), "the result where some features are 0", 1e-4, 1e-4, torch.float32)

    @weight(1)
    def test_itself(self, student, seed):
        """A representation has 1 with itself, and nothing has more than 1 or less than 0."""
        draw = Draw(seed)
        x, y = related(draw, 11, 4, 6)
        close(student.linear_cka(x, x), torch.tensor(1.0), "the result for x and x", atol=1e-4)
        value = float(shaped(student.linear_cka(x, y), ()))
        assert -1e-4 <= value <= 1 + 1e-4, f"the result should lie in [0, 1], yours is {value:.4f}"

    @weight(1)
    def test_added_constants(self, student, seed):
        """A constant added to a column changes nothing: each column is centred."""
        draw = Draw(seed)
        x, y = related(draw, 12, 5, 3)
        expected = cka(x, y)
        for what, a, b in (
            ("x plus a constant a column", x + draw.normal(5, scale=4.0), y),
            ("y plus a constant a column", x, y + draw.normal(3, scale=4.0)),
            ("x and y plus 10", x + 10, y + 10),
        ):
            seen = student.linear_cka(a, b)
            close(seen, expected, f"the result for {what}", 1e-3, 1e-3, torch.float32)

    @weight(0.5)
    def test_rotation(self, student, seed):
        """Turning or mirroring the features changes nothing."""
        draw = Draw(seed)
        x, y = related(draw, 10, 4, 6)
        turn, _ = torch.linalg.qr(draw.normal(6, 6, dtype=torch.float64))
        seen = student.linear_cka(x, y @ turn.float())
        close(seen, cka(x, y), "the result for y turned", 1e-4, 1e-4, torch.float32)

    @weight(0.5)
    def test_scale(self, student, seed):
        """Scaling changes nothing, from 10⁻³ to 10³, of x, of y or of both."""
        draw = Draw(seed)
        x, y = related(draw, 24, 4, 5)
        expected = cka(x, y)
        for a, b in ((1e-3, 1.0), (1.0, 1e3), (1e-3, 1e-3), (1e3, 1e3), (-2.0, 1.0)):
            what = f"the result for {a:g} · x and {b:g} · y"
            seen = student.linear_cka(a * x, b * y)
            close(seen, expected, what, 1e-3, 1e-3, torch.float32)

    @weight(1)
    def test_constant(self, student, seed):
        """An input that is the same for all rows gives 0, not NaN."""
        draw = Draw(seed)
        x, _ = related(draw, 7, 3, 2)
        constants = {f"all {value:g}": torch.full((7, 4), value) for value in (1.0, 2.5, 0.3)}
        constants["one row repeated"] = draw.normal(1, 5).expand(7, 5).clone()
        nothing = torch.tensor(0.0)
        for name, constant in constants.items():
            for what, a, b in ((f"y is {name}", x, constant), (f"x is {name}", constant, x)):
                close(student.linear_cka(a, b), nothing, f"the result where {what}", atol=1e-4)
        seen = student.linear_cka(constants["all 0.3"], torch.full((7, 3), 0.7))
        close(seen, nothing, "the result where x is all 0.3 and y is all 0.7", atol=1e-4)
        # In float64, too, the mean of numbers that are all alike can be another number.
        for n, a, b in ((9, 0.3, 0.7), (11, -0.3, -0.7)):
            constant = (torch.full((n, 4), value, dtype=torch.float64) for value in (a, b))
            what = f"the result where x is all {a} and y is all {b}, {n} inputs in float64,"
            close(student.linear_cka(*constant), nothing.double(), what, atol=1e-4)
        close(student.linear_cka(x[:1], x[:1]), nothing, "the result for a single input")

    @weight(0.5)
    def test_constant_column(self, student, seed):
        """A column that is constant, among others that are not, counts for nothing."""
        draw = Draw(seed)
        x, y = related(draw, 9, 3, 4)
        with_constant = torch.cat([x[:, :1], torch.full((9, 1), 0.3), x[:, 1:]], dim=1)
        what = "the result with a constant column in x"
        seen = student.linear_cka(with_constant, y)
        close(seen, cka(x, y), what, 1e-4, 1e-4, torch.float32)

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """The result has the dtype of the inputs, which may lie in memory in any way."""
        draw = Draw(seed)
        x, y = (z.double() for z in related(draw, 12, 4, 3))
        # What is computed in float32 whatever the dtype is no mistake.
        for dtype, tolerance in zip(HALF_AND_DOUBLE, (1e-5, 2e-2, 1e-1), strict=True):
            a, b = x.to(dtype), y.to(dtype)
            seen = student.linear_cka(a, b)
            close(seen, cka(a, b), f"the result in {dtype}", tolerance, tolerance, dtype)
        seen = student.linear_cka(draw.strided(x), draw.strided(y))
        close(seen, cka(x, y), "the result for inputs that are not contiguous", 1e-5, 1e-5)

    @weight(0.5)
    def test_gradient(self, student, seed):
        """Gradients flow to both inputs."""
        draw = Draw(seed)
        x, y = (z.requires_grad_() for z in related(draw, 8, 3, 4))
        a, b = (z.detach().double().requires_grad_() for z in (x, y))
        cka(a, b).backward()
        for name, leaf, right in (("x", x, a.grad), ("y", y, b.grad)):
            seen = gradient(student.linear_cka(x, y), leaf, torch.tensor(1.0), f"`{name}`")
            close(seen, right, f"the gradient of `{name}`", 1e-3, 1e-3, torch.float32)

    @weight(0.25)
    def test_device(self, student):
        """The result is where the inputs are."""
        x, y = (torch.zeros(5, d, device="meta") for d in (3, 4))
        on_meta(lambda: student.linear_cka(x, y), ())

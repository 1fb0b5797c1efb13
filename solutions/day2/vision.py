# %% [markdown]
# # Vision
#
# *Chapter 4 of 8*
#
# A Transformer reads a sequence of vectors. To turn an image into a sequence, the **Vision
# Transformer** (ViT) cuts it into square patches and reads them like words.
#
# ![An image of 8 by 8 pixels is cut into 16 patches, and a linear map turns each patch into a
# token. A class token is added in front, and each token gets a position embedding. The tokens pass
# through the blocks. The norm and the head turn the class token into logits.](figures/vit.svg)
#
# Locality and translation equivariance (shifting an image shifts the features) are built into a
# convolution; a ViT has to learn them from data. Trained on ImageNet's 1.3 million images, large
# ViTs were worse than convolutional networks. Trained on 300 million images, they were better
# ([Dosovitskiy et al. 2021](https://arxiv.org/abs/2010.11929), section 4.3).
#
# What do ViTs learn? [Raghu et al. 2021](https://arxiv.org/abs/2108.08810) looked inside with two
# tools. **Attention distance** measures how far a head looks; **CKA** measures how similar two
# layers are.

# %%
import copy
import sys
import time

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from tqdm import tqdm

from solutions.opening import (
    demonstration,
    expecting,
    expecting_value_error,
    filled,
    fixed_numbers,
    predict,
    record,
    visible_check,
)

# %% [markdown]
# ## `patchify`
# ★★★☆☆ · 20 minutes
#
# A patch is a square of p × p pixels in all c channels, flattened into one row. The patches are
# ordered like words on a page.
#
# ![An image of 4 by 6 pixels, numbered row by row, is cut into six patches of 2 by 2 pixels. Patch
# 0 contains pixels 0, 1, 6 and 7. Patch 1 contains 2, 3, 8 and 9, and patch 3 contains 12, 13, 18
# and 19. A plain reshape would put pixels 0, 1, 2 and 3 into patch 0.](figures/patches.svg)
#
# $$\underbrace{x}_{b \times c \times H \times W} \;\longrightarrow\;
# \underbrace{y}_{b \times N \times c p^2} \qquad N = \frac{H}{p} \cdot \frac{W}{p}$$
#
# $$y\big[\,i,\; r \tfrac{W}{p} + s,\; (k p + u) p + v\,\big] = x[\,i,\; k,\; r p + u,\; s p + v\,]$$
#
# Here i is the image, (r, s) the position of the patch, (u, v) that of the pixel within it, and k the
# channel.
#
# **The traps.** A single `reshape` to the final shape takes strips of pixels instead of squares,
# without an error. `patch_size` is the side length of a patch in pixels, not the number of patches.


# %%
def patchify(images: Float[Tensor, "b c H W"], patch_size: int) -> Float[Tensor, "b N c*p*p"]:
    """Cut images into square patches, row by row, each flattened in the order (channel, row, column).

    Args:
        images: b images with c channels; H and W can differ.
        patch_size: the side length p of a patch in pixels.

    Returns:
        the N = (H / p) · (W / p) patches of each image.

    Raises:
        ValueError: if H or W is not divisible by `patch_size`. The message names one of them.

    Source: Dosovitskiy et al. (2021), section 3.1.
    """
    ### BEGIN SOLUTION
    b, c, height, width = images.shape
    p = patch_size
    if height % p or width % p:
        raise ValueError(f"H = {height} and W = {width} are not both divisible by patch_size = {p}")
    tiles = images.reshape(b, c, height // p, p, width // p, p)
    # The two axes that index patches come first, followed by the axes within a patch.
    return tiles.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_patchify():
        # The image in the figure.
        image = torch.arange(24.0).reshape(1, 1, 4, 6)
        with expecting("An image of 4 × 6 pixels should give patches of 2 × 2"):
            patches = patchify(image, 2)
        assert patches is not None, "patchify returns None. Does it end with `return`?"
        assert patches.shape == (1, 6, 4), (
            "4 × 6 pixels make 6 patches of 4 pixels, so the shape should be (1, 6, 4); yours is "
            f"{tuple(patches.shape)}."
        )
        for index, expected in ((0, [0, 1, 6, 7]), (1, [2, 3, 8, 9]), (3, [12, 13, 18, 19])):
            seen = patches[0, index]
            assert seen.tolist() == expected, (
                f"Patch {index} of the image in the figure should be {expected}; yours is {seen}."
            )
        # Three channels: the same numbers, with 100 and 200 added.
        channels = torch.cat([image, image + 100, image + 200], dim=1)
        with expecting("An image with three channels should give patches"):
            seen = patchify(channels, 2)[0, 2]
        expected = [4, 5, 10, 11, 104, 105, 110, 111, 204, 205, 210, 211]
        assert seen.tolist() == expected, (
            f"With three channels, patch 2 should be\n{expected}\nyours is\n{seen}"
        )
        for height, width in ((4, 5), (5, 4)):
            case = f"An image of {height} × {width} pixels, with patch_size 2,"
            with expecting_value_error(case, "patch_size", "H", "W", "images"):
                patchify(torch.zeros(1, 1, height, width), 2)
        print("patchify: all visible checks pass.")

    check_patchify()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Work in three steps. First, split axes: H becomes two axes (the row of patches and the row within
# a patch), and so does W. Then permute the six axes to match the formula. Finally, merge the axes
# that belong together. Write down the shape after each step.
# </details>
#
# <details><summary>Hint 2</summary>
#
# After the split, the axes are b, c, r, u, s, v. The result indexes patches by (r, s), and the
# pixels in a patch by (channel, u, v). `permute` takes the new order of the axes; `flatten` or
# `reshape` then merges adjacent axes. (`F.unfold` gives the same numbers with two axes swapped.)
# </details>

# %% [markdown]
# **What to notice.** The patch size determines the cost of attention: halving it gives four times
# as many patches and sixteen times as many pairs.

# %% [markdown]
# ## `unpatchify`
# ★★☆☆☆ · 10 minutes
#
# The diffusion model outputs patches, which have to be reassembled into an image.
#
# $$\underbrace{y}_{b \times N \times c p^2} \;\longrightarrow\;
# \underbrace{x}_{b \times c \times H \times W}
# \qquad \mathrm{unpatchify}(\mathrm{patchify}(x, p),\; p,\; H,\; W) = x$$
#
# **The trap.** The permutation in `patchify` is not its own inverse. Six patches can form 2 rows of
# 3 or 3 rows of 2, so the height and width are arguments.


# %%
def unpatchify(
    patches: Float[Tensor, "b N c*p*p"], patch_size: int, height: int, width: int
) -> Float[Tensor, "b c height width"]:
    """Assemble patches into images of `height` × `width` pixels. This is the inverse of `patchify`.

    Args:
        patches: the N = (height / p) · (width / p) patches of each image, in the order of `patchify`.
        patch_size: the side length p of a patch in pixels.
        height: the height of an image in pixels.
        width: the width of an image in pixels.
    """
    ### BEGIN SOLUTION
    p = patch_size
    rows, columns = height // p, width // p
    tiles = patches.unflatten(1, (rows, columns)).unflatten(3, (-1, p, p))
    by_channel = tiles.permute(0, 3, 1, 4, 2, 5)  # b c rows p columns p
    return by_channel.reshape(len(patches), -1, height, width)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_unpatchify():
        # Two patches with one channel, placed side by side or one below the other.
        patches = torch.tensor([[[1.0, 2, 3, 4], [5, 6, 7, 8]]])
        with expecting("Two patches should form an image of height 2 and width 4"):
            image = unpatchify(patches, 2, height=2, width=4)
        assert image is not None, "unpatchify returns None. Does it end with `return`?"
        assert image.shape == (1, 1, 2, 4), (
            f"Height 2 and width 4 should give the shape (1, 1, 2, 4); yours is {tuple(image.shape)}."
        )
        assert image[0, 0].tolist() == [[1, 2, 5, 6], [3, 4, 7, 8]], (
            "Side by side, the patches 1 2 3 4 and 5 6 7 8 should form\n1 2 5 6\n3 4 7 8\n"
            f"yours form\n{image[0, 0]}"
        )
        with expecting("Two patches should form an image of height 4 and width 2"):
            image = unpatchify(patches, 2, height=4, width=2)
        assert image.shape == (1, 1, 4, 2), (
            f"Height 4 and width 2 should give the shape (1, 1, 4, 2); yours is {tuple(image.shape)}."
        )
        assert image[0, 0].tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]], (
            "One below the other, the patches should form\n1 2\n3 4\n5 6\n7 8\n"
            f"yours form\n{image[0, 0]}"
        )
        square = unpatchify(torch.tensor([[[1.0], [2], [3], [4]]]), 1, height=2, width=2)
        assert square[0, 0].tolist() == [[1, 2], [3, 4]], (
            "Patches of one pixel, 1, 2, 3 and 4, should form an image of height 2 and width 2,\n1 2\n3 4\n"
            f"yours form\n{square[0, 0]}"
        )
        # Two patches with three channels, each filled with one number.
        patches = torch.tensor([7.0, 8, 9]).repeat_interleave(4).repeat(1, 2, 1)
        with expecting(
            "Patches of 12 numbers, with patch_size 2, should form an image with 3 channels",
            "The size of a patch gives the number of channels.",
        ):
            image = unpatchify(patches, 2, height=2, width=4)
        assert image.shape == (1, 3, 2, 4), (
            "A patch of 12 numbers with patch_size 2 has 3 channels, so the shape should be "
            f"(1, 3, 2, 4); yours is {tuple(image.shape)}."
        )
        assert image[0, :, 0, 0].tolist() == [7, 8, 9], (
            f"The channels should be all 7, all 8 and all 9; yours are\n{image[0]}"
        )
        print("unpatchify: all visible checks pass.")

    check_unpatchify()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Undo the steps of `patchify` in reverse order: split the merged axes, permute the axes back, and
# merge the split ones.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Split into b, r, s, channel, u, v. Then order the axes so that (r, u) together index pixel rows
# and (s, v) index pixel columns. One size in a `reshape` may be −1, which torch infers.
# </details>

# %%
if __name__ == "__main__":
    with demonstration():
        # A handwritten digit of 8 × 8 pixels, cut into patches and reassembled in random order.
        one_digit = torch.tensor(load_digits().images[7] / 16).float().reshape(1, 1, 8, 8)
        its_patches = patchify(one_digit, 2)
        disorder = torch.randperm(16, generator=torch.Generator().manual_seed(0))
        shuffled_digit = unpatchify(its_patches[:, disorder], 2, 8, 8)
        figure = plt.figure(figsize=(10, 3.6), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=[2.4, 1])
        for axis, image, title in zip(
            above.subplots(1, 2),
            (one_digit, shuffled_digit),
            ("the image: 8 × 8 pixels", "its patches, shuffled"),
            strict=True,
        ):
            axis.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
            axis.set(title=title, xticks=[1.5, 3.5, 5.5], yticks=[1.5, 3.5, 5.5])
            axis.grid(color="tab:orange")
            axis.tick_params(length=0, labelbottom=False, labelleft=False)
        below.suptitle("what a ViT gets: 16 patches of 2 × 2 pixels")
        for number, axis in enumerate(below.subplots(1, 16)):
            axis.imshow(its_patches[0, number].reshape(2, 2), cmap="gray", vmin=0, vmax=1)
            axis.set(xlabel=f"{number}", xticks=[], yticks=[])
        plt.show()

# %% [markdown]
# **What to notice.** You see a 7; the model gets a sequence of patches. Without positions, it would
# give the same answer for both images.

# %% [markdown]
# ## `PatchEmbedding`
# ★★☆☆☆ · 20 minutes
#
# A linear map turns each patch into a token. The embedding has two more learned parts:
#
# * A **class token** comes first. It is one vector, shared by all images. Block by block, it
#   collects information for the classifier.
# * Every token gets a **position embedding**, because attention ignores the order of its inputs.
#
# $$z = \big[\,\text{class};\; \mathrm{projection}(y_0);\; \dots;\;
# \mathrm{projection}(y_{N-1})\,\big] + \underbrace{E_\text{pos}}_{1 \times (N+1) \times d}
# \qquad \underbrace{z}_{b \times (N+1) \times d} \qquad \underbrace{y_i}_{c p^2}$$
#
# The position embeddings are trained, so the model learns from images which patches are neighbours.
# In the paper, 2D position embeddings gave no improvement (appendix D.4).
#
# **The traps.** The whole batch shares a single class token. Store it once, as a parameter, and
# expand it. There are N + 1 positions, not N.


# %%
class PatchEmbedding(nn.Module):
    """A layer that turns square images into a class token and patch tokens, and adds position embeddings.

    Attributes to define, with N = (image_size / patch_size)²:
        projection: `nn.Linear` from c·p·p to `d_model`, applied to patches in the order of `patchify`.
        class_token: parameter of shape (1, 1, d_model).
        position: parameter of shape (1, N + 1, d_model), added to all tokens.

    Args:
        image_size: the height and width of an image in pixels.
        patch_size: the side length p of a patch in pixels.
        channels: the number of channels c.
        d_model: the number of features per token.

    Source: Dosovitskiy et al. (2021), section 3.1, equation 1.
    """

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        ### BEGIN SOLUTION
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(0.02 * torch.randn(1, n_patches + 1, d_model))
        ### END SOLUTION

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b N+1 d_model"]:
        """Return the tokens of each image. H and W equal `image_size`."""
        ### BEGIN SOLUTION
        patches = self.projection(patchify(images, self.patch_size))  # b N d_model
        class_tokens = self.class_token.expand(len(images), -1, -1)  # b 1 d_model
        return torch.cat([class_tokens, patches], dim=1) + self.position
        ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_PatchEmbedding():
        # Images of 4 × 4 pixels and patches of 2 × 2: 4 patches, 5 positions.
        with expecting(
            "PatchEmbedding(image_size=4, patch_size=2, channels=1, d_model=3) should work"
        ):
            embedding = filled(PatchEmbedding(image_size=4, patch_size=2, channels=1, d_model=3))
        parameters = embedding.named_parameters(remove_duplicate=False)
        shapes = {name: tuple(weight.shape) for name, weight in parameters}
        wanted = {
            "projection.weight": (3, 4),
            "projection.bias": (3,),
            "class_token": (1, 1, 3),
            "position": (1, 5, 3),
        }
        for name, shape in wanted.items():
            assert shapes.get(name) == shape, (
                f"For 4 patches of 4 pixels and d_model 3, the parameter `{name}` should have shape "
                f"{shape}; yours has {shapes.get(name, 'no such parameter')}."
            )
        larger = dict(PatchEmbedding(6, 2, 1, 3).named_parameters(remove_duplicate=False))
        assert larger["position"].shape == (1, 10, 3), (
            "Images of 6 × 6 pixels have 9 patches of 2 × 2 pixels, so `position` should have shape "
            f"(1, 10, 3); yours has {tuple(larger['position'].shape)}."
        )
        with torch.no_grad():
            # The three features are the sum of the patch's pixels, its first pixel, and 1.
            embedding.projection.weight.copy_(
                torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
            )
            embedding.projection.bias.copy_(torch.tensor([0.0, 0, 1]))
            embedding.class_token.fill_(50)
            embedding.position.copy_(torch.arange(1.0, 6).reshape(1, 5, 1) * 100)
        images = torch.stack([torch.arange(16.0).reshape(1, 4, 4), torch.zeros(1, 4, 4)])
        with expecting("A batch of two images should give tokens of shape (2, 5, 3)"):
            tokens = embedding(images)
        assert tokens is not None, "forward returns None. Does it end with `return`?"
        assert tokens.shape == (2, 5, 3), (
            f"Two images should give the shape (2, 5, 3); yours is {tuple(tokens.shape)}."
        )
        assert torch.equal(embedding.eval()(images), tokens), (
            "This layer has no dropout, so training and evaluation mode should give the same tokens; yours "
            "differ."
        )
        for index, image in enumerate(tokens):
            assert image[0].tolist() == [150, 150, 150], (
                "The first token should be the class token (50) plus position 0 (100), which is 150; "
                f"in image {index}, yours is {image[0].detach()}."
            )
        seen = tokens[0, 2].detach()
        assert seen.tolist() == [318, 302, 301], (
            "Patch 1 contains the pixels 2, 3, 6 and 7, which this projection turns into [18, 2, 1]. "
            "The patch is token 2, so position 2 adds 300. The result should be [318, 302, 301]; "
            f"yours is {seen}."
        )
        tokens.sum().backward()
        assert embedding.class_token.grad is not None, (
            "No gradient reaches the class token, so it is never trained. How do you add it?"
        )
        with expecting(
            "2 images with 3 channels should give tokens",
            "Compare the size of `projection` with the docstring.",
        ):
            tokens = PatchEmbedding(4, 2, channels=3, d_model=5)(fixed_numbers(2, 3, 4, 4))
        assert tokens.shape == (2, 5, 5), (
            f"2 images with 3 channels should give the shape (2, 5, 5); yours is {tuple(tokens.shape)}."
        )
        print("PatchEmbedding: all visible checks pass.")

    check_PatchEmbedding()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `nn.Parameter` registers a tensor as a trainable parameter of the module. `forward` needs three
# lines: project the patches, put the class token in front, and add the positions.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.cat` joins tensors along one axis and needs equal sizes along the others. `expand`
# stretches the class token from 1 to the batch size without copying it. The positions broadcast.
# </details>

# %% [markdown]
# **What to notice.** Applying one linear map every p pixels is a convolution with kernel size and
# stride p. Many implementations use `nn.Conv2d` here.

# %% [markdown]
# ## Given: bidirectional attention
#
# The blocks of a ViT are **pre-norm** like GPT's, but without a mask. They are provided for this
# chapter and the next. `SelfAttention` stores the attention weights of its last call.


# %%
class SelfAttention(nn.Module):
    """Multi-head self-attention without a mask.

    Attributes: `qkv` computes queries, keys and values, `out` mixes the heads, and `weights` contains
    the last call's attention weights, of shape `b h n n`.
    """

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model is {d_model}, not divisible by n_heads = {n_heads}")
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.weights: Tensor | None = None

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        query, key, value = (
            part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # b h n d_head
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        scores = query @ key.mT / query.shape[-1] ** 0.5
        weights = scores.softmax(dim=-1)  # b h n n
        self.weights = weights.detach()
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class BidirectionalBlock(nn.Module):
    """A pre-norm block: attention and a feed-forward network, each with a residual connection.

    Attributes: `norm1`, `attention`, `norm2`, `linear1`, `linear2`; the hidden width is 4·d_model.
    """

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model)
        self.attention = SelfAttention(d_model, n_heads)
        self.norm2 = nn.LayerNorm(d_model)
        self.linear1 = nn.Linear(d_model, 4 * d_model)
        self.linear2 = nn.Linear(4 * d_model, d_model)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        x = x + self.attention(self.norm1(x))
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


# %% [markdown]
# ## `ViT`
# ★★☆☆☆ · 15 minutes
#
# The model embeds the patches, applies the blocks, normalises the class token and maps it to one
# logit per class:
#
# $$z_0 = \mathrm{embed}(x) \qquad z_l = \mathrm{block}_l(z_{l-1}), \quad l = 1 \dots L \qquad
# \underbrace{\text{logits}}_{b \times n_\text{classes}}
# = \mathrm{head}\big(\underbrace{\mathrm{norm}(z_L)[:,0]}_{b \times d}\big)$$
#
# **The traps.** A pre-norm block does not normalise its output, so the model needs the final
# `norm`. The blocks do not share parameters. `forward` returns logits, because the loss includes
# softmax.


# %%
class ViT(nn.Module):
    """A Transformer over patches that classifies square images from the class token.

    Attributes to define:
        embedding: a `PatchEmbedding`.
        blocks: `nn.ModuleList` of `n_layers` blocks, each a `BidirectionalBlock`.
        norm: `nn.LayerNorm` after the last block.
        head: `nn.Linear` from `d_model` to `n_classes`.

    Source: Dosovitskiy et al. (2021), section 3.1, equations 1 to 4.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        channels: int,
        n_classes: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
    ):
        super().__init__()
        ### BEGIN SOLUTION
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)
        ### END SOLUTION

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n_classes"]:
        """Return one logit per class, computed from the class token after `norm`."""
        ### BEGIN SOLUTION
        tokens = self.embedding(images)  # b N+1 d_model
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0]))
        ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_ViT():
        with expecting("Creating a ViT for images of 4 × 4 pixels and 3 classes should work"):
            model = filled(ViT(4, 2, channels=1, n_classes=3, d_model=8, n_heads=2, n_layers=2))
        parameters = model.named_parameters(remove_duplicate=False)
        shapes = {name: tuple(weight.shape) for name, weight in parameters}
        wanted = {
            "embedding.class_token": (1, 1, 8),
            "embedding.position": (1, 5, 8),
            "embedding.projection.weight": (8, 4),
            "blocks.0.attention.qkv.weight": (24, 8),
            "blocks.1.linear2.bias": (8,),
            "norm.weight": (8,),
            "head.bias": (3,),
        }
        for name, shape in wanted.items():
            assert shapes.get(name) == shape, (
                f"The parameter `{name}` should have shape {shape}; yours has "
                f"{shapes.get(name, 'no such parameter')}."
            )
        parts = [model.embedding, *model.blocks, model.norm, model.head]
        separate = [weight for part in parts for weight in part.parameters()]
        assert len({*separate}) == len(separate), (
            "The embedding, the blocks, `norm` and `head` should not share parameters; yours do."
        )
        images = fixed_numbers(6, 1, 4, 4)
        with expecting("6 images should give logits of shape (6, 3)"):
            logits = model(images)
        assert logits is not None, "forward returns None. Does it end with `return`?"
        assert logits.shape == (6, 3), (
            f"6 images and 3 classes should give the shape (6, 3); yours is {tuple(logits.shape)}. "
            "The class token is token 0 of each image."
        )
        assert torch.allclose(model.eval()(images), logits, atol=1e-4, equal_nan=True), (
            "This model has no dropout, so training and evaluation mode should give the same logits; yours "
            "differ."
        )
        assert not torch.allclose(logits[0], logits[1]), (
            "Different images should get different logits; yours are equal."
        )
        with torch.no_grad():
            # The logit of class 1 is 3 times the first feature of the norm's output.
            model.head.weight.zero_()
            model.head.weight[1, 0] = 3
            model.head.bias.copy_(torch.tensor([0.5, 0.0, -2.0]))
            # For any input, the norm outputs −4 as the first feature and 1 as the others.
            model.norm.weight.zero_()
            model.norm.bias.fill_(1)
            model.norm.bias[0] = -4
        seen = model(images)[2].detach()
        assert seen.tolist() == [0.5, -12, -2], (
            "If the norm always outputs [−4, 1, 1, …], this head should give [0.5, −12, −2]; "
            f"yours gives {seen}. Is `norm` applied directly before the head, and is the head the last "
            "step?"
        )
        filled(model.norm)
        filled(model.head)
        logits = model(images)
        for number, block in enumerate(model.blocks):
            with torch.no_grad():
                for last in (block.attention.out, block.linear2):
                    last.weight.zero_()
                    last.bias.zero_()
            before, logits = logits, model(images)
            assert not torch.allclose(logits, before), (
                f"If block {number} adds nothing, the logits should change; yours do not. Each block "
                "should read the output of the block before it."
            )
        # Now no block adds anything, so the class token gets no information about the image.
        assert torch.allclose(logits[0], logits[1], atol=1e-6), (
            "If the blocks add nothing, all images have the same class token, so their logits "
            "should be equal. Do you read the logits from a different token?"
        )
        # The class token is (1, 0) and the block adds (0, 1.5). LN maps (1, 1.5) to (−1, 1), and the
        # weight −2 gives (2, −2).
        small = ViT(2, 2, channels=1, n_classes=2, d_model=2, n_heads=1, n_layers=1).eval()
        with torch.no_grad():
            for parameter in small.parameters():
                parameter.zero_()
            small.embedding.class_token.copy_(torch.tensor([1.0, 0]))
            small.blocks[0].linear2.bias.copy_(torch.tensor([0, 1.5]))
            small.norm.weight.fill_(-2)
            small.head.weight.copy_(torch.eye(2))
        seen = small(torch.zeros(1, 1, 2, 2))[0].detach()
        assert torch.allclose(seen, torch.tensor([2.0, -2]), atol=1e-2), (
            "If the class token is (1, 0) and the only block adds (0, 1.5), `norm` with the weight −2 "
            f"should give (2, −2), and so should this head; yours gives {seen}. What does each block "
            "read, and how often do you apply `norm`?"
        )
        print("ViT: all visible checks pass.")

    check_ViT()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `__init__` needs one line per attribute, and `forward` needs four lines. Call `BidirectionalBlock`
# once for each layer.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `nn.ModuleList` accepts a generator expression. In `forward`, the class token has index 0 on the
# second axis. LayerNorm treats each token separately, so you can select the class token before or
# after the norm.
# </details>

# %% [markdown]
# **What to notice.** Averaging the patch tokens instead of reading the class token works equally
# well, but requires a different learning rate (appendix D.3).

# %% [markdown]
# ## `attention_distance`
# ★★★☆☆ · 15 minutes
#
# At each pixel, a 3 × 3 convolution sees only neighbouring pixels. An attention head can attend to
# patches at any distance. To measure how far a head looks, average the distance from the query's
# patch to each key's patch, weighted by attention:
#
# ![A grid of 3 by 3 patches with the query in the middle of the left column. Each patch shows its
# distance from the query: 0 for the query itself, p for its direct neighbours, and √5·p in the
# right corners. The patch size is p. A local head and a global head weight these distances
# differently.](figures/attention-distance.svg)
#
# $$\underbrace{D_k}_{k = 0 \dots h-1} = \frac1{b N} \sum_{a=0}^{b-1} \sum_{i=0}^{N-1}
# \sum_{j=0}^{N-1} \underbrace{A_{akij}}_{b \times h \times N \times N}
# \; p\, \lVert g_i - g_j \rVert$$
#
# Here $g_i$ is the row and column of patch i, counted in patches, and p is the patch size.
#
# **The traps.** Patches 2 and 3 of a 3 × 3 grid are neighbours in the sequence, but not in the
# image. The result is one number per head, in pixels.


# %%
def attention_distance(
    weights: Float[Tensor, "b h N N"], grid: int, patch_size: int
) -> Float[Tensor, "h"]:
    """Return the mean distance from query to key for each head, weighted by attention.

    Args:
        weights: attention from patches to patches, without the class token; each row sums to 1.
        grid: the number of patches in a row of the square image; N = grid².
        patch_size: the side length of a patch in pixels.

    Returns:
        for each head, the straight-line distance in pixels between the centres of the query's and
        the key's patch, averaged over queries and images.

    Source: Raghu et al. (2021), "Local and Global Information in Layer Representations";
        Dosovitskiy et al. (2021), appendix D.7.
    """
    ### BEGIN SOLUTION
    places = torch.arange(grid, device=weights.device) * patch_size
    centres = torch.cartesian_prod(places, places).float()  # N 2, up to a constant
    distances = (centres.unsqueeze(1) - centres).norm(dim=-1)  # N N
    per_query = (weights * distances.to(weights.dtype)).sum(dim=-1)  # b h N
    return per_query.mean(dim=(0, 2))
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_attention_distance():
        # A grid of 2 × 2 patches of 3 pixels: neighbours are 3 pixels apart, opposite corners 4.2426.
        own = torch.eye(4)
        corner = own.flip(0)  # patch 0 looks at patch 3, patch 1 at patch 2, and vice versa
        below = own[[2, 3, 0, 1]]  # the patch above or below
        weights = torch.stack([own, corner, below]).unsqueeze(0)
        with expecting("Weights of shape (1, 3, 4, 4) on a grid of 2 × 2 should give 3 distances"):
            distance = attention_distance(weights, grid=2, patch_size=3)
        assert distance is not None, "attention_distance returns None. Does it end with `return`?"
        assert distance.shape == (3,), (
            f"Three heads should give the shape (3,); yours is {tuple(distance.shape)}."
        )
        expected = torch.tensor([0.0, 4.2426, 3.0])
        assert torch.allclose(distance, expected, atol=1e-3), (
            "With patches of 3 pixels, heads that look at their own patch, at the opposite corner and "
            f"at the patch above or below should get\n{expected}\nyours get\n{distance}"
        )
        # In one image, the head looks at the corner; in the other, at its own patch and below.
        both = torch.stack([corner, (own + below) / 2]).unsqueeze(1)
        distance = attention_distance(both, grid=2, patch_size=3)
        assert torch.allclose(distance, torch.tensor([2.8713]), atol=1e-3), (
            "The head averages 4.2426 in one image and 1.5 in the other, so the result should be 2.8713; "
            f"yours is {distance}."
        )
        # In a grid of 3 × 3, patches 2 and 3 are at opposite ends of two rows.
        ends = torch.zeros(1, 1, 9, 9)
        ends[..., 3] = torch.eye(9)[2]  # query 2 looks at key 3
        ends = ends + torch.diag(1 - torch.eye(9)[2])  # all other queries look at themselves
        distance = attention_distance(ends, grid=3, patch_size=9).item()
        assert abs(distance - 2.2361) < 1e-3, (
            "In a 3 × 3 grid of patches of 9 pixels, query 2 looks at key 3, which is √5 patches "
            "away. The other 8 queries look at themselves. The mean should be √5 = 2.2361 pixels; "
            f"yours is {distance:.4f}."
        )
        print("attention_distance: all visible checks pass.")

    check_attention_distance()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# First compute the N × N matrix of distances; it depends only on the grid. The row and column of
# patch i are the quotient and the remainder of i divided by `grid`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# If `coordinates` has the shape `N 2`, then `coordinates.unsqueeze(1) - coordinates` has the shape
# `N N 2`. Multiply weights and distances elementwise, sum over the keys, and average over queries
# and batch, but not over heads.
# </details>

# %% [markdown]
# **What to notice.** A head that splits its attention between near and far patches can have the
# same mean distance as one that attends uniformly.

# %% [markdown]
# ## `linear_cka`
# ★★★☆☆ · 20 minutes
#
# For the same n images, let X and Y be the outputs of two layers, with one row per image. You
# cannot compare their features one by one: they have no common order, and the widths may differ.
# But linear **centred kernel alignment** (CKA) measures how well two layers agree on which images
# are similar.
#
# ![Two layers process the same four images. For each layer, a 4 by 4 matrix contains the dot
# products between all pairs of images. CKA compares these two matrices, which have the same size
# although the layers have different widths.](figures/cka.svg)
#
# $$\mathrm{CKA}(X, Y) = \frac{\lVert X^\top Y \rVert_F^2}
# {\lVert X^\top X \rVert_F \, \lVert Y^\top Y \rVert_F}
# \qquad \underbrace{X}_{n \times d_1}, \; \underbrace{Y}_{n \times d_2}
# \text{ with the mean of each column subtracted}$$
#
# $\lVert M \rVert_F$ is the square root of the sum of the squared entries. The numerator is the dot
# product of the two n × n matrices in the figure. CKA is 1 if Y is a rotated and scaled copy of X,
# and 0 if their features are uncorrelated.
#
# Work in four steps: centre both matrices, set rounding errors to 0, compute the three norms, and
# return 0 if the denominator is 0.
#
# **The traps.** Take the mean over the images. Square only the numerator. A layer with the same
# output for every image should give 0, but the formula gives 0/0. Rounding hides this: centring
# seven copies of 0.3 leaves 3·10⁻⁸. Use a threshold relative to the original entry, because the
# error grows with it.


# %%
def linear_cka(x: Float[Tensor, "n d1"], y: Float[Tensor, "n d2"]) -> Float[Tensor, ""]:
    """Return the linear centred kernel alignment (CKA) of two representations of the same n inputs.

    Args:
        x: d1 features per input, one input per row.
        y: d2 features per input, one input per row.

    Returns:
        a number in [0, 1], up to rounding. It does not change if x or y is rotated, scaled (by 10⁻³ to
        10³), or shifted by a constant per column. It is 0 if all rows of x or of y are equal.

    Source: Kornblith et al. (2019), section 3.
    """
    ### BEGIN SOLUTION

    def centred(features: Tensor) -> Tensor:
        features = features.double()
        deviations = features - features.mean(dim=0)
        # In a constant column, rounding errors are all that remains. They are not deviations.
        return deviations.masked_fill(deviations.abs() <= 1e-12 * features.abs(), 0)

    a, b = centred(x), centred(y)
    scale = (a.T @ a).norm() * (b.T @ b).norm()
    return ((a.T @ b).norm() ** 2 / scale.clamp_min(1e-100)).to(x.dtype)  # a constant: 0 / 1e-100
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_linear_cka():
        # Four inputs; x has two uncorrelated features, y is the second one.
        x = torch.tensor([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]])
        y = x[:, 1:]
        # XᵀY = (0, 4), XᵀX = diag(16, 4), YᵀY = (4): 16 / (√272 · 4)
        with expecting("Two matrices with 4 rows should give a number"):
            similarity = linear_cka(x, y)
        assert similarity is not None, "linear_cka returns None. Does it end with `return`?"
        assert isinstance(similarity, Tensor), (
            f"The result should be a tensor; yours is a {type(similarity).__name__}. Do you call "
            "`item`?"
        )
        assert similarity.shape == (), (
            f"The result should be a scalar; yours has the shape {tuple(similarity.shape)}."
        )
        assert abs(similarity - 0.24254) < 1e-4, (
            f"CKA of\n{x}\nand its second column should be 16 / (√272 · 4) = 0.2425; yours is "
            f"{similarity:.4f}."
        )
        assert abs(linear_cka(x[:, :1], y)) < 1e-4, (
            f"Uncorrelated features should give 0; yours give {linear_cka(x[:, :1], y):.4f}."
        )
        turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
        for what, other in {
            "itself": x,
            "a rotated copy": x @ turn,
            "itself divided by 1000": x / 1000,
            "itself plus (5, −3)": x + torch.tensor([5.0, -3.0]),
        }.items():
            similarity = linear_cka(other, x)
            assert abs(similarity - 1) < 1e-4, (
                f"CKA of x and {what} should be 1; yours is {similarity:.4f}."
            )
        similarity = linear_cka(x / 1000, y / 1000)
        assert abs(similarity - 0.24254) < 1e-4, (
            f"Dividing x and y by 1000 should leave the result at 0.2425; yours is {similarity:.4f}."
        )
        similarity = linear_cka(y, x + torch.tensor([5.0, -3.0]))
        assert abs(similarity - 0.24254) < 1e-4, (
            f"Adding (5, −3) to x should leave the result at 0.2425; yours is {similarity:.4f}."
        )
        # Seven inputs: in float32, the mean of seven copies of 0.3 is not exactly 0.3.
        varied = fixed_numbers(7, 2)
        for value in (0.3, 700.7):
            for pair in (
                (varied, torch.full((7, 3), value)),
                (torch.full((7, 3), value), torch.full((7, 2), value)),
            ):
                similarity = linear_cka(*pair)
                assert isinstance(similarity, Tensor), (
                    "For a constant input, the result should also be a tensor; yours is a "
                    f"{type(similarity).__name__}."
                )
                assert abs(similarity) < 1e-3, (
                    f"A constant input (all {value}) should give 0; yours gives {similarity:.4f}. "
                    "What is left of it after centring?"
                )
        print("linear_cka: all visible checks pass.")

    check_linear_cka()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The images are on axis 0, so take the mean over axis 0. `norm()` of a matrix is the square root of
# the sum of its squared entries. Which of the three norms is squared?
# </details>
#
# <details><summary>Hint 2</summary>
#
# Compute in float64. After centring, set to 0 each deviation whose magnitude is less than, say,
# 10⁻¹² times that of the original entry. If the denominator is 0, so is the numerator: return 0, or
# divide by a tiny positive number.
# </details>

# %% [markdown]
# ## Who needs more data?
#
# scikit-learn includes 1,797 handwritten digits of 8 × 8 pixels; 450 are held out. You train your ViT
# and a small residual network (CNN) on 50, 200 and all 1,347 training digits. Each image is slightly
# rotated, scaled and shifted every time it is used. Logistic regression is the baseline.

# %% tags=["support"]
VIT_STEPS, CNN_STEPS, DIGIT_BATCH = 800, 200, 64
DIGIT_VIT = {
    "image_size": 8,
    "patch_size": 2,
    "channels": 1,
    "n_classes": 10,
    "d_model": 64,
    "n_heads": 4,
    "n_layers": 4,
}


def jittered(images: Float[Tensor, "b 1 H W"]) -> Float[Tensor, "b 1 H W"]:
    """Rotate each image by up to 0.2 radians, scale it by up to 10% and shift it by up to 0.4 pixels."""
    angle, zoom, right, down = torch.rand(4, len(images)) * 2 - 1
    cos = (1 + 0.1 * zoom) * (0.2 * angle).cos()
    sin = (1 + 0.1 * zoom) * (0.2 * angle).sin()
    rows = torch.stack([cos, -sin, 0.1 * right, sin, cos, 0.1 * down], dim=-1).reshape(-1, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions with batch normalisation and a residual connection."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, padding=1),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, padding=1),
            nn.BatchNorm2d(n_out),
        )
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Float[Tensor, "b n_in H W"]) -> Float[Tensor, "b n_out H2 W2"]:
        return F.relu(self.shortcut(x) + self.convolutions(x))


def small_resnet() -> nn.Sequential:
    """Return a residual network whose three blocks reduce 8 × 8 pixels to 2 × 2."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        ResidualBlock(16, 16, 1),
        ResidualBlock(16, 32, 2),
        ResidualBlock(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


@torch.no_grad()
def fraction_correct(
    model: nn.Module, images: Float[Tensor, "b 1 H W"], labels: Int[Tensor, "b"]
) -> float:
    """Return the fraction of images that `model` classifies correctly."""
    model.eval()
    right = model(images).argmax(dim=-1) == labels
    model.train()
    return right.float().mean().item()


def train_classifier(
    model: nn.Module, n_steps: int, images: Float[Tensor, "n 1 8 8"], labels: Int[Tensor, "n"]
) -> None:
    """Train `model` on jittered images."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=n_steps, pct_start=0.1
    )
    name = f"{type(model).__name__}, {len(images)} digits"
    for _ in tqdm(range(n_steps), desc=name, mininterval=0.5, file=sys.stdout):
        chosen = torch.randint(len(images), (DIGIT_BATCH,))
        loss = F.cross_entropy(model(jittered(images[chosen])), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def compare_classifiers(
    sizes: tuple[int, ...], training: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], seed: int
) -> tuple[dict[str, list[float]], dict[str, nn.Module]]:
    """Train each kind of model on the first digits of the training set, for several sizes of this set.

    Return each model's test accuracy for each size, and the ViT and the CNN that were trained last.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    start = time.perf_counter()
    torch.manual_seed(seed)
    accuracy, models = {"CNN": [], "ViT": [], "logistic regression": []}, {}
    for size in sizes:
        images, labels = (part[:size] for part in training)
        models = {"CNN": small_resnet(), "ViT": ViT(**DIGIT_VIT)}
        for name, n_steps in (("CNN", CNN_STEPS), ("ViT", VIT_STEPS)):
            train_classifier(models[name], n_steps, images, labels)
            accuracy[name].append(fraction_correct(models[name], *test))
        regression = LogisticRegression(max_iter=5000).fit(images.flatten(1), labels)
        accuracy["logistic regression"].append(regression.score(test[0].flatten(1), test[1]))
    torch.set_num_threads(threads)
    record("seconds to train six models", time.perf_counter() - start)
    return accuracy, models


# %%
if __name__ == "__main__":
    predict(
        "Order these classifiers by accuracy after training on 50 digits. Which is best?",
        ...,
        order=["CNN", "ViT", "logistic regression"],
    )

# %%
if __name__ == "__main__":
    with demonstration():
        digits = load_digits()
        digit_split = train_test_split(
            torch.tensor(digits.images / 16).float().unsqueeze(1),
            torch.tensor(digits.target),
            stratify=digits.target,
            random_state=0,
        )
        digit_training, digit_test = digit_split[::2], digit_split[1::2]
        training_sizes = (50, 200, len(digit_training[0]))
        digit_accuracy, digit_models = compare_classifiers(
            training_sizes, digit_training, digit_test, seed=0
        )

# %%
if __name__ == "__main__":
    with demonstration():
        predict.reveal(
            "Order these classifiers by accuracy after training on 50 digits. Which is best?",
            sorted(digit_accuracy, key=lambda name: -digit_accuracy[name][0]),
        )
        figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
        for name, values in digit_accuracy.items():
            axis.plot(training_sizes, values, "o-", label=name)
            for size, value in zip(training_sizes, values, strict=True):
                record(f"test accuracy, {name}, {size} digits", value)
        axis.set(title="held-out digits", xlabel="training digits", ylabel="accuracy")
        axis.set_xscale("log")
        axis.set_xticks(training_sizes, training_sizes)
        axis.minorticks_off()
        axis.legend()
        plt.show()

# %% [markdown]
# **What to notice.** The CNN wins at every size, with fewer than half of the ViT's parameters and a
# quarter of its training steps (seeds 0 to 2):
#
# |training digits|50|200|1,347|
# |---|---|---|---|
# |CNN|85–87%|95–96%|98–99%|
# |ViT|78–79%|93–95%|96–97%|
# |logistic regression|77%|93%|97%|
#
# Locality and translation equivariance are built into the CNN. The ViT has to learn from the data
# which patches are neighbours, so the fewer the data, the larger the gap.
#
# Where does the class token look? In the next figure, brightness shows how much attention it
# pays to each patch, averaged over the heads of each block.


# %%
def attention_weights(
    model: nn.Module, images: Float[Tensor, "b 1 H W"]
) -> list[Float[Tensor, "b h N+1 N+1"]]:
    """Return the attention weights of each block for `images`."""
    with torch.no_grad():
        model(images)
    return [block.attention.weights for block in model.blocks]


# %%
if __name__ == "__main__":
    with demonstration():
        torch.manual_seed(0)
        shown = digit_test[0][:4]
        columns = {"untrained,\nblock 1": attention_weights(ViT(**DIGIT_VIT), shown)[0]}
        for depth, weights in enumerate(attention_weights(digit_models["ViT"], shown), 1):
            columns[f"trained,\nblock {depth}"] = weights
        figure, axes = plt.subplots(4, 1 + len(columns), figsize=(9, 6), layout="constrained")
        axes[0, 0].set_title("the digit")
        for axis, image in zip(axes[:, 0], shown, strict=True):
            axis.imshow(image[0], cmap="gray")
        for column, (title, weights) in zip(axes.T[1:], columns.items(), strict=True):
            column[0].set_title(title)
            to_patches = weights[:, :, 0, 1:].mean(dim=1).unflatten(1, (4, 4))
            for axis, image, looked in zip(column, shown, to_patches, strict=True):
                picture = axis.imshow(looked, extent=(-0.5, 7.5, 7.5, -0.5), vmin=0, vmax=0.2)
                axis.contour(image[0], levels=[0.5], colors="white", linewidths=1)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
        figure.colorbar(
            picture, ax=axes, label="attention of the class token", shrink=0.6, extend="max"
        )
        plt.show()

# %% [markdown]
# **What to notice.** Before training, every patch gets about 1/17 of the attention. After training,
# many but not all of the bright patches lie on a stroke: empty space is also informative.

# %% [markdown]
# ### Your experiment: switch off heads
#
# First, the attention distance of each head, without the class token (each row of weights is
# rescaled to sum to 1). Uniform attention gives 4.0 pixels. Our heads average 3.3 to 4.3 (seeds 0 to
# 2), so none of them is local.


# %%
if __name__ == "__main__":
    with demonstration():
        among = [w[:, :, 1:, 1:] for w in attention_weights(digit_models["ViT"], digit_test[0])]
        head_distances = torch.stack(
            [attention_distance(w / w.sum(dim=-1, keepdim=True), 4, 2) for w in among]
        )
        everywhere = attention_distance(torch.full((1, 1, 16, 16), 1 / 16), 4, 2).item()
        print("attention distance in pixels\n         head 0  head 1  head 2  head 3")
        for number, row in enumerate(head_distances.tolist()):
            print(f"block {number}" + "".join(f"{distance:8.2f}" for distance in row))
        record("attention distance in pixels, uniform attention", everywhere)

# %% [markdown]
# Now choose which heads to switch off. How many can the ViT do without?

# %%
if __name__ == "__main__":
    predict("What percentage of the test digits will the ViT get right without your heads?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        heads_off = [(0, 0), (1, 2)]  # (block, head), counted from 0

        pruned = copy.deepcopy(digit_models["ViT"])
        for block, head in heads_off:
            # `out` reads 16 features from each head.
            pruned.blocks[block].attention.out.weight.data[:, 16 * head : 16 * (head + 1)] = 0
        predict.reveal(
            "What percentage of the test digits will the ViT get right without your heads?",
            100 * fraction_correct(pruned, *digit_test),
        )
        print(f"with all heads: {100 * fraction_correct(digit_models['ViT'], *digit_test):.1f}%")

# %% [markdown]
# ### CKA, layer by layer
# *Further · 5 minutes*
#
# CKA compares layers of both models with each other and with the labels (as one-hot vectors). A
# layer's features are its outputs at all tokens or pixels.


# %% tags=["support"]
@torch.no_grad()
def layer_outputs(
    model: nn.Module, layers: list[nn.Module], images: Float[Tensor, "n c H W"]
) -> list[Float[Tensor, "n columns"]]:
    """Return each layer's output for `images`, with one row per image."""
    outputs = []
    # After each call of a layer, torch calls the layer's hook with the output.
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output.flatten(1)))
        for layer in layers
    ]
    model.eval()
    model(images)
    for hook in hooks:
        hook.remove()
    return outputs


# %%
if __name__ == "__main__":
    predict(
        "Whose last block will be more similar to the labels?",
        ...,
        one_of=["the ViT's", "the CNN's"],
    )

# %%
if __name__ == "__main__":
    with demonstration():
        torch.manual_seed(0)
        fresh_models = {"CNN": small_resnet(), "ViT": ViT(**DIGIT_VIT)}
        names = [
            "embed",
            *(f"block {i}" for i in range(4)),
            "conv",
            *(f"block {i}" for i in range(3)),
        ]
        similarity = {}
        for when, models in (("untrained", fresh_models), ("trained", digit_models)):
            vit, cnn = models["ViT"], models["CNN"]
            layers = layer_outputs(vit, [vit.embedding, *vit.blocks], digit_test[0])
            layers += layer_outputs(cnn, list(cnn[:4]), digit_test[0])
            layers += [F.one_hot(digit_test[1]).float()]
            similarity[when] = torch.tensor([[linear_cka(x, y) for y in layers] for x in layers])
        *_, last_of_vit, _, _, _, last_of_cnn, _ = similarity["trained"][-1].tolist()
        predict.reveal(
            "Whose last block will be more similar to the labels?",
            "the ViT's" if last_of_vit > last_of_cnn else "the CNN's",
        )
        figure, axes = plt.subplots(1, 2, figsize=(12, 5.5), layout="constrained", sharey=True)
        for axis, (when, matrix) in zip(axes, similarity.items(), strict=True):
            image = axis.imshow(matrix, cmap="magma", vmin=0, vmax=1)
            for row, values in enumerate(matrix.tolist()):
                for column, value in enumerate(values):
                    ink = "black" if value > 0.6 else "white"
                    axis.text(
                        column, row, f"{value:.2f}", ha="center", va="center", color=ink, size=7
                    )
            axis.set(title=f"{when}: ViT (5 layers), CNN (4 layers), labels")
            axis.set_xticks(range(10), [*names, "labels"], rotation=90)
            axis.set_yticks(range(10), [*names, "labels"])
        figure.colorbar(image, ax=axes, label="linear CKA", shrink=0.8)
        plt.show()
        for when, matrix in similarity.items():
            record(f"CKA with the labels, last block of the ViT, {when}", matrix[-1, 4].item())
            record(f"CKA with the labels, last block of the CNN, {when}", matrix[-1, 8].item())
            record(f"CKA between the first layers of ViT and CNN, {when}", matrix[0, 5].item())

# %% [markdown]
# **What to notice.** The first layers of both models are nearly the same (0.97–0.98, seeds 0 to 2):
# both apply one linear map everywhere. Training makes the last block of the CNN similar to the labels
# (0.36 before, 0.83–0.85 after). The ViT's changes less (0.49 before, 0.56–0.74 after): its head reads
# only one of 17 tokens.

# %% [markdown]
# **Read.** [Dosovitskiy et al. 2021](https://arxiv.org/abs/2010.11929), sections 3.1 and 4.5.
# [Raghu et al. 2021](https://arxiv.org/abs/2108.08810), figures 1 to 4. [Kornblith et al.
# 2019](https://arxiv.org/abs/1905.00414), section 3: CKA. [Weng, The Transformer Family
# v2](https://lilianweng.github.io/posts/2023-01-27-the-transformer-family-v2/), "Positional
# Encoding".
#
# **Discuss.**
#
# 1. A ViT was trained on images of 224 × 224 pixels. Which parameters do not fit images of 448 ×
#    448 pixels, and how much more does attention cost?
# 2. All layers of a model have a CKA of 0.99 with each other. Are the upper layers useless?
#
# <details><summary>Answers</summary>
#
# 1. Only the position embeddings. With 16 × 16 patches, there are 785 tokens instead of 197, so the
#    position embeddings are interpolated (Dosovitskiy et al., section 3.2). There are four times as
#    many patches, so the attention scores cost sixteen times as much, and the linear layers four
#    times as much.
# 2. Not necessarily. CKA is dominated by the directions in which the images differ most. A change
#    in other directions, or in the class token alone, hardly affects it but can decide the class.
#    Remove a layer and measure the accuracy.
# </details>

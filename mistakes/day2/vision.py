# %%
# ruff: noqa: F811 (each cell is a whole, wrong solution of its exercise)
import torch
import torch.nn.functional as F
from torch import Tensor, nn


# %% patchify: reshaped in one go
# minRF issue 6, gupta-abhay/pytorch-vit issue 7, Latte issue 132, lightly PR 119
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """The shape is right, but a patch here is a strip of pixels that follow each other in memory.
    Look at which pixels of the image lie in one square."""
    b, c, height, width = images.shape
    p = patch_size
    if height % p or width % p:
        raise ValueError(f"H ({height}) and W ({width}) are not divisible by patch_size ({p})")
    return images.reshape(b, -1, c * p * p)


# %% patchify: strips in each channel
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """The channels are together, but within a channel a patch here is p·p pixels in a row instead
    of a square. Look at how many axes H and W become."""
    b, c, height, width = images.shape
    p = patch_size
    if height % p or width % p:
        raise ValueError(f"H ({height}) and W ({width}) are not divisible by patch_size ({p})")
    strips = images.reshape(b, c, -1, p * p)
    return strips.transpose(1, 2).reshape(b, -1, c * p * p)


# %% patchify: the channel last
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """The patches are right, but within a patch all channels of a pixel follow each other here.
    Look at the order (channel, row, column)."""
    b, c, height, width = images.shape
    p = patch_size
    if height % p or width % p:
        raise ValueError(f"H ({height}) and W ({width}) are not divisible by patch_size ({p})")
    tiles = images.reshape(b, c, height // p, p, width // p, p)
    return tiles.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, c * p * p)


# %% patchify: columns before rows inside
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """The patches stand in the right order, but each one is flattened column by column. Look at
    which of row and column runs faster."""
    b, c, height, width = images.shape
    p = patch_size
    if height % p or width % p:
        raise ValueError(f"H ({height}) and W ({width}) are not divisible by patch_size ({p})")
    tiles = images.reshape(b, c, height // p, p, width // p, p)
    return tiles.permute(0, 2, 4, 1, 5, 3).reshape(b, -1, c * p * p)


# %% patchify: patches column by column
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """The patches themselves are right, but they are counted from top to bottom here. Look at the
    order in which one reads."""
    b, c, height, width = images.shape
    p = patch_size
    if height % p or width % p:
        raise ValueError(f"H ({height}) and W ({width}) are not divisible by patch_size ({p})")
    tiles = images.reshape(b, c, height // p, p, width // p, p)
    return tiles.permute(0, 4, 2, 1, 3, 5).reshape(b, -1, c * p * p)


# %% patchify: the channel before the patches
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """The patches of channel 0 come first here, then those of channel 1, and some of them share a
    row. Look at which axes count patches, and which lie inside one."""
    b, c, height, width = images.shape
    p = patch_size
    if height % p or width % p:
        raise ValueError(f"H ({height}) and W ({width}) are not divisible by patch_size ({p})")
    tiles = images.reshape(b, c, height // p, p, width // p, p)
    return tiles.permute(0, 1, 2, 4, 3, 5).reshape(b, -1, c * p * p)


# %% patchify: patch_size taken for the number of patches
# timm issue 773
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """The image is cut into patch_size × patch_size patches here. Look at what patch_size counts:
    pixels."""
    b, c, height, width = images.shape
    p = patch_size
    if height % p or width % p:
        raise ValueError(f"H ({height}) and W ({width}) are not divisible by patch_size ({p})")
    rows, columns = height // p, width // p
    tiles = images.reshape(b, c, p, rows, p, columns)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(b, p * p, c * rows * columns)


# %% patchify: square images only
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """This is right for square images only: as many patches are counted across as down. Look at
    what H and W each decide."""
    b, c, height, width = images.shape
    p = patch_size
    if height % p or width % p:
        raise ValueError(f"H ({height}) and W ({width}) are not divisible by patch_size ({p})")
    side = height // p
    tiles = images[..., : side * p, : side * p].reshape(b, c, side, p, side, p)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * p * p)


# %% patchify: surplus pixels dropped
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Where H or W is not divisible by patch_size, the pixels that are left over vanish here
    without a word. Look at what the exercise asks for in this case."""
    p = patch_size
    return F.unfold(images.double(), p, stride=p).mT.to(images.dtype)


# %% patchify: only H checked
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """A height that is not divisible is refused, a width that is not divisible is not. Look at both
    sides of the image."""
    p, height = patch_size, images.shape[2]
    if height % p:
        raise ValueError(f"H ({height}) is not divisible by patch_size ({p})")
    return F.unfold(images.double(), p, stride=p).mT.to(images.dtype)


# %% patchify: the number of pixels checked
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """What is checked here is whether the number of pixels is divisible by that of a patch, and 2 ×
    8 pixels pass for a patch of 4 × 4. Look at each side by itself."""
    p, (height, width) = patch_size, images.shape[2:]
    if height * width % (p * p):
        raise ValueError(f"H · W ({height * width}) is not divisible by patch_size² ({p * p})")
    return F.unfold(images.double(), p, stride=p).mT.to(images.dtype)


# %% patchify: an assertion instead of a ValueError
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Where H or W is not divisible, something other than a ValueError is raised here. Look at
    which error is asked for; assertions are gone under `python -O`."""
    b, c, height, width = images.shape
    p = patch_size
    assert height % p == 0, "H is not divisible by patch_size"
    assert width % p == 0, "W is not divisible by patch_size"
    tiles = images.reshape(b, c, height // p, p, width // p, p)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * p * p)


# %% patchify: patches as columns
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """The numbers are right, but every patch is a column of the result here instead of a row. Look
    at the order of the axes: first N, then the c·p·p numbers of a patch."""
    p, (height, width) = patch_size, images.shape[2:]
    if height % p or width % p:
        raise ValueError(f"H ({height}) and W ({width}) are not divisible by patch_size ({p})")
    return F.unfold(images.double(), p, stride=p).to(images.dtype)


# %% patchify: patches that overlap
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """A patch begins at every pixel here, so that patches overlap and there are too many of them.
    Look at how far it is from one patch to the next."""
    p, (height, width) = patch_size, images.shape[2:]
    if height % p or width % p:
        raise ValueError(f"H ({height}) and W ({width}) are not divisible by patch_size ({p})")
    return F.unfold(images.double(), p).mT.to(images.dtype)


# %% patchify: an error that names nothing
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """The right error is raised, but its message names none of the arguments or axes that are at
    odds. Look at what would help someone who reads it."""
    b, c, height, width = images.shape
    p = patch_size
    if height % p or width % p:
        raise ValueError("not divisible")
    tiles = images.reshape(b, c, height // p, p, width // p, p)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * p * p)


# %% patchify: axes of size 1 dropped
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Axes of size 1 are missing from the result here: a batch of one image loses its first axis.
    Look at what shape is asked for when b, or N, is 1."""
    b, c, height, width = images.shape
    p = patch_size
    if height % p or width % p:
        raise ValueError(f"H ({height}) and W ({width}) are not divisible by patch_size ({p})")
    tiles = images.reshape(b, c, height // p, p, width // p, p)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * p * p).squeeze()


# %% patchify: always float32
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """The numbers are right, but the result is float32 whatever the images are. Look at the dtype
    of the tensor that you fill or return."""
    b, c, height, width = images.shape
    p = patch_size
    if height % p or width % p:
        raise ValueError(f"H ({height}) and W ({width}) are not divisible by patch_size ({p})")
    patches = torch.zeros(b, height // p * (width // p), c * p * p)
    for number in range(patches.shape[1]):
        top, left = number // (width // p) * p, number % (width // p) * p
        patches[:, number] = images[:, :, top : top + p, left : left + p].flatten(1)
    return patches


# %% unpatchify: reshaped in one go
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The shape is right, but the pixels of a patch here lie in a row instead of a square. Look at
    where the second row of a patch belongs in the image."""
    p = patch_size
    b, _, numbers = patches.shape
    c = numbers // p**2
    return patches.reshape(b, c, height, width)


# %% unpatchify: the order of patchify again
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The axes are put into the order that takes an image to its patches, not into the one that
    leads back. Look at the inverse of that order, on paper."""
    p = patch_size
    b, _, numbers = patches.shape
    c = numbers // p**2
    tiles = patches.reshape(b, height // p, width // p, c, p, p)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(b, c, height, width)


# %% unpatchify: height and width exchanged
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The number of patches in a row is taken from the height here, and that in a column from the
    width. Look at an image that is not square."""
    p = patch_size
    b, _, numbers = patches.shape
    c = numbers // p**2
    tiles = patches.reshape(b, width // p, height // p, c, p, p)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(b, c, height, width)


# %% unpatchify: patches column by column
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The patches fill the image from top to bottom here. Look at the order in which one reads."""
    p = patch_size
    b, _, numbers = patches.shape
    c = numbers // p**2
    tiles = patches.reshape(b, width // p, height // p, c, p, p)
    return tiles.permute(0, 3, 2, 4, 1, 5).reshape(b, c, height, width)


# %% unpatchify: columns before rows inside
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """Each patch lies in its place but is mirrored along its diagonal. Look at which of row and
    column runs faster within a patch."""
    p = patch_size
    b, _, numbers = patches.shape
    c = numbers // p**2
    tiles = patches.reshape(b, height // p, width // p, c, p, p)
    return tiles.permute(0, 3, 1, 5, 2, 4).reshape(b, c, height, width)


# %% unpatchify: the channel last in a patch
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The channels are taken for the last axis of a patch here, so that colours and pixels get
    mixed. Look at the order (channel, row, column)."""
    p = patch_size
    b, _, numbers = patches.shape
    c = numbers // p**2
    tiles = patches.reshape(b, height // p, width // p, p, p, c)
    return tiles.permute(0, 5, 1, 3, 2, 4).reshape(b, c, height, width)


# %% unpatchify: rows and columns of pixels not interleaved
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """Here the rows of patches and the rows inside them are not brought together: u counts before
    r. Look at which of the two runs faster down the image."""
    p = patch_size
    b, _, numbers = patches.shape
    c = numbers // p**2
    tiles = patches.reshape(b, height // p, width // p, c, p, p)
    return tiles.permute(0, 3, 4, 1, 5, 2).reshape(b, c, height, width)


# %% unpatchify: a square grid of patches
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The patches are laid out as a square of √N × √N here, whatever height and width are. Look at
    what these two say."""
    p = patch_size
    b, _, numbers = patches.shape
    c = numbers // p**2
    side = round(patches.shape[1] ** 0.5)
    tiles = patches[:, : side * side].reshape(b, side, side, c, p, p)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(b, c, side * p, side * p)


# %% unpatchify: three channels always
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """This is right for images of three channels only. Look at how the number of channels follows
    from the length of a patch."""
    p, b, c = patch_size, len(patches), 3
    tiles = patches.reshape(b, height // p, width // p, c, p, p)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(b, c, height, width)


# %% unpatchify: the channel last in the image
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The pixels are in their places, but the channels are the last axis of the image here. Look at
    the shape `b c height width`."""
    p = patch_size
    b, _, numbers = patches.shape
    c = numbers // p**2
    tiles = patches.reshape(b, height // p, width // p, c, p, p)
    return tiles.permute(0, 1, 4, 2, 5, 3).reshape(b, height, width, c)


# %% unpatchify: always float32
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The pixels are in their places, but the image is float32 whatever the patches are. Look at
    the dtype of the tensor that you fill or return."""
    p = patch_size
    b, _, numbers = patches.shape
    c = numbers // p**2
    image = torch.zeros(b, c, height, width)
    for number in range(patches.shape[1]):
        top, left = number // (width // p) * p, number % (width // p) * p
        image[:, :, top : top + p, left : left + p] = patches[:, number].reshape(b, c, p, p)
    return image


# %% unpatchify: rows read as columns
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The patches are read as if they stood in columns, `b c·p·p N`, so that the numbers of one
    patch are scattered over several. A reshape gives the other shape, but moves no number: look at
    how two axes change places."""
    p = patch_size
    b, count, numbers = patches.shape
    columns = patches.reshape(b, numbers, count).double()
    return F.fold(columns, (height, width), p, stride=p).to(patches.dtype)


# %% unpatchify: an image of width × height
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The image has `width` rows and `height` columns here, and the patches fill it row by row.
    Look at which of the two comes first in the shape of an image."""
    p = patch_size
    b, _, numbers = patches.shape
    c = numbers // p**2
    tiles = patches.reshape(b, width // p, height // p, c, p, p)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(b, c, width, height)


# %% unpatchify: mirrored along the diagonal
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The whole image is mirrored along its diagonal here: what should be a row is a column. Look
    at which of the last two axes of an image counts rows."""
    p = patch_size
    b, _, numbers = patches.shape
    c = numbers // p**2
    tiles = patches.reshape(b, height // p, width // p, c, p, p)
    return tiles.permute(0, 3, 2, 5, 1, 4).reshape(b, c, width, height)


# %% PatchEmbedding: the class token last
class PatchEmbedding(nn.Module):
    """The class token comes after the patches here. Look at which end of the sequence it should
    stand."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        class_tokens = self.class_token.expand(len(images), -1, -1)
        return torch.cat([patches, class_tokens], dim=1) + self.position


# %% PatchEmbedding: no position for the class token
# labml PR 221
class PatchEmbedding(nn.Module):
    """The class token gets no position here. Look at what is added to what, and in which order."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        class_tokens = self.class_token.expand(len(images), -1, -1)
        return torch.cat([class_tokens, patches + self.position[:, 1:]], dim=1)


# %% PatchEmbedding: the positions moved by one
class PatchEmbedding(nn.Module):
    """The patches get the positions from 0 on here, and the class token gets the last one. Look at
    which token stands at which place."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        class_tokens = self.class_token.expand(len(images), -1, -1)
        return torch.cat([class_tokens, patches], dim=1) + self.position.roll(1, dims=1)


# %% PatchEmbedding: no positions
class PatchEmbedding(nn.Module):
    """No positions are added here, so a shuffled image would be the same. Look at the last step of
    the formula."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        class_tokens = self.class_token.expand(len(images), -1, -1)
        return torch.cat([class_tokens, patches], dim=1)


# %% PatchEmbedding: only N positions
class PatchEmbedding(nn.Module):
    """There is a position for every patch here, but none for the class token. Look at the shape of
    `position`."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        class_tokens = self.class_token.expand(len(images), -1, -1)
        return torch.cat([class_tokens, patches + self.position], dim=1)


# %% PatchEmbedding: no class token
class PatchEmbedding(nn.Module):
    """The tokens here are those of the patches only. Look at how many tokens there should be."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        return patches + self.position[:, 1:]


# %% PatchEmbedding: a class token that does not learn
class PatchEmbedding(nn.Module):
    """The numbers are right, but no gradient reaches the class token here, so it would stay as it
    was. Look at how it gets into the sequence."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        class_tokens = self.class_token.detach().expand(len(images), -1, -1)
        return torch.cat([class_tokens, patches], dim=1) + self.position


# %% PatchEmbedding: a class token for the first image only
# research_implementations issue 2, x-transformers issue 146
class PatchEmbedding(nn.Module):
    """The class token reaches the first image of a batch here, and the others get zeros. Look at
    what one token becomes for b images."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        class_tokens = torch.zeros_like(patches[:, :1])
        class_tokens[:1] += self.class_token
        return torch.cat([class_tokens, patches], dim=1) + self.position


# %% PatchEmbedding: pixels in the order of memory
class PatchEmbedding(nn.Module):
    """The pixels that are projected together here follow each other in memory and are not those of
    one square patch. Look at what cuts the images."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        strips = images.reshape(len(images), self.position.shape[1] - 1, -1)
        patches = self.projection(strips)
        class_tokens = self.class_token.expand(len(images), -1, -1)
        return torch.cat([class_tokens, patches], dim=1) + self.position


# %% PatchEmbedding: a projection without a bias
class PatchEmbedding(nn.Module):
    """The projection has no bias here. Look at what holds for every `nn.Linear` where nothing else
    is said."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model, bias=False)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        class_tokens = self.class_token.expand(len(images), -1, -1)
        return torch.cat([class_tokens, patches], dim=1) + self.position


# %% PatchEmbedding: a class token without its extra axes
class PatchEmbedding(nn.Module):
    """The class token has the shape (d_model,) here. Look at the shapes that the docstring gives to
    the parameters."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        class_tokens = self.class_token.expand(len(images), -1, -1)
        return torch.cat([class_tokens, patches], dim=1) + self.position


# %% PatchEmbedding: the class token added to all tokens
class PatchEmbedding(nn.Module):
    """The class token stands in front, but it is added to every patch as well here. Look at what is
    added to the patches."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        class_tokens = self.class_token.expand(len(images), -1, -1)
        return torch.cat([class_tokens, patches + class_tokens], dim=1) + self.position


# %% PatchEmbedding: one class token for any batch
class PatchEmbedding(nn.Module):
    """This works for a single image and fails for more. There is one class token and there are b
    images: look at the first axis of what is joined."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        return torch.cat([self.class_token, patches], dim=1) + self.position


# %% PatchEmbedding: a convolution for the projection
class PatchEmbedding(nn.Module):
    """`projection` has the weight of a convolution here, with four axes. That can give the same
    numbers, but weights as the docstring describes them do not fit into it. Look at the kind of
    layer that it names."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Conv2d(channels, d_model, patch_size, stride=patch_size)
        self.class_token = nn.Parameter(torch.randn(1, 1, d_model))
        self.position = nn.Parameter(torch.randn(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(images).flatten(2).mT
        class_tokens = self.class_token.expand(len(images), -1, -1)
        return torch.cat([class_tokens, patches], dim=1) + self.position


# %% PatchEmbedding: the patches of one row counted
class PatchEmbedding(nn.Module):
    """There are positions here for the patches of one row of the image and the class token. Look at
    how many patches the whole image has."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = image_size // patch_size
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        class_tokens = self.class_token.expand(len(images), -1, -1)
        return torch.cat([class_tokens, patches], dim=1) + self.position


# %% PatchEmbedding: the channel last in a patch
class PatchEmbedding(nn.Module):
    """The patches stand in the right order, but within a patch all channels of a pixel follow each
    other here. Look at the order in which `patchify` flattens a patch."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        b, p = len(images), self.patch_size
        tiles = images.unflatten(3, (-1, p)).unflatten(2, (-1, p))
        patches = self.projection(tiles.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2))
        class_tokens = self.class_token.expand(b, -1, -1)
        return torch.cat([class_tokens, patches], dim=1) + self.position


# %% PatchEmbedding: a class token that is no parameter
class PatchEmbedding(nn.Module):
    """There is no parameter `class_token` here, and an optimiser is given parameters only. Look at
    what makes a tensor of a module one of its parameters."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.register_buffer("class_token", torch.randn(1, 1, d_model))
        self.position = nn.Parameter(torch.randn(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        class_tokens = self.class_token.expand(len(images), -1, -1)
        return torch.cat([class_tokens, patches], dim=1) + self.position


# %% ViT: the mean of all tokens
class ViT(nn.Module):
    """The logits here are read from the mean of all tokens. Look at which token the head should
    see."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens).mean(dim=1))


# %% ViT: the mean of the patches
class ViT(nn.Module):
    """The logits here are read from the mean of the patches, and the class token is left out. Look
    at which token the head should see."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 1:]).mean(dim=1))


# %% ViT: the last token
class ViT(nn.Module):
    """The logits here are read from the last token. Look at where the class token stands."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, -1]))


# %% ViT: no norm after the last block
class ViT(nn.Module):
    """What the last block gives goes into the head as it is. Look at what a pre-norm model needs at
    its end."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[:, 0])


# %% ViT: the norm before the blocks
class ViT(nn.Module):
    """The norm acts on the embedded tokens here, before the blocks. Look at where the formula has
    it."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.norm(self.embedding(images))
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[:, 0])


# %% ViT: the norm after every block
class ViT(nn.Module):
    """The norm acts after every block here. Look at how often it stands in the formula."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = self.norm(block(tokens))
        return self.head(tokens[:, 0])


# %% ViT: one block many times
class ViT(nn.Module):
    """All blocks here are the same one, so there is one set of weights. Look at how often a block
    is made."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList([BidirectionalBlock(d_model, n_heads)] * n_layers)
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0]))


# %% ViT: only the first block
class ViT(nn.Module):
    """The blocks are all there, but only the first of them is run. Look at the loop in
    `forward`."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            seen = block(tokens)
            break
        return self.head(self.norm(seen[:, 0]))


# %% ViT: every block sees the embedding
class ViT(nn.Module):
    """Every block here is given the embedded tokens, so only the last one counts. Look at what a
    block is given and what becomes of its result."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            seen = block(tokens)
        return self.head(self.norm(seen[:, 0]))


# %% ViT: a further residual around the blocks
class ViT(nn.Module):
    """The input of a block is added once more to its result here. Look at what the block does by
    itself."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = tokens + block(tokens)
        return self.head(self.norm(tokens[:, 0]))


# %% ViT: probabilities instead of logits
class ViT(nn.Module):
    """The result here sums to 1 over the classes. Look at what the loss expects."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0])).softmax(dim=-1)


# %% ViT: logits of every token
class ViT(nn.Module):
    """There are logits for every token here. Look at the shape of the result."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens))


# %% ViT: one head always
class ViT(nn.Module):
    """The blocks have one head here, whatever `n_heads` is. Look at the arguments of the blocks."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, 1) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0]))


# %% ViT: blocks in a plain list
class ViT(nn.Module):
    """There are `n_layers` blocks, but their weights are not among the parameters of the model, so
    that no optimiser would train them. Look at the kind of list that holds them."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = [BidirectionalBlock(d_model, n_heads) for _ in range(n_layers)]
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0]))


# %% ViT: one block too few
class ViT(nn.Module):
    """There is one block fewer here than `n_layers` says. Look at how many of them you make."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(
            BidirectionalBlock(d_model, n_heads) for _ in range(1, n_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0]))


# %% ViT: a single image without its axis
class ViT(nn.Module):
    """The logits of a batch of one image have lost their first axis here. Look at what happens to
    axes of size 1."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0])).squeeze()


# %% ViT: eps 1e-6
class ViT(nn.Module):
    """The last norm has a smaller eps than 1e-5 here, such as the 1e-6 of many ViTs; small numbers
    show it. Look at which eps `nn.LayerNorm` has by itself."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model, eps=1e-6)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0]))


# %% attention_distance: counted in patches
# google-research/vision_transformer issue 162
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """The distance here is in patches. Look at the unit that is asked for."""
    places = torch.arange(grid, device=weights.device)
    centres = torch.cartesian_prod(places, places).to(weights.dtype)
    distances = (centres.unsqueeze(1) - centres).norm(dim=-1)
    return (weights * distances).sum(dim=-1).mean(dim=(0, 2))


# %% attention_distance: along rows and columns
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """The distance here is that of a walk along rows and columns. Look at the straight line between
    two centres."""
    places = torch.arange(grid, device=weights.device) * patch_size
    centres = torch.cartesian_prod(places, places).to(weights.dtype)
    distances = (centres.unsqueeze(1) - centres).abs().sum(dim=-1)
    return (weights * distances).sum(dim=-1).mean(dim=(0, 2))


# %% attention_distance: the larger of the two steps
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """The distance here is the larger of the steps down and across. Look at the straight line
    between two centres."""
    places = torch.arange(grid, device=weights.device) * patch_size
    centres = torch.cartesian_prod(places, places).to(weights.dtype)
    distances = (centres.unsqueeze(1) - centres).abs().amax(dim=-1)
    return (weights * distances).sum(dim=-1).mean(dim=(0, 2))


# %% attention_distance: without the root
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """The squares of the distances are averaged here. Look at whether the root is taken, and
    when."""
    places = torch.arange(grid, device=weights.device) * patch_size
    centres = torch.cartesian_prod(places, places).to(weights.dtype)
    distances = (centres.unsqueeze(1) - centres).square().sum(dim=-1)
    return (weights * distances).sum(dim=-1).mean(dim=(0, 2))


# %% attention_distance: the root after the mean
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """Here the squares of the distances are averaged, and the root is taken of the mean. Look at
    what is averaged."""
    places = torch.arange(grid, device=weights.device) * patch_size
    centres = torch.cartesian_prod(places, places).to(weights.dtype)
    distances = (centres.unsqueeze(1) - centres).square().sum(dim=-1)
    return (weights * distances).sum(dim=-1).mean(dim=(0, 2)).sqrt()


# %% attention_distance: the patches in one line
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """The patches are taken for a line here: the last one of a row is next to the first one of the
    next. Look at the row and the column of a patch."""
    places = torch.arange(grid * grid, device=weights.device).to(weights.dtype) * patch_size
    distances = (places.unsqueeze(1) - places).abs()
    return (weights * distances).sum(dim=-1).mean(dim=(0, 2))


# %% attention_distance: the strongest key only
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """What is averaged here is the distance to the key with the largest weight. Look at how much
    every key counts."""
    places = torch.arange(grid, device=weights.device) * patch_size
    centres = torch.cartesian_prod(places, places).to(weights.dtype)
    distances = (centres.unsqueeze(1) - centres).norm(dim=-1)
    return (
        distances.gather(1, weights.argmax(-1).reshape(-1, grid * grid).T)
        .T.reshape(weights.shape[:3])
        .mean(dim=(0, 2))
    )


# %% attention_distance: all keys alike
# google-research/vision_transformer issue 162
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """Every key counts the same here, whatever the weights are. Look at what the weights are
    for."""
    places = torch.arange(grid, device=weights.device) * patch_size
    centres = torch.cartesian_prod(places, places).to(weights.dtype)
    distances = (centres.unsqueeze(1) - centres).norm(dim=-1)
    return distances.mean().expand(weights.shape[1]) + 0 * weights.sum(dim=(0, 2, 3))


# %% attention_distance: the mean over keys
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """The weighted distances are averaged over the keys here, as if the weights did not sum to 1
    already. Look at which axes are summed and which are averaged."""
    places = torch.arange(grid, device=weights.device) * patch_size
    centres = torch.cartesian_prod(places, places).to(weights.dtype)
    distances = (centres.unsqueeze(1) - centres).norm(dim=-1)
    return (weights * distances).mean(dim=(0, 2, 3))


# %% attention_distance: the sum over queries
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """The distances of all queries are added up here. Look at which axes are summed and which are
    averaged."""
    places = torch.arange(grid, device=weights.device) * patch_size
    centres = torch.cartesian_prod(places, places).to(weights.dtype)
    distances = (centres.unsqueeze(1) - centres).norm(dim=-1)
    return (weights * distances).sum(dim=(2, 3)).mean(dim=0)


# %% attention_distance: one number for all heads
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """All heads are averaged into one number here. Look at the shape of the result."""
    places = torch.arange(grid, device=weights.device) * patch_size
    centres = torch.cartesian_prod(places, places).to(weights.dtype)
    distances = (centres.unsqueeze(1) - centres).norm(dim=-1)
    return (weights * distances).sum(dim=-1).mean()


# %% attention_distance: a row for every image
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """There is a row for every image here. Look at the shape of the result."""
    places = torch.arange(grid, device=weights.device) * patch_size
    centres = torch.cartesian_prod(places, places).to(weights.dtype)
    distances = (centres.unsqueeze(1) - centres).norm(dim=-1)
    return (weights * distances).sum(dim=-1).mean(dim=2)


# %% attention_distance: always float32
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """The result is float32 here, whatever the dtype of the weights. Look at the dtype that is
    expected."""
    places = torch.arange(grid, device=weights.device) * patch_size
    centres = torch.cartesian_prod(places, places).float()
    distances = (centres.unsqueeze(1) - centres).norm(dim=-1)
    return (weights.float() * distances).sum(dim=-1).mean(dim=(0, 2))


# %% attention_distance: float32 for half precision
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """Weights in half precision give a float32 result here, which float32 and float64 do not show.
    Look at the dtype of a product of two dtypes."""
    places = torch.arange(grid, device=weights.device) * patch_size
    centres = torch.cartesian_prod(places, places).float()
    distances = (centres.unsqueeze(1) - centres).norm(dim=-1)
    return (weights * distances).sum(dim=-1).mean(dim=(0, 2))


# %% attention_distance: distances on the CPU
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """The numbers are right, but tensors of two devices meet here where the weights are not on the
    CPU. Look at where your own tensors are made."""
    places = torch.arange(grid) * patch_size
    centres = torch.cartesian_prod(places, places).to(weights.dtype)
    distances = (centres.unsqueeze(1) - centres).norm(dim=-1)
    return (weights * distances).sum(dim=-1).mean(dim=(0, 2))


# %% attention_distance: the sum over images
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """The distances of all images are added up here, so that a larger batch looks further. Look at
    which axes are summed and which are averaged."""
    places = torch.arange(grid, device=weights.device) * patch_size
    centres = torch.cartesian_prod(places, places).to(weights.dtype)
    distances = (centres.unsqueeze(1) - centres).norm(dim=-1)
    return (weights * distances).sum(dim=-1).mean(dim=2).sum(dim=0)


# %% attention_distance: patch_size patches in a row
def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """The patches are laid out here as if a row had `patch_size` of them. Look at which number says
    how many patches stand in a row."""
    number = torch.arange(grid * grid, device=weights.device)
    places = torch.stack([number // patch_size, number % patch_size], dim=-1) * patch_size
    centres = places.to(weights.dtype)
    distances = (centres.unsqueeze(1) - centres).norm(dim=-1)
    return (weights * distances).sum(dim=-1).mean(dim=(0, 2))


# %% linear_cka: not centred
# dmarx/cka issue 2
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """The features are not centred here, so what all inputs have in common counts as similarity.
    Look at the first step."""
    a, b = x, y
    if _constant(x) or _constant(y):
        return (x.sum() + y.sum()) * 0
    scale = (a.T @ a).norm() * (b.T @ b).norm()
    return (a.T @ b).norm() ** 2 / scale


def _constant(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# %% linear_cka: only x centred
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """The result changes here where a constant is added to a column of y. Look at what is
    centred."""
    a, b = x - x.mean(dim=0), y
    if _constant(x) or _constant(y):
        return (x.sum() + y.sum()) * 0
    scale = (a.T @ a).norm() * (b.T @ b).norm()
    return (a.T @ b).norm() ** 2 / scale


def _constant(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# %% linear_cka: the mean over everything
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """One mean is subtracted from all features here. Look at which axis the mean runs over."""
    a, b = x - x.mean(), y - y.mean()
    if _constant(x) or _constant(y):
        return (x.sum() + y.sum()) * 0
    scale = (a.T @ a).norm() * (b.T @ b).norm()
    return (a.T @ b).norm() ** 2 / scale


def _constant(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# %% linear_cka: rows centred
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """The mean of every row is subtracted here, that is, over the features of an input. Look at
    which axis holds the inputs."""
    a, b = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
    if _constant(x) or _constant(y):
        return (x.sum() + y.sum()) * 0
    scale = (a.T @ a).norm() * (b.T @ b).norm()
    return (a.T @ b).norm() ** 2 / scale


def _constant(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# %% linear_cka: the numerator not squared
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """The result depends on the scale of the inputs here. Look at the powers above and below the
    line."""
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    if _constant(x) or _constant(y):
        return (x.sum() + y.sum()) * 0
    scale = (a.T @ a).norm() * (b.T @ b).norm()
    return (a.T @ b).norm() / scale


def _constant(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# %% linear_cka: the denominator squared
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """The result depends on the scale of the inputs here: all three norms are squared. Look at the
    powers above and below the line."""
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    if _constant(x) or _constant(y):
        return (x.sum() + y.sum()) * 0
    scale = (a.T @ a).norm() ** 2 * (b.T @ b).norm() ** 2
    return (a.T @ b).norm() ** 2 / scale


def _constant(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# %% linear_cka: the root of it
# netrep PR 19 had it the other way round: a root was missing
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """The result here is the root of the right one. Look at the powers above and below the line."""
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    if _constant(x) or _constant(y):
        return (x.sum() + y.sum()) * 0
    scale = (a.T @ a).norm() * (b.T @ b).norm()
    return (a.T @ b).norm() / scale.sqrt()


def _constant(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# %% linear_cka: the largest singular value for the norm
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """The norm of a matrix here is its largest singular value. Look at which norm the formula has:
    the root of the sum of all squares."""
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    if _constant(x) or _constant(y):
        return (x.sum() + y.sum()) * 0
    scale = torch.linalg.matrix_norm(a.T @ a, 2) * torch.linalg.matrix_norm(b.T @ b, 2)
    return torch.linalg.matrix_norm(a.T @ b, 2) ** 2 / scale


def _constant(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# %% linear_cka: columns brought to variance 1
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Every column is divided by its standard deviation here, so that a small feature counts as
    much as a large one. Look at what is done to a column."""
    if _constant(x) or _constant(y):
        return (x.sum() + y.sum()) * 0
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    a, b = a / a.std(dim=0), b / b.std(dim=0)
    return (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())


def _constant(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# %% linear_cka: features turned with inputs
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """The features of x are matched with those of y by their places here. That fails where x and y
    have different numbers of features, and is wrong elsewhere, since features have no order. Look
    at which feature meets which in XᵀY."""
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    if _constant(x) or _constant(y):
        return (x.sum() + y.sum()) * 0
    scale = (a @ a.T).norm() * (b @ b.T).norm()
    return (a @ b.T).norm() ** 2 / scale


def _constant(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# %% linear_cka: 0/0 for a constant
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """A constant input gives NaN here. Look at what is left of it after centring, and at what it is
    divided by."""
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    return (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())


# %% linear_cka: a constant recognised by an exact 0
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Not every constant input gives 0 here: of a column of 0.3 rounding leaves something, which is
    divided by something as small. Look at what centring leaves of it, and at how you notice that it
    is nothing."""
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    scale = (a.T @ a).norm() * (b.T @ b).norm()
    if scale == 0:
        return (x.sum() + y.sum()) * 0
    return (a.T @ b).norm() ** 2 / scale


# %% linear_cka: a small number added below
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Small inputs give a smaller result here: what is added below the line does not shrink with
    them. Look at x and y times 10⁻³."""
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    return (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm() + 1e-8)


# %% linear_cka: the norms of x and y below the line
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """The product is divided by the squared norms of X and Y themselves here, so that x does not
    have 1 with itself. Look at which matrices have their norms below the line."""
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    if _constant(x) or _constant(y):
        return (x.sum() + y.sum()) * 0
    return (a.T @ b).norm() ** 2 / (a.norm() ** 2 * b.norm() ** 2)


def _constant(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# %% linear_cka: changes x and y
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """The values are right, but the caller's x and y are centred afterwards. Look for an operation
    that works in place."""
    if _constant(x) or _constant(y):
        return (x.sum() + y.sum()) * 0
    x -= x.mean(dim=0)
    y -= y.mean(dim=0)
    return (x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())


def _constant(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# %% linear_cka: small inputs taken for constants
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Small inputs give 0 here, as if they were constant. Look at x and y times 10⁻³, and at what a
    leftover of rounding should be compared with."""
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    scale = (a.T @ a).norm() * (b.T @ b).norm()
    if scale < 1e-6:
        return (x.sum() + y.sum()) * 0
    return (a.T @ b).norm() ** 2 / scale


# %% linear_cka: no gradients
@torch.no_grad()
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """The values are right, but no gradient flows back to x and y. Look for what cuts the result
    off from them."""
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    if _constant(x) or _constant(y):
        return (x.sum() + y.sum()) * 0
    return (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())


def _constant(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# %% linear_cka: always float64
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """The values are right, but the result is float64 whatever the inputs are. Look at the dtype of
    what you return."""
    a, b = x.double() - x.double().mean(dim=0), y.double() - y.double().mean(dim=0)
    if _constant(x) or _constant(y):
        return (a.sum() + b.sum()) * 0
    return (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())


def _constant(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# %% linear_cka: a matrix for centring on the CPU
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """The numbers are right, but tensors of two devices meet here where x and y are not on the CPU.
    Look at where your own tensors are made."""
    centring = torch.eye(len(x), dtype=torch.float64) - 1 / len(x)

    def centred(features: Tensor) -> Tensor:
        features = features.double()
        deviations = centring @ features
        return deviations.masked_fill(deviations.abs() <= 1e-12 * features.abs().amax(dim=0), 0)

    a, b = centred(x), centred(y)
    scale = (a.T @ a).norm() * (b.T @ b).norm()
    return ((a.T @ b).norm() ** 2 / scale.clamp_min(1e-100)).to(x.dtype)


# %% patchify: no gradients
def patchify(images: Tensor, patch_size: int) -> Tensor:
    """The values are right, but no gradient gets through. Look at `detach`, `data` and numpy: what
    leaves torch leaves the graph."""
    p = patch_size
    b, c, h, w = images.shape
    if h % p or w % p:
        raise ValueError("height and width of images have to be divisible by patch_size")
    cut = images.detach().reshape(b, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(b, -1, c * p**2)


# %% unpatchify: no gradients
def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The values are right, but no gradient gets through. Look at `detach`, `data` and numpy: what
    leaves torch leaves the graph."""
    p = patch_size
    b, _, numbers = patches.shape
    laid = patches.detach().reshape(b, height // p, width // p, numbers // p**2, p, p)
    return laid.permute(0, 3, 1, 4, 2, 5).reshape(b, -1, height, width)


# %% PatchEmbedding: patches get their position twice
class PatchEmbedding(nn.Module):
    """The position is added to the patches, and once more to all tokens here. Look at how often
    each row of `position` is used."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size)) + self.position[:, 1:]
        class_tokens = self.class_token.expand(len(images), -1, -1)
        return torch.cat([class_tokens, patches], dim=1) + self.position


# %% PatchEmbedding: positions that are no parameter
class PatchEmbedding(nn.Module):
    """`position` does not learn here: it is no parameter. Look at what makes a tensor of a module
    one."""

    def __init__(self, image_size: int, patch_size: int, channels: int, d_model: int):
        super().__init__()
        self.patch_size = patch_size
        n_patches = (image_size // patch_size) ** 2
        self.projection = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.register_buffer("position", torch.zeros(1, n_patches + 1, d_model))

    def forward(self, images):
        patches = self.projection(patchify(images, self.patch_size))
        class_tokens = self.class_token.expand(len(images), -1, -1)
        return torch.cat([class_tokens, patches], dim=1) + self.position


# %% ViT: the first patch
class ViT(nn.Module):
    """The logits are read from position 1 here, which is the first patch. Look at where
    `PatchEmbedding` puts the class token."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 1]))


# %% ViT: logarithms of probabilities
class ViT(nn.Module):
    """The result is the logarithm of probabilities here, which the loss would take once more. Look
    at what logits are."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0])).log_softmax(dim=-1)


# %% ViT: positions added again
class ViT(nn.Module):
    """The positions are added a second time here. Look at what `PatchEmbedding` has already done."""

    def __init__(self, image_size, patch_size, channels, n_classes, d_model, n_heads, n_layers):
        super().__init__()
        self.embedding = PatchEmbedding(image_size, patch_size, channels, d_model)
        self.blocks = nn.ModuleList(BidirectionalBlock(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, images):
        tokens = self.embedding(images) + self.embedding.position
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0]))

# %% [markdown]
# # Vision

# %%
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# %% [markdown]
# ### Given: attention in all directions


# %%
class SelfAttention(nn.Module):
    """Attention of every position to every other one, without a mask, in several heads.

    Attributes: `qkv` makes queries, keys and values in one go, `out` mixes what the heads bring
    home, and `weights` keeps those of the last call, `b h n n`, to look at.
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
    """A pre-norm layer: attention, then a network of two linear maps, each added to its input.

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


# %%
def patchify():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_patchify():
        pass

    check_patchify()


# %%
def unpatchify():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_unpatchify():
        pass

    check_unpatchify()


# %%
def PatchEmbedding():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_PatchEmbedding():
        pass

    check_PatchEmbedding()


# %%
def ViT():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_ViT():
        pass

    check_ViT()


# %%
def attention_distance():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_attention_distance():
        pass

    check_attention_distance()


# %%
def linear_cka():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_linear_cka():
        pass

    check_linear_cka()

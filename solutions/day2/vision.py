# %% [markdown]
# # vision

# %%
import torch


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

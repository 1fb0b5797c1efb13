# %% [markdown]
# # music

# %%
import torch

N_TOKENS = 50


# %%
def transpose():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_transpose():
        pass

    check_transpose()


# %%
def skew():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_skew():
        pass

    check_skew()


# %%
def RelativeSelfAttention():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_RelativeSelfAttention():
        pass

    check_RelativeSelfAttention()

# %% [markdown]
# # language_model

# %%
import torch


# %%
def CausalSelfAttention():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_CausalSelfAttention():
        pass

    check_CausalSelfAttention()


# %%
def GPTBlock():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_GPTBlock():
        pass

    check_GPTBlock()


# %%
def GPT():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_GPT():
        pass

    check_GPT()


# %%
def next_token_loss():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_next_token_loss():
        pass

    check_next_token_loss()


# %%
def next_token_probabilities():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_next_token_probabilities():
        pass

    check_next_token_probabilities()


# %%
def generate():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_generate():
        pass

    check_generate()

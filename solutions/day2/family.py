# %% [markdown]
# # family

# %%
import torch


# %%
def rotary_embedding():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_rotary_embedding():
        pass

    check_rotary_embedding()


# %%
def alibi_bias():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_alibi_bias():
        pass

    check_alibi_bias()


# %%
def sliding_window_mask():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_sliding_window_mask():
        pass

    check_sliding_window_mask()


# %%
def linear_attention():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_linear_attention():
        pass

    check_linear_attention()


# %%
def grouped_query_attention():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_grouped_query_attention():
        pass

    check_grouped_query_attention()

# %% [markdown]
# # diffusion

# %%
import torch


# %%
def cosine_schedule():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_cosine_schedule():
        pass

    check_cosine_schedule()


# %%
def add_noise():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_add_noise():
        pass

    check_add_noise()


# %%
def timestep_embedding():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_timestep_embedding():
        pass

    check_timestep_embedding()


# %%
def DiTBlock():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_DiTBlock():
        pass

    check_DiTBlock()


# %%
def guided_noise():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_guided_noise():
        pass

    check_guided_noise()


# %%
def ddim_step():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_ddim_step():
        pass

    check_ddim_step()

# %% [markdown]
# ## What you will build
#
# On Day 1, a Transformer learned to read dates. Today the same parts write text, compose music, and
# recognise and draw digits. You train every model yourself. The results here come from the
# reference solution with seed 0.
#
# **It writes.** After four minutes of training on Python's manual, a GPT with 360,000 parameters
# continues *The statement*. The words and the layout are mostly right, but the text makes no sense:
#
# ```text
# The statement the numeric of the string the formatic
#     "__init__()".  The statement is the loop of the built-in such is
#    implementation it is sections a "__dict__" and "__getitem__()" methods are expression.
#
# A string the any are assignment may only that properationary call containing methods
# with the for the specified by the class of it is executed to be computed and
# an exception which matching "except" clause also be not expression objects.
# ```

# %% [markdown]
# **It composes.** Trained on Bach's chorales, a model with relative attention continues a first
# chord. If you see no audio player, run the code cells of chapter 2 to create one.
#
# ![A 12-second chorale for four voices, composed by the model](figures/chorale.wav)

# %% [markdown]
# **It draws.** A diffusion model starts with noise and removes it step by step. Each column shows
# two samples of the requested digit.
#
# ![Two rows of ten squares of noise turn into the digits 0 to 9 within 30
# steps](figures/digits.gif)

# %% [markdown]
# ### Map of the day
#
# ![The seven chapters, each with its input, what is new and its output. Language models: characters
# in, text out; new: a decoder-only model with a cache. Music: notes of four voices in, chorales
# out; new: distances between positions. Vision: patches in, a digit's class out; new: a class
# token. Diffusion: patches of noise, a step and a label in, digits out; new: the step modulates
# each norm. The family: any sequence in and out; new: cheaper and longer attention. Memory:
# segments in, text out; new: states kept from earlier segments. Decisions: returns, states and
# actions in, actions out; new: three tokens per step.](figures/day.svg)
#
# Each chapter changes one thing. You can do them in any order. Diffusion uses `SelfAttention`,
# `patchify` and `unpatchify` from Vision. Memory uses `skew` from Music and the texts of Language
# models. Run those cells first.

# %% [markdown]
# ### Notation
#
# | symbol | meaning |
# |---|---|
# | $b$, $v$ | batch size, vocabulary size |
# | $n$, $m$ | queries; keys and values |
# | $d$, $h$, $d_\text{head}$ | features per token (`d_model`), heads, features per head ($d/h$) |
# | $c$, $H$, $W$ | image channels, height and width |
# | $p$, $N$ | patch side in pixels, patches per image |
# | $x_0$, $x_t$, $\varepsilon$ | a clean image, that image after $t$ noise steps, the noise |
# | $\bar\alpha_t$ | fraction of the image's variance that remains after $t$ steps |
#
# ### After today you can
#
# * build GPT-2 and measure language models in bits per character;
# * use relative positions in attention;
# * turn images into tokens and look inside a vision transformer;
# * generate images with a class-conditional diffusion model;
# * choose between attention variants by measured cost.
#
# ### Timetable
#
# {{ timetable
#   chapters
# }}
#
# Times are estimates and include reading. Training time is extra; keep reading while it runs. In
# chapters 1 to 5, you train (on one core unless stated):
#
# 1. a GPT: 209 s on two cores;
# 2. two models: 2 × 2 minutes;
# 3. a ViT: 37 s on two cores; a ViT and a CNN: about 1 minute;
# 4. a diffusion transformer: 2 minutes;
# 5. six variants: 2 + 3 minutes.

# %% [markdown]
# ## What you will build
#
# On Day 1, a Transformer learned to read dates. Today the same parts write texts, compose, recognise
# digits and draw them. You train all models yourself (results: reference solution, seed 0).
#
# **It writes.** After four minutes with Python's manual, a GPT with 360,000 parameters continues *The
# statement*. Words and layout are mostly right, the sense is not:
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
# **It composes.** Trained on Bach's chorales, a model with relative attention continues a first chord.
# If nothing plays here, run the code cells of chapter 2, which have players.
#
# ![A chorale for four voices, 12 seconds long, composed by the trained
# model](figures/chorale.wav)

# %% [markdown]
# **It draws.** A diffusion model starts with noise and removes it step by step. Each column shows the
# digit that was asked for, drawn twice.
#
# ![Two rows of ten squares of noise turn into the digits 0 to 9 within 30
# steps](figures/digits.gif)

# %% [markdown]
# ### Map of the day
#
# ![Seven rows. Language models read characters and give text; new: only a decoder, with a cache. Music:
# notes of four voices; distances between positions; chorales. Vision: patches; a class token; which
# digit it is. Diffusion: patches of noise, a step and a label; the step modulates each norm; digits.
# The family: any sequence; cheaper and longer attention. Memory: segments; states kept from earlier
# segments; text. Decisions: returns, states, actions; three tokens per step;
# actions.](figures/day.svg)
#
# Each chapter changes one thing. You can do them in any order. Diffusion uses `SelfAttention`,
# `patchify` and `unpatchify` from Vision, and Memory uses `skew` from Music: run those cells first.

# %% [markdown]
# ### Notation
#
# | symbol | meaning |
# |---|---|
# | $b$ | sequences or images in a batch |
# | $n$, $m$ | queries; keys and values |
# | $d$, $h$, $d_\text{head}$ | features per token (`d_model`), heads, features per head: $d / h$ |
# | $v$ | tokens in the vocabulary |
# | $c$, $H$, $W$ | channels, height and width of an image |
# | $p$, $N$ | side of a patch in pixels, patches in an image |
# | $x_0$, $x_t$, $\varepsilon$ | an image, the same after $t$ steps of noise, the noise |
# | $\bar\alpha_t$ | the share of the image's variance that is left after $t$ steps |
#
# ### After today you can
#
# * build GPT-2, and measure a language model in bits per character;
# * give attention a sense of distance;
# * turn images into tokens, and look inside a vision transformer;
# * draw with a diffusion model that is conditioned on a class;
# * choose between variants of attention by their measured cost.
#
# ### Timetable
#
# {{ timetable
#   chapters
# }}
#
# All times are estimates and include reading. Training comes on top; read on while it runs:
#
# | chapter | training | time |
# |---|---|---|
# | 1 Language models | a GPT | 209 s on two cores |
# | 2 Music | two models, to compare | 2 × 2 minutes on one core |
# | 3 Vision | a ViT; a ViT and a CNN to compare | 37 s on two cores; about 1 minute on one |
# | 4 Diffusion | a diffusion transformer | 2 minutes on one core |
# | 5 The family | six variants | 2 + 3 minutes on one core |

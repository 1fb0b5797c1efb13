# %% [markdown]
# ## What you will build
#
# The same day can be written as `March 4, 1987`, `04.03.1987` or `3/4/1987`. A database needs
# `1987-03-04`. Today you build a model that learns this translation from examples alone. It gets no
# rules: it has to find out that `Mar` is a month and that the year comes first.
#
# ![Attention weights of the trained model while it writes 1987-03-04 from Wednesday, 4 Mar 1987.
# The digits of the year look at 987, both digits of the month at Mar, and both digits of the day at
# 4. The weekday gets little weight.](figures/result.svg)
#
# Each row is a symbol that the trained model writes, each column a symbol that it reads. Dark cells
# show what it looks at: for `03` at `Mar`, for `04` at `4`. After 30 seconds of training, it
# correctly reads 2,000 of 2,000 dates that it has never seen (reference solution, seed 0).

# %% [markdown]
# ### Why attention
#
# Translation maps one sequence to another, with a different length and order. Until 2017 the usual
# tool was a pair of recurrent networks ([Sutskever et al. 2014](https://arxiv.org/abs/1409.3215)).
# The first reads the source, one token after the other, into one vector. The second writes the
# target from this vector.
#
# ![A recurrent network passes everything about the source through one vector, step by step. With
# attention, each target position reads all source positions directly.](figures/recurrent.svg)
#
# This hurts in two places. A long source has to fit into one vector of fixed size. And no step can
# start before the previous one has finished, so parallel hardware is idle.
#
# [Bahdanau et al. (2015)](https://arxiv.org/abs/1409.0473) solved the first problem: at each step,
# the decoder weighs all source positions. [Vaswani et al. (2017)](https://arxiv.org/abs/1706.03762)
# solved the second: they kept only the attention. Their model is the **Transformer**.

# %% [markdown]
# ### The whole model
#
# ![The encoder embeds the source tokens, adds positional encodings and applies two encoder layers,
# which gives the memory. The decoder embeds the target tokens so far, adds positional encodings,
# applies two decoder layers that also read the memory, and a linear layer gives logits. Numbers
# show the chapter that builds each part.](figures/architecture.svg)
#
# The **encoder** (left) turns the source into one vector per token, the *memory*. The **decoder**
# (right) reads the target written so far and the memory, and scores every token that could come
# next. The black numbers are the chapters of this notebook.
#
# One date on its way through the model that you will train:
#
# ![The text 3/4/1987 becomes 10 tokens, then 10 embeddings of 64 numbers, then a memory of the same
# shape, then 11 rows of 70 logits, and finally the text 1987-03-04.](figures/numbers.svg)

# %% [markdown]
# ### Notation
#
# | symbol | meaning | in the final model |
# |---|---|---|
# | $b$ | sequences in a batch | 64 |
# | $n$, $m$ | queries (target positions); keys and values (source positions) | 11; up to 24 |
# | $d$, $d_v$ | features per token (`d_model`), features per value | 64 |
# | $h$, $d_\text{head}$ | heads, features per head: $d_\text{head} = d / h$ | 4, 16 |
# | $d_{ff}$ | hidden features of the feed-forward network | 128 |
# | $v$ | tokens in the vocabulary | 70 |
# | $Q, K, V$ | queries $n \times d$, keys $m \times d$, values $m \times d_v$, one per row | |
# | $S, A, O$ | scores and attention weights $n \times m$, output $n \times d_v$ | |
# | $W$ with an index | a learned linear map | |
#
# ### After today you can
#
# * compute attention by hand and in code, with masks, without NaN, and in half precision;
# * explain what each part of the Transformer is for, and show it with an experiment;
# * build an encoder and a decoder whose outputs agree with torch's own layers;
# * train the model with teacher forcing, generate with it, and read its attention weights
#   critically.
#
# ### Timetable
#
# {{ timetable
#   Introduction: 10
#   chapters
#   Discussion, in pairs: 15
# }}
#
# All times are estimates and include reading. If you leave an exercise empty, the grader uses the
# course's version where other exercises call it.

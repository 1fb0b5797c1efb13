# %% [markdown]
# ## What you will build
#
# The same date can be written as `March 4, 1987`, `04.03.1987` or `3/4/1987`. A database needs
# `1987-03-04`. Today you build a model that learns this translation from examples alone. It gets no
# rules: it has to find out that `Mar` is a month and that the year comes first.
#
# ![Attention weights of the trained model while it translates Wednesday, 4 Mar 1987 into
# 1987-03-04. It looks at 987 when it writes the year, at Mar when it writes the month, and at 4
# when it writes the day. The weekday gets little weight.](figures/result.svg)
#
# The rows are the symbols that the trained model writes; the columns are those that it reads. Dark
# cells show where it looks: at `Mar` when it writes `03`, and at `4` when it writes `04`. After 30
# seconds of training, the reference solution (seed 0) correctly translates 2,000 of 2,000 unseen
# dates.

# %% [markdown]
# ### Why attention
#
# Translation maps one sequence to another, with a different length and order. Until 2017 the usual
# tool was a pair of recurrent networks ([Sutskever et al. 2014](https://arxiv.org/abs/1409.3215)).
# The first reads the source one token at a time and compresses it into one vector. The second
# writes the target from this vector.
#
# ![A recurrent network passes everything about the source through one vector, step by step. With
# attention, each target position reads all source positions directly.](figures/recurrent.svg)
#
# This causes two problems. A long source has to fit into one vector of fixed size. No step can
# start before the previous one has finished, so parallel hardware sits idle.
#
# [Bahdanau et al. (2015)](https://arxiv.org/abs/1409.0473) solved the first problem: at each step,
# the decoder attends to all source positions. [Vaswani et al.
# (2017)](https://arxiv.org/abs/1706.03762) solved the second by keeping only attention. Their model
# is the **Transformer**.

# %% [markdown]
# ### The whole model
#
# ![The encoder embeds the source tokens, adds positional encodings and applies two encoder layers.
# The result is the memory. The decoder embeds the target tokens so far, adds positional encodings,
# and applies two decoder layers that also read the memory. A linear layer then computes the logits.
# Numbers show the chapter that builds each part.](figures/architecture.svg)
#
# The **encoder** (left) turns the source into one vector per token, the *memory*. The **decoder**
# (right) reads the target written so far and the memory, and scores every token that could come
# next. The black numbers are the chapters of this notebook.
#
# Follow one date through the model that you will train:
#
# ![The text 3/4/1987 becomes 10 tokens, then 10 embeddings of 64 numbers, then a memory of the same
# shape. The decoder turns the memory into 11 rows of 70 logits, which give the text
# 1987-03-04.](figures/numbers.svg)

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
# | $W$ with a subscript | a learned linear map | |
#
# ### After today you can
#
# * compute attention by hand and in code, with masks, without NaN, and in half precision;
# * explain what each part of the Transformer is for, and demonstrate it with an experiment;
# * build an encoder and a decoder whose outputs match torch's own layers;
# * train the model with teacher forcing, generate with it, and interpret its attention weights
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

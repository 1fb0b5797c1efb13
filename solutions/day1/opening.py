# %% [markdown]
# ## What you will build
#
# The same date can be written as `March 4, 1987`, `04.03.1987` or `3/4/1987`. A database needs
# `1987-03-04`. Today you build a model that learns this conversion from examples alone. It has to
# discover that `Mar` is a month and that the year comes first.
#
# The model reads and writes **tokens**. Here, each character is a token. Two more tokens mark where
# a text begins and ends: `bos` ("beginning of sequence") and `eos` ("end of sequence").
#
# ![Attention weights of the trained model while it translates Wednesday, 4 Mar 1987 into
# 1987-03-04. It attends to 987 when it writes the year, to Mar when it writes the month, and to 4
# when it writes the day. No letter in the weekday gets more than 15% of the
# weight.](figures/result.svg)
#
# Each row is a token that the trained model writes; each column, a token that it reads. Dark
# cells show what it attends to: `Mar` when it writes `03`, and `4` when it writes `04`. Training
# takes about half a minute.

# %% [markdown]
# ### Why attention
#
# Translation maps one sequence to another that may differ in length and word order. Early neural
# models used two recurrent networks ([Sutskever et al. 2014](https://arxiv.org/abs/1409.3215)). The
# first reads the source one token at a time and compresses it into one vector. The second generates
# the target from this vector.
#
# ![A recurrent network passes all information about the source through one vector, step by step.
# With attention, each target position reads all source positions directly.](figures/recurrent.svg)
#
# This causes two problems. First, a long source must fit into one vector. Second, no step can
# start before the previous one ends, so parallel hardware sits idle.
#
# [Bahdanau et al. (2015)](https://arxiv.org/abs/1409.0473) solved the first problem: their decoder
# attends to all source positions at each step. [Vaswani et al.
# (2017)](https://arxiv.org/abs/1706.03762) dropped the recurrence. This also solved the second
# problem, at least for training. Their model is the **Transformer**.

# %% [markdown]
# ### The whole model
#
# ![The encoder embeds the source tokens, adds positional encodings and applies two encoder layers.
# The result is the memory. The decoder embeds the target tokens so far, adds positional encodings,
# and applies two decoder layers that also read the memory. A linear layer then computes the logits.
# The numbers show which chapter covers each part.](figures/architecture.svg)
#
# The **encoder** (left) turns each source token into a vector. These vectors form the *memory*. The
# **decoder** (right) reads the memory and the target so far, and computes **logits**: a score for
# every token that could come next. The white numbers are chapter numbers.
#
# This is how your model will process one date:
#
# ![The text 3/4/1987 becomes 10 tokens, then 10 embeddings of 64 numbers, then a memory of the same
# shape. From the memory, the decoder computes 11 rows of 70 logits, which give the text
# 1987-03-04.](figures/numbers.svg)

# %% [markdown]
# ### Notation
#
# | symbol | meaning | in the final model |
# |---|---|---|
# | $b$ | batch size | 64 |
# | $n$, $m$ | number of queries; number of keys and values (target and source length in cross-attention) | 11; up to 24 |
# | $d$ | features per token (`d_model`); in attention, per query or key | 64; 16 per head |
# | $d_v$ | features per value | 16 per head |
# | $h$, $d_\text{head}$ | number of heads; features per head: $d_\text{head} = d / h$ | 4; 16 |
# | $d_{ff}$ | hidden features of the feed-forward network | 128 |
# | $v$ | vocabulary size | 70 |
# | $Q, K, V$ | queries $n \times d$, keys $m \times d$, values $m \times d_v$, one per row | |
# | $S, A, O$ | scores and attention weights $n \times m$, output $n \times d_v$ | |
# | $W$, $b$ with a subscript | weights and bias of a learned linear map | |
#
# ### After today, you will be able to
#
# * compute attention by hand, and implement masked attention that works in half precision and
#   avoids NaN;
# * explain what each part of the Transformer does, and demonstrate it with an experiment;
# * build an encoder and a decoder whose outputs match those of torch's layers;
# * train the model with teacher forcing, generate sequences, and interpret attention weights
#   critically.
#
# ### Timetable
#
# {{ timetable
#   Introduction: reading
#   chapters
#   Discussion, in pairs: 15
#   Five questions, show and tell: 10
# }}
#
# If you skip an exercise, the grader uses the reference solution wherever other exercises call it.

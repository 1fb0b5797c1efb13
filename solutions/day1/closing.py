# %% [markdown]
# ## Before you go: five questions
#
# Choose an answer, then open it. Nothing here is graded.
#
# **1.** You take the softmax of scores of shape `(b, n, m)` over axis 1. What happens?
#
# <details><summary>torch raises an error.</summary>
#
# No. Softmax works along any axis and keeps the shape, so nothing warns you.
# </details>
#
# <details><summary>The weights of each key sum to 1.</summary>
#
# Yes. Axis 1 is the query axis. Each query should distribute its weight over the keys, so use the
# last axis.
# </details>
#
# <details><summary>Nothing changes if n = m.</summary>
#
# No. The shape is then symmetric, but the columns still sum to 1 instead of the rows.
# </details>
#
# **2.** You set the weights of hidden keys to 0 after softmax. What goes wrong?
#
# <details><summary>Rows no longer sum to 1.</summary>
#
# Yes. Softmax already gave part of the weight to the hidden keys. Hide their scores before softmax.
# </details>
#
# <details><summary>Hidden keys still affect the output through their values.</summary>
#
# No. Their weights are 0, so their values do not count. But their scores still make the other
# weights smaller.
# </details>
#
# <details><summary>The gradients become NaN.</summary>
#
# No. NaN appears if softmax gets a row that contains only −∞.
# </details>
#
# **3.** Your positional encoding starts at position 1 instead of 0. Can a model still learn to
# reverse digits?
#
# <details><summary>No, because no token has position 0.</summary>
#
# No. The layer needs to tell positions apart, and all encodings are still different.
# </details>
#
# <details><summary>Yes, but weights copied from another model no longer fit.</summary>
#
# Yes. Distances between positions stay the same, so a model can learn with either convention.
# Mixing the two shifts every position.
# </details>
#
# <details><summary>Yes, and all outputs stay the same.</summary>
#
# No. Each vector that enters the layer is different, so the outputs are too.
# </details>
#
# **4.** You split heads with `x.reshape(b, h, n, d_head)`. What does each head get?
#
# <details><summary>The right features, in a different order.</summary>
#
# No. Look at the figure with the letters a to l: a plain reshape puts features of several positions
# in one row.
# </details>
#
# <details><summary>Features of different positions in the same row.</summary>
#
# Yes. Split the last axis first, then swap the head and position axes. This mistake also lets heads
# see the future.
# </details>
#
# <details><summary>A tensor of the wrong shape.</summary>
#
# No. The shape is right, which makes this mistake hard to find.
# </details>
#
# **5.** Which mask does the decoder's cross-attention need?
#
# <details><summary>The decoder mask, because its queries come from the target.</summary>
#
# No. A mask hides keys, and these come from the source. If source and target have different
# lengths, this mask does not even fit.
# </details>
#
# <details><summary>The source's padding mask.</summary>
#
# Yes. The keys are the memory, so only source padding has to be hidden. The whole source is known,
# so nothing leaks.
# </details>
#
# <details><summary>A causal mask, so that position i sees only source tokens up to i.</summary>
#
# No. The date's year can come last in the source, but the decoder writes it first.
# </details>

# %% [markdown]
# ## Show and tell
#
# The last cell of this notebook lists the results of your six experiments. Choose the one that
# surprised you most, and show it to someone. Double-click here and write two sentences:
#
# *I changed … and expected …, because … . I saw … , which means … .*

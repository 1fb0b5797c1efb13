# %% [markdown]
# ## What you will build
#
# On Day 1, you trained a Transformer to read dates. Today you use the same parts to generate text,
# compose music, and recognise and draw digits. All results are from the reference solution, with
# seed 0 unless noted.
#
# **Text.** After three and a half minutes of training on the Python manual, a GPT with 360,000
# parameters continues the prompt *The statement*. Most words are real, but the text makes no sense:
#
# ```text
# The statement the numeric the comparison
# handling the class instance of the statement is the local
# is any functions.
#
# New in value may be a statement sequence of the class with module of the "__and__"
# is when the context to used by the "__getitem__()" method.
#
# It is in the class operator provide of the "__dict__" is called as a
# clause object is defined to the command the matchess are of the matching
#       "except".  The built-in the "type" clause method is c
# ```

# %% [markdown]
# **Music.** A model with relative attention, trained on Bach's chorales, composes a chorale from
# its first chord.
#
# ![A 12-second four-part chorale composed by the model](figures/chorale.wav)

# %% [markdown]
# **Images.** A diffusion model starts from noise and removes it step by step.
#
# ![Two rows of ten squares of noise turn into the digits 0 to 9 in 30 steps](figures/digits.gif)

# %% [markdown]
# ### Today at a glance
#
# ![Chapters 2 to 8, each with its input, its output and its new idea. Language models:
# characters in, text out; new: a decoder-only model with a cache. Music: notes of four voices in,
# chorales out; new: distances between positions. Vision: patches in, a digit's class out; new: a
# class token. Diffusion: patches of noise, a step and a label in, digits out; new: step and label
# modulate each norm. The family: any sequence in and out; new: cheaper attention, longer context.
# Memory: segments in, text out; new: cached states of earlier segments. Decisions: returns, states
# and actions in, actions out; new: three tokens per step.](figures/day.svg)
#
# You can do the chapters in any order, but Diffusion and Memory begin with a list of cells to run
# in earlier chapters.

# %% [markdown]
# ### Five questions on Day 1
#
# Open your answer.
#
# **1.** How does softmax avoid overflow?
#
# <details><summary>It clips large scores.</summary>
#
# No. Clipping makes different scores equal, so it changes the weights.
# </details>
#
# <details><summary>It subtracts the largest score of each row.</summary>
#
# Yes. The weights depend only on differences, and the largest exponential becomes 1.
# </details>
#
# <details><summary>It subtracts the mean of each row.</summary>
#
# No. A score far above the mean still overflows.
# </details>
#
# **2.** With `d_model` = 64 and 4 heads, what do you divide dot products by?
#
# <details><summary>8</summary>
#
# No. This is √d_model, but each head compares vectors of only 16 features.
# </details>
#
# <details><summary>4</summary>
#
# Yes. This is √d_head, because the dot product in a head is a sum of d_head = 16 terms.
# </details>
#
# <details><summary>16</summary>
#
# No. This is d_head. The standard deviation of the sum grows with its root.
# </details>
#
# **3.** Which positions does a causal mask allow for position 3?
#
# <details><summary>0, 1 and 2</summary>
#
# No. A position also sees itself. Otherwise, position 0 would see nothing.
# </details>
#
# <details><summary>0, 1, 2 and 3</summary>
#
# Yes. The token at position 3 is known; the model predicts token 4.
# </details>
#
# <details><summary>3 and all later positions</summary>
#
# No. This is the other triangle. It shows the model the tokens that it should predict.
# </details>
#
# **4.** A batch contains padding. What do you divide the summed loss by?
#
# <details><summary>The number of positions</summary>
#
# No. The loss would then fall as the amount of padding grows.
# </details>
#
# <details><summary>The number of targets that are not padding</summary>
#
# Yes. Padding then changes neither the sum nor the mean.
# </details>
#
# <details><summary>The number of sequences</summary>
#
# No. The loss would then grow with the length of the sequences.
# </details>
#
# **5.** Which logits does greedy decoding use?
#
# <details><summary>Those at the first position</summary>
#
# No. They predict the token after `bos`, which has already been written.
# </details>
#
# <details><summary>Those at the last position</summary>
#
# Yes. Only this position has seen all tokens so far.
# </details>
#
# <details><summary>The mean over all positions</summary>
#
# No. Earlier positions predict tokens that have already been written.
# </details>

# %% [markdown]
# ### Notation, in addition to Day 1's
#
# | symbol | meaning |
# |---|---|
# | $c$, $H$, $W$ | image channels, height and width |
# | $p$, $N$ | side of a patch in pixels, number of patches |
# | $x_0$, $x_t$, $\varepsilon$ | a clean image, that image after $t$ noise steps, the noise |
# | $\bar\alpha_t$ | fraction of the image's variance left after $t$ steps |
# | $\odot$, $\mathbb{1}[\cdot]$ | element-wise product; 1 if true, else 0 |
#
# ### By the end of the day, you will be able to
#
# * build GPT-2 and measure language models in bits per character;
# * add relative positions to attention;
# * turn images into tokens and look inside a vision transformer;
# * generate images with a class-conditional diffusion model;
# * choose an attention variant based on measured cost.
#
# ### Timetable
#
# {{ timetable
#   chapters
# }}
#
# Training takes extra time, measured on one core unless noted:
#
# 2. a GPT: 209 s on two cores;
# 3. two models: 2 minutes each;
# 4. three ViTs and three CNNs: about 90 s on two cores;
# 5. a diffusion transformer: 2 minutes;
# 6. six variants: 5 minutes in total.

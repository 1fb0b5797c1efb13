# ruff: noqa: RUF059, SIM108
# %% [markdown]
# # Day 1
# My solutions. I wrote everything down step by step, so that I can follow the shapes.

# %%
# %matplotlib inline
import math

import torch
import torch.nn as nn

print("Starting with torch", torch.__version__)

# %% [markdown]
# ## softmax


# %%
def softmax(x, dim=-1):
    # subtract the largest value, because exp of a large number is infinite
    largest = torch.max(x, dim=dim, keepdim=True)
    largest_values = largest[0]
    shifted = x - largest_values
    exponentials = torch.exp(shifted)
    sums = torch.sum(exponentials, dim=dim, keepdim=True)
    result = exponentials / sums
    return result


# %%
test = torch.tensor([[1.0, 2.0, 3.0], [10000.0, 0.0, -10000.0]])
print(softmax(test))
print("sums:", softmax(test).sum(dim=-1))


# %%
def attention_scores(query, key):
    # query: (..., n, d)   key: (..., m, d)
    d = query.shape[-1]
    scaled_query = query / math.sqrt(d)
    key_transposed = key.transpose(-2, -1)  # (..., d, m)
    scores = torch.matmul(scaled_query, key_transposed)  # (..., n, m)
    return scores


# %%
def attention(query, key, value):
    # first give all three the same leading axes
    n = query.shape[-2]
    m = key.shape[-2]
    d = query.shape[-1]
    d_v = value.shape[-1]
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    query = query.expand(*batch, n, d)
    key = key.expand(*batch, m, d)
    value = value.expand(*batch, m, d_v)
    # then the formula from the paper
    scores = attention_scores(query, key)
    weights = softmax(scores, dim=-1)
    output = torch.matmul(weights, value)
    return output, weights


# %%
print(attention(torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 6))[0].shape)

# %% [markdown]
# ## Masks


# %%
def padding_mask(tokens, pad_id):
    b = tokens.shape[0]
    m = tokens.shape[1]
    is_real = tokens != pad_id
    mask = is_real.contiguous().view(b, 1, m)
    return mask


# %%
def causal_mask(n, device=None):
    mask = torch.zeros(n, n, dtype=torch.bool, device=device)
    for i in range(n):
        # row i sees columns 0 to i, including i
        mask[i, 0 : i + 1] = True
    return mask


# %%
def decoder_mask(tokens, pad_id):
    b = tokens.shape[0]
    n = tokens.shape[1]
    no_padding = padding_mask(tokens, pad_id)  # (b, 1, n)
    no_future = causal_mask(n, tokens.device)  # (n, n)
    mask = torch.zeros(b, n, n, dtype=torch.bool, device=tokens.device)
    for row in range(b):
        mask[row] = torch.logical_and(no_padding[row], no_future)
    return mask


print(decoder_mask(torch.tensor([[5, 6, 0], [0, 7, 8]]), 0))


# %%
def masked_attention(query, key, value, mask=None):
    # without a mask, use the attention function from above
    if mask is None:
        output, weights = attention(query, key, value)
        return output, weights
    # masked scores get the lowest number that the dtype has
    scores = attention_scores(query, key)
    smallest_number = torch.finfo(scores.dtype).min
    not_allowed = torch.logical_not(mask)
    filled_scores = torch.masked_fill(scores, not_allowed, smallest_number)
    # compute softmax by hand, so that masked entries are exactly 0 before the sum
    largest = torch.max(filled_scores, dim=-1, keepdim=True)[0]
    exponentials = torch.exp(filled_scores - largest)
    allowed_as_number = mask.to(scores.dtype)
    exponentials = exponentials * allowed_as_number
    sums = torch.sum(exponentials, dim=-1, keepdim=True)
    # if everything is masked, the sum is 0, and 0 / 0 would be NaN
    nothing_allowed = sums == 0
    safe_sums = sums + nothing_allowed.to(sums.dtype)
    weights = exponentials / safe_sums
    output = torch.matmul(weights, value)
    return output, weights


# %% [markdown]
# ## Positions


# %%
def sinusoidal_encoding(length, d_model):
    encoding = torch.zeros(length, d_model)
    positions = torch.arange(length, dtype=torch.float32)
    for column in range(d_model):
        if column % 2 == 0:
            two_i = column
        else:
            two_i = column - 1
        divisor = 10000 ** (two_i / d_model)
        angle = positions / divisor
        if column % 2 == 0:
            encoding[:, column] = torch.sin(angle)
        else:
            encoding[:, column] = torch.cos(angle)
    return encoding


# %%
def shift_matrix(offset, d_model):
    if d_model % 2 == 1:
        raise ValueError("d_model must be an even number but it is " + str(d_model))
    matrix = torch.zeros(d_model, d_model)
    number_of_pairs = d_model // 2
    for i in range(number_of_pairs):
        angle = offset / (10000 ** (2 * i / d_model))
        cosine = math.cos(angle)
        sine = math.sin(angle)
        row = 2 * i
        # sin(a + b) = sin(a) cos(b) + cos(a) sin(b)
        matrix[row, row] = cosine
        matrix[row, row + 1] = sine
        # cos(a + b) = cos(a) cos(b) - sin(a) sin(b)
        matrix[row + 1, row] = -sine
        matrix[row + 1, row + 1] = cosine
    return matrix


print(shift_matrix(3, 4))


# %%
class PositionalEncoding(nn.Module):
    def __init__(self, d_model, max_length=5000, dropout=0.0):
        super(PositionalEncoding, self).__init__()  # noqa: UP008
        self.d_model = d_model
        self.max_length = max_length
        self.dropout = nn.Dropout(p=dropout)
        # not a parameter and not a buffer, so it is not in the state_dict
        self.encoding = sinusoidal_encoding(max_length, d_model)

    def forward(self, x):
        b, n, d = x.shape
        if n > self.max_length:
            raise ValueError(
                "the input is too long: n = " + str(n) + ", max_length = " + str(self.max_length)
            )
        encoding = self.encoding[0:n, :]
        encoding = encoding.to(x.device)
        encoding = encoding.to(x.dtype)
        encoding = encoding.unsqueeze(0)  # (1, n, d)
        encoding = encoding.repeat(b, 1, 1)  # (b, n, d)
        result = x + encoding
        result = self.dropout(result)
        return result


# %% [markdown]
# ## Heads


# %%
def split_heads(x, n_heads):
    b, n, d = x.shape
    if d % n_heads != 0:
        raise ValueError("n_heads does not divide the number of features")
    d_head = d // n_heads
    x = x.contiguous()
    x = x.view(b, n, n_heads, d_head)
    x = x.permute(0, 2, 1, 3)  # (b, h, n, d_head)
    x = x.contiguous()
    return x


# %%
def merge_heads(x):
    b, h, n, d_head = x.shape
    x = x.permute(0, 2, 1, 3)  # (b, n, h, d_head)
    x = x.contiguous()
    x = x.view(b, n, h * d_head)
    return x


# check that merge_heads is the inverse of split_heads
some_x = torch.randn(2, 3, 8)
assert torch.equal(merge_heads(split_heads(some_x, 4)), some_x)


# %%
class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, n_heads, bias=True):
        super().__init__()
        if d_model % n_heads != 0:
            message = "d_model ({}) must be divisible by n_heads ({})".format(  # noqa: UP032
                d_model, n_heads
            )
            raise ValueError(message)
        self.d_model = d_model
        self.n_heads = n_heads
        self.d_head = d_model // n_heads
        self.query = nn.Linear(d_model, d_model, bias=bias)
        self.key = nn.Linear(d_model, d_model, bias=bias)
        self.value = nn.Linear(d_model, d_model, bias=bias)
        self.out = nn.Linear(d_model, d_model, bias=bias)

    def forward(self, query, key, value, mask=None):
        b = query.shape[0]
        n = query.shape[1]
        m = key.shape[1]
        # 1. project
        q = self.query(query)
        k = self.key(key)
        v = self.value(value)
        # 2. split
        q = split_heads(q, self.n_heads)
        k = split_heads(k, self.n_heads)
        v = split_heads(v, self.n_heads)
        # 3. make the mask (b, n, m)
        if mask is not None:
            if mask.dim() == 2:
                mask = mask.unsqueeze(0)
            mask = mask.expand(b, n, m)
        # 4. attention for every head
        all_outputs = []
        all_weights = torch.zeros(b, self.n_heads, n, m, dtype=q.dtype, device=q.device)
        for head in range(self.n_heads):
            q_head = q[:, head, :, :]
            k_head = k[:, head, :, :]
            v_head = v[:, head, :, :]
            output_head, weights_head = masked_attention(q_head, k_head, v_head, mask)
            all_outputs.append(output_head)
            all_weights[:, head, :, :] = weights_head
        # 5. concatenate the heads and project
        together = torch.cat(all_outputs, dim=-1)
        output = self.out(together)
        return output, all_weights


# %% [markdown]
# ## Layers


# %%
class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x):
        mean = torch.mean(x, dim=-1, keepdim=True)
        difference = x - mean
        squared = difference * difference
        variance = torch.mean(squared, dim=-1, keepdim=True)
        root = torch.sqrt(variance + self.eps)
        normalised = difference / root
        result = self.weight * normalised + self.bias
        return result


# %%
class FeedForward(nn.Module):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(d_ff, d_model)

    def forward(self, x):
        hidden = self.linear1(x)
        hidden = self.relu(hidden)
        hidden = self.dropout(hidden)
        result = self.linear2(hidden)
        return result


# %%
class EncoderLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout1 = nn.Dropout(dropout)
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, x, mask=None):
        # attention
        attention_output, attention_weights = self.self_attention(x, x, x, mask)
        attention_output = self.dropout1(attention_output)
        x = x + attention_output
        x = self.norm1(x)
        # feed-forward
        feed_forward_output = self.feed_forward(x)
        feed_forward_output = self.dropout2(feed_forward_output)
        x = x + feed_forward_output
        x = self.norm2(x)
        return x


# %%
class DecoderLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout1 = nn.Dropout(dropout)
        self.dropout2 = nn.Dropout(dropout)
        self.dropout3 = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        # self-attention of the target
        self_output, self_weights = self.self_attention(x, x, x, mask)
        x = self.norm1(x + self.dropout1(self_output))
        # cross-attention from the target to the source
        cross_output, cross_weights = self.cross_attention(x, memory, memory, memory_mask)
        x = self.norm2(x + self.dropout2(cross_output))
        # feed-forward
        feed_forward_output = self.feed_forward(x)
        x = self.norm3(x + self.dropout3(feed_forward_output))
        return x


layer = DecoderLayer(8, 2, 16)
print(layer(torch.randn(2, 3, 8), torch.randn(2, 5, 8)).shape)

# %% [markdown]
# ## The whole model


# %%
class Transformer(nn.Module):
    def __init__(
        self,
        source_vocab,
        target_vocab,
        d_model=64,
        n_heads=4,
        n_layers=2,
        d_ff=128,
        dropout=0.0,
        pad_id=0,
        max_length=512,
    ):
        super().__init__()
        self.d_model = d_model
        self.pad_id = pad_id
        self.max_length = max_length
        self.source_embedding = nn.Embedding(source_vocab, d_model)
        self.target_embedding = nn.Embedding(target_vocab, d_model)
        self.positional_encoding = PositionalEncoding(d_model, max_length, dropout)
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for _ in range(n_layers):
            encoder_layer = EncoderLayer(d_model, n_heads, d_ff, dropout)
            self.encoder.append(encoder_layer)
            decoder_layer = DecoderLayer(d_model, n_heads, d_ff, dropout)
            self.decoder.append(decoder_layer)
        self.output = nn.Linear(d_model, target_vocab)

    def check_length(self, tokens, name):
        if tokens.shape[1] > self.max_length:
            raise ValueError(name + " is too long")

    def encode(self, source):
        self.check_length(source, "source")
        source_mask = padding_mask(source, self.pad_id)
        x = self.source_embedding(source)
        x = x * math.sqrt(self.d_model)
        x = self.positional_encoding(x)
        for i in range(len(self.encoder)):
            x = self.encoder[i](x, source_mask)
        return x

    def decode(self, target, memory, source):
        self.check_length(target, "target")
        self.check_length(source, "source")
        target_mask = decoder_mask(target, self.pad_id)
        source_mask = padding_mask(source, self.pad_id)
        x = self.target_embedding(target)
        x = x * math.sqrt(self.d_model)
        x = self.positional_encoding(x)
        for i in range(len(self.decoder)):
            x = self.decoder[i](x, memory, target_mask, source_mask)
        logits = self.output(x)
        return logits

    def forward(self, source, target):
        memory = self.encode(source)
        logits = self.decode(target, memory, source)
        return logits


# %%
def sequence_loss(logits, targets, pad_id, label_smoothing=0.0):
    b, n, v = logits.shape
    # half precision is too coarse for sums over many tokens
    original_dtype = logits.dtype
    if original_dtype == torch.float16 or original_dtype == torch.bfloat16:
        logits = logits.to(torch.float32)
    flat_logits = logits.contiguous().view(b * n, v)
    flat_targets = targets.contiguous().view(b * n)
    is_real = flat_targets != pad_id
    number_of_real = int(is_real.sum())
    if number_of_real == 0:
        # 0, but still connected to the logits so that backward works
        zero = (flat_logits * 0.0).sum()
        return zero.to(original_dtype)
    # log softmax = x - log(sum(exp(x)))
    largest = flat_logits.max(dim=-1, keepdim=True)[0]
    shifted = flat_logits - largest
    log_sum = torch.log(torch.exp(shifted).sum(dim=-1, keepdim=True))
    log_probabilities = shifted - log_sum
    # the targets as probabilities
    wanted = torch.zeros(b * n, v, dtype=logits.dtype, device=logits.device)
    for token in range(b * n):
        if is_real[token]:
            wanted[token, :] = label_smoothing / v
            wanted[token, flat_targets[token]] += 1.0 - label_smoothing
    losses = -(wanted * log_probabilities).sum(dim=-1)
    total = losses.sum()
    mean = total / number_of_real
    return mean.to(original_dtype)


# %%
def greedy_decode(model, source, bos_id, eos_id, max_length):
    b = source.shape[0]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        memory = model.encode(source)
        result = torch.zeros(b, 1, dtype=source.dtype, device=source.device)
        result[:, 0] = bos_id
        finished = [False] * b
        for _ in range(max_length - 1):
            if all(finished):
                break
            logits = model.decode(result, memory, source)
            last_logits = logits[:, -1, :]
            best = torch.argmax(last_logits, dim=-1)
            new_column = torch.zeros(b, 1, dtype=source.dtype, device=source.device)
            for row in range(b):
                if finished[row]:
                    new_column[row, 0] = model.pad_id
                else:
                    new_column[row, 0] = best[row]
                    if best[row].item() == eos_id:
                        finished[row] = True
            result = torch.cat([result, new_column], dim=1)
    if was_training:
        model.train()
    return result


# %%
my_model = Transformer(10, 12)
my_source = torch.tensor([[3, 4, 5, 0], [6, 7, 8, 9]])
print(greedy_decode(my_model, my_source, bos_id=1, eos_id=2, max_length=6))


# %%
def detects_broken_attention(attention):
    # I compute every weight by hand, with plain numbers.
    torch.manual_seed(1)
    query = torch.randn(3, 4)
    key = torch.randn(5, 4)
    value = torch.randn(5, 2)
    mask = torch.tensor(
        [
            [True, False, True, True, False],
            [False, False, False, False, False],
            [True, True, False, True, True],
        ]
    )
    # The grader's functions also get a batch, because some mistakes only show there.
    batch = [torch.stack([x, x.flip(0)]) for x in (query, key, value, mask)]
    batch[0].requires_grad_()
    output, weights = attention(*batch)
    for b in range(2):
        for i in range(3):
            numbers = []
            for j in range(5):
                score = 0.0
                for k in range(4):
                    score += float(batch[0][b, i, k].detach() * batch[1][b, j, k])
                numbers.append(math.exp(score / 2.0) if batch[3][b, i, j] else 0.0)
            total = sum(numbers)
            for j in range(5):
                expected = numbers[j] / total if total > 0 else 0.0
                if numbers[j] == 0.0 and float(weights[b, i, j].detach()) != 0.0:
                    return True
                if not abs(float(weights[b, i, j].detach()) - expected) < 1e-4:
                    return True
            for c in range(2):
                mean = 0.0
                for j in range(5):
                    if total > 0:
                        mean += numbers[j] / total * float(batch[2][b, j, c])
                if not abs(float(output[b, i, c].detach()) - mean) < 1e-4:
                    return True
    output.sum().backward()
    return bool(torch.isnan(batch[0].grad).any())

"""Hidden graders of the whole model; the oracles are torch's layers and cross-entropy in float64."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autograder.execution.checks import (
    Draw,
    close,
    equal,
    finite,
    on_meta,
    shaped,
    unchanged,
    value_error,
    weight,
)
from graders.day1.test_layers import (
    HALF_AND_DOUBLE,
    backward,
    decoder_weights,
    encoder_weights,
    gradient,
    normed,
    torch_decoder_layer,
    torch_encoder_layer,
)

# All sizes differ, heads and the size of a head too. Padding is neither the first id nor the last.
SOURCE_VOCAB, TARGET_VOCAB, D, HEADS, D_FF, PAD = 12, 9, 6, 3, 10, 4
SIZES = {"d_model": D, "n_heads": HEADS, "d_ff": D_FF, "pad_id": PAD, "max_length": 11}

# What a message may name: also what a positional encoding or an earlier exercise calls it.
TOO_LONG = ("source", "target", "max_length", "length", "n", "m", "x", "tokens")


def _tokens(draw: Draw, vocab: int, *shape: int) -> Tensor:
    """Token ids without padding."""
    tokens = draw.integers(0, vocab - 1, *shape)
    return tokens + (tokens >= PAD)


def _outer_weights(draw: Draw) -> dict[str, Tensor]:
    """Weights for all that is not a layer; embeddings small, so that the positions show."""
    return {
        "source_embedding.weight": draw.normal(SOURCE_VOCAB, D, scale=0.5),
        "target_embedding.weight": draw.normal(TARGET_VOCAB, D, scale=0.5),
        "output.weight": draw.normal(TARGET_VOCAB, D),
        "output.bias": draw.normal(TARGET_VOCAB),
    }


def _all_weights(draw: Draw, n_layers: int = 1) -> dict[str, Tensor]:
    """Weights for the whole model."""
    weights = _outer_weights(draw)
    for i in range(n_layers):
        weights |= {f"encoder.{i}.{name}": w for name, w in encoder_weights(draw, D, D_FF).items()}
        weights |= {f"decoder.{i}.{name}": w for name, w in decoder_weights(draw, D, D_FF).items()}
    return weights


def _silenced(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, with attention and feed-forward networks giving 0."""
    last = (".out.", ".linear2.")
    return {n: w * (not any(part in n for part in last)) for n, w in weights.items()}


def _layers(weights: dict[str, Tensor], stack: str) -> Iterator[dict[str, Tensor]]:
    """The weights of each layer of a stack."""
    i = 0
    while layer := {
        n.split(".", 2)[2]: w for n, w in weights.items() if n.startswith(f"{stack}.{i}.")
    }:
        yield layer
        i += 1


def _embedded(tokens: Tensor, table: Tensor) -> Tensor:
    """√d · embedding + positional encoding, in float64."""
    d = table.shape[1]
    positions = torch.arange(tokens.shape[1], dtype=torch.float64)
    encoding = torch.empty(tokens.shape[1], d, dtype=torch.float64)
    for i in range(0, d, 2):
        angle = positions / 10000 ** (i / d)
        encoding[:, i], encoding[:, i + 1] = angle.sin(), angle.cos()
    return table.double()[tokens] * d**0.5 + encoding


def _encoded(source: Tensor, weights: dict[str, Tensor], heads: int = HEADS) -> Tensor:
    """The memory, by torch's layers in float64."""
    x = _embedded(source, weights["source_embedding.weight"])
    for layer in _layers(weights, "encoder"):
        x = torch_encoder_layer(layer, heads)(x, src_key_padding_mask=source == PAD)
    return x


def _decoded(target: Tensor, memory: Tensor, source: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """The logits, by torch's layers in float64."""
    n = target.shape[1]
    future = torch.ones(n, n, dtype=torch.bool).triu(1)
    x = _embedded(target, weights["target_embedding.weight"])
    for layer in _layers(weights, "decoder"):
        x = torch_decoder_layer(layer, HEADS)(
            x,
            memory.double(),
            tgt_mask=future,
            tgt_key_padding_mask=target == PAD,
            memory_key_padding_mask=source == PAD,
        )
    return F.linear(x, weights["output.weight"].double(), weights["output.bias"].double())


class TestTransformer:
    exercise = "Transformer"

    def _model(self, student, weights, **sizes):
        n_layers = max(1, len(list(_layers(weights, "encoder"))))
        sizes = SIZES | {"n_layers": n_layers} | sizes
        model = student.Transformer(SOURCE_VOCAB, TARGET_VOCAB, **sizes)
        model.load(weights)
        return model.eval()

    @weight(1)
    def test_parts(self, student):
        """All parts are there under their names, `n_layers` layers a stack, and none share weights."""
        vocab = TARGET_VOCAB
        model = student.Transformer(vocab, vocab, **SIZES, n_layers=2)
        for stack in ("encoder", "decoder"):
            length = model.length(stack)
            assert length == 2, f"with n_layers=2, `{stack}` should hold 2 layers, not {length}"
        draw = Draw(0)
        weights = _all_weights(draw, n_layers=2)
        weights["source_embedding.weight"] = draw.normal(vocab, D)
        model.load(weights)
        seen = model.weights()
        for name, value in weights.items():
            close(seen[name], value, f"after all weights were copied in, `{name}`")
        pad_id = model.get("pad_id")
        assert pad_id == PAD, f"`pad_id` should be {PAD}, as it was given, yours is {pad_id}"

    @weight(0.5)
    def test_defaults(self, student, seed):
        """Sizes, heads, layers, dropout, `pad_id` and `max_length` have the defaults of the signature."""
        model = student.Transformer(5, 7)
        memory = model.encode(torch.ones(1, 1, dtype=torch.long))
        shaped(memory, (1, 1, 64), what="the memory where d_model is not given")
        shapes = {"output.weight": (7, 64), "encoder.1.feed_forward.linear1.weight": (128, 64)}
        weights = model.weights()
        for name, shape in shapes.items():
            assert name in weights, f"there is no parameter `{name}`"
            shaped(weights[name], shape, what=f"`{name}`")
        length, pad_id = model.length("decoder"), model.get("pad_id")
        assert length == 2, f"there should be 2 decoder layers, not {length}"
        assert pad_id == 0, f"`pad_id` should be 0, yours is {pad_id}"
        pad_id = student.Transformer(5, 7, 2, 1, 1, 3, 0.0, 4, 9).get("pad_id")
        assert pad_id == 4, f"`pad_id` follows `dropout`: it should be 4, yours is {pad_id}"
        model = student.Transformer(5, 7, d_model=2, n_heads=1, n_layers=1, d_ff=3).eval()
        source = torch.ones(1, 513, dtype=torch.long)
        finite(
            model.encode(source[:, :512]), "where max_length is not given, the memory of 512 tokens"
        )
        with value_error(*TOO_LONG, when="the source has 513 tokens and max_length is not given"):
            model.encode(source)
        draw = Draw(seed)
        source, weights = _tokens(draw, SOURCE_VOCAB, 2, 5), encoder_weights(draw, 8, 10)
        table = {"source_embedding.weight": draw.normal(SOURCE_VOCAB, 8)}
        layer = {f"encoder.0.{name}": value for name, value in weights.items()}
        sizes = {"d_model": 8, "n_layers": 1, "d_ff": 10, "pad_id": PAD}
        model = student.Transformer(SOURCE_VOCAB, TARGET_VOCAB, **sizes)
        model.load(table | layer)
        expected = _encoded(source, table | layer, heads=4)
        what = "in train(), with the default of 4 heads and no dropout, the memory"
        close(model.train().encode(source), expected, what, 1e-3, 1e-3, torch.float32)

    @weight(1)
    def test_embedding(self, student, seed):
        """Embeddings are multiplied by √d_model and the positional encoding is added, on both sides."""
        # Layers whose steps give 0 only normalise what comes in.
        draw = Draw(seed)
        weights = _silenced(_all_weights(draw))
        source, target = _tokens(draw, SOURCE_VOCAB, 2, 7), _tokens(draw, TARGET_VOCAB, 2, 5)
        model = self._model(student, weights)
        x, y = (
            _embedded(tokens, weights[f"{side}_embedding.weight"])
            for side, tokens in (("source", source), ("target", target))
        )
        for norm in ("encoder.0.norm1", "encoder.0.norm2"):
            x = normed(x, weights, norm)
        for norm in ("decoder.0.norm1", "decoder.0.norm2", "decoder.0.norm3"):
            y = normed(y, weights, norm)
        expected = F.linear(y, weights["output.weight"].double(), weights["output.bias"].double())
        what = "where attention and network give 0, the result of"
        close(model.encode(source), x, f"{what} encode", 1e-3, 1e-3, torch.float32)
        seen = model.decode(target, x.float(), source)
        close(seen, expected, f"{what} decode", 1e-3, 1e-3, torch.float32)

    @weight(1.5)
    def test_encode(self, student, seed):
        """encode embeds the source and runs it through all encoder layers."""
        draw = Draw(seed)
        weights = _all_weights(draw, n_layers=2)
        source = _tokens(draw, SOURCE_VOCAB, 3, 7)
        seen = self._model(student, weights).encode(source)
        unchanged(student)
        close(seen, _encoded(source, weights), "the memory", 1e-3, 1e-3, torch.float32)

    @weight(1.5)
    def test_decode(self, student, seed):
        """decode embeds the target, runs it through all decoder layers with the memory, and ends with `output`."""
        draw = Draw(seed)
        weights = _all_weights(draw, n_layers=2)
        source, target = _tokens(draw, SOURCE_VOCAB, 2, 7), _tokens(draw, TARGET_VOCAB, 2, 5)
        memory = draw.normal(2, 7, D)
        seen = self._model(student, weights).decode(target, memory, source)
        unchanged(student)
        close(
            seen, _decoded(target, memory, source, weights), "the logits", 1e-3, 1e-3, torch.float32
        )

    @weight(1)
    def test_forward(self, student, seed):
        """Calling the model gives the logits: decode after encode, with padding in source and target."""
        draw = Draw(seed)
        weights = _all_weights(draw, n_layers=2)
        for side in ("source", "target"):
            weights[f"{side}_embedding.weight"][PAD] *= 9  # so that it shows where padding is seen
        model = self._model(student, weights)
        # Of one shape, with padding in other places: a call leaves nothing to the next.
        for start in (0, 1):
            source, target = _tokens(draw, SOURCE_VOCAB, 3, 7), _tokens(draw, TARGET_VOCAB, 3, 5)
            source[start, 4:], source[1 - start, 0] = PAD, PAD
            target[start, 3:], target[2, 1 + start] = PAD, PAD
            seen = shaped(model(source, target), (3, 5, TARGET_VOCAB), torch.float32, "the logits")
            memory, real = _encoded(source, weights), target != PAD
            expected = _decoded(target, memory, source, weights)[real]
            close(seen[real], expected, "the logits at real targets", 1e-3, 1e-3, torch.float32)
        real, what = source != PAD, "the memory at real tokens"
        read = shaped(model.encode(source), (3, 7, D), torch.float32, "the memory")
        close(read[real], memory[real], what, 1e-3, 1e-3, torch.float32)
        what = "the logits of a model in half precision"
        shaped(model.to(torch.bfloat16)(source, target), seen.shape, torch.bfloat16, what)

    @weight(1)
    def test_source_padding(self, student, seed):
        """How much padding stands after the source changes no logit and no row of the memory."""
        draw = Draw(seed)
        model = self._model(student, _outer_weights(draw))
        source, target = _tokens(draw, SOURCE_VOCAB, 2, 4), _tokens(draw, TARGET_VOCAB, 2, 6)
        padded = F.pad(source, (0, 5), value=PAD)
        memory = shaped(model.encode(source), (2, 4, D), what="the memory")
        seen = shaped(model.encode(padded), (2, 9, D), what="the memory")
        close(seen[:, :4], memory, "the memory after padding", atol=1e-4)
        logits = shaped(model(source, target), (2, 6, TARGET_VOCAB), what="the logits")
        close(model(padded, target), logits, "the logits after padding the source", atol=1e-4)
        # The memory of padding is not read at all, whatever it holds.
        memory = F.pad(memory, (0, 0, 0, 5), value=3.0)
        seen = model.decode(target, memory, padded)
        unchanged(student)
        close(seen, logits, "the logits from a memory padded with threes", atol=1e-4)

    @weight(1)
    def test_future(self, student, seed):
        """A changed target token changes the logits at its own position, and none before it."""
        draw = Draw(seed)
        model = self._model(student, _outer_weights(draw))
        source = _tokens(draw, SOURCE_VOCAB, 2, 4)
        target = torch.tensor([[1, 2, 3, 5, 6], [2, 1, 5, 3, 7]])
        changed = target.clone()
        changed[:, 3:] = torch.tensor([[7, 8], [8, 0]])
        before = shaped(model(source, target), (2, 5, TARGET_VOCAB), what="the logits")
        after = shaped(model(source, changed), (2, 5, TARGET_VOCAB), what="the logits")
        close(after[:, :3], before[:, :3], "the logits before the changed tokens", atol=1e-4)
        moved = (after - before)[:, 3:].abs().amax(-1)
        assert (moved > 1e-3).all(), (
            "a changed target token should change the logits at its own position"
        )
        for n in (3, 1):
            seen = shaped(model(source, target[:, :n]), (2, n, TARGET_VOCAB), what="the logits")
            close(seen, before[:, :n], "the logits of a shorter target", atol=1e-4)

    @weight(0.5)
    def test_target_padding(self, student, seed):
        """Padding in the target is not attended to, wherever it stands; `pad_id` is 0 where nothing is said."""
        draw = Draw(seed)
        model = student.Transformer(
            SOURCE_VOCAB, TARGET_VOCAB, d_model=D, n_heads=HEADS, n_layers=1, d_ff=D_FF
        ).eval()
        weights = _all_weights(draw)
        model.load(weights)
        source, target = draw.integers(1, SOURCE_VOCAB, 2, 7), draw.integers(1, TARGET_VOCAB, 2, 5)
        source[1, 5:], target[0, 2] = 0, 0
        before = shaped(model(source, target), (2, 5, TARGET_VOCAB), what="the logits")
        for table in ("source_embedding.weight", "target_embedding.weight"):
            weights[table][0] += draw.normal(D)
        model.load(weights)
        after = shaped(model(source, target), (2, 5, TARGET_VOCAB), what="the logits")
        real = target != 0
        what = "with other embeddings for padding, the logits at real targets"
        close(after[real], before[real], what, atol=1e-4)

    @weight(0.5)
    def test_only_padding(self, student, seed):
        """A source of padding only gives finite logits and gradients, and disturbs no other row."""
        draw = Draw(seed)
        model = self._model(student, _outer_weights(draw))
        source, target = _tokens(draw, SOURCE_VOCAB, 2, 5), _tokens(draw, TARGET_VOCAB, 2, 3)
        source[0, 4] = PAD
        alone = shaped(model(source[:1], target[:1]), (1, 3, TARGET_VOCAB), what="the logits")
        source[1] = PAD
        weights = model.weights()
        seen = finite(model(source, target), "the logits")
        close(seen[:1], alone, "the logits of the row beside it", atol=1e-4)
        backward(seen, seen.detach(), "the logits")
        for name in _outer_weights(draw):
            gradient(weights[name], f"`{name}`")

    @weight(0.5)
    def test_too_long(self, student, seed):
        """A source or a target longer than `max_length` raises a ValueError, be it padding only; one just as long does not."""
        draw = Draw(seed)
        model = student.Transformer(
            SOURCE_VOCAB, TARGET_VOCAB, **(SIZES | {"max_length": 5}), n_layers=1
        ).eval()
        # Of as many sentences, too: how many there are is no matter.
        source, target = _tokens(draw, SOURCE_VOCAB, 6, 6), _tokens(draw, TARGET_VOCAB, 6, 6)
        what = "the logits of 6 sentences of 5 tokens where max_length is 5"
        finite(model(source[:, :5], target[:, :5]), what)
        with value_error(*TOO_LONG, when="the source has 6 tokens and max_length is 5"):
            model(source, target[:, :5])
        with value_error(*TOO_LONG, when="the target has 6 tokens and max_length is 5"):
            model(source[:, :5], target)
        source.fill_(PAD)
        with value_error(*TOO_LONG, when="the source is padding of 6 tokens and max_length is 5"):
            model.encode(source)

    @weight(0.5)
    def test_dropout(self, student, seed):
        """`dropout` is off in eval(), and acts on the sum of embedding and positional encoding."""
        draw = Draw(seed)
        source, target = _tokens(draw, SOURCE_VOCAB, 3, 7), _tokens(draw, TARGET_VOCAB, 3, 5)
        # With all steps of the layers giving 0, dropout on what comes in is all that is left.
        model = self._model(student, _silenced(_all_weights(draw)), dropout=0.5)
        memory = shaped(model.encode(source), (3, 7, D), what="the memory")
        close(model.encode(source), memory, "the second memory in eval()", atol=1e-6)
        still = shaped(
            model.decode(target, memory, source), (3, 5, TARGET_VOCAB), what="the logits"
        )
        changed = student.changed
        model.train()
        moved = shaped(model.encode(source), (3, 7, D), what="the memory") - memory
        assert moved.abs().max() > 1e-3, "in train(), nothing of the embedded source is dropped"
        seen = shaped(model.decode(target, memory, source), still.shape, what="the logits")
        unchanged(student, besides=changed)
        moved = seen - still
        assert moved.abs().max() > 1e-3, "in train(), nothing of the embedded target is dropped"

    @weight(0.5)
    def test_dropout_in_layers(self, student, seed):
        """`dropout` is given to the layers of both stacks."""
        draw = Draw(seed)
        source, target = _tokens(draw, SOURCE_VOCAB, 3, 7), _tokens(draw, TARGET_VOCAB, 3, 5)
        weights = _silenced(_all_weights(draw))
        # The norm before the network forgets all that was dropped earlier; the network gives a constant.
        for layer, norm in (("encoder.0", "norm1"), ("decoder.0", "norm2")):
            weights[f"{layer}.{norm}.weight"] = torch.zeros(D)
            weights[f"{layer}.feed_forward.linear2.bias"] = draw.normal(D) + 3
        model = self._model(student, weights, dropout=0.5)
        memory = shaped(model.encode(source), (3, 7, D), what="the memory")
        still = shaped(
            model.decode(target, memory, source), (3, 5, TARGET_VOCAB), what="the logits"
        )
        model.train()
        moved = shaped(model.encode(source), (3, 7, D), what="the memory") - memory
        assert moved.abs().max() > 1e-3, "in train(), the layers of `encoder` drop nothing"
        moved = shaped(model.decode(target, memory, source), still.shape, what="the logits") - still
        assert moved.abs().max() > 1e-3, "in train(), the layers of `decoder` drop nothing"

    @weight(0.5)
    def test_gradients(self, student, seed):
        """The loss reaches every parameter."""
        draw = Draw(seed)
        weights = _all_weights(draw)
        model = self._model(student, weights).train()
        source, target = _tokens(draw, SOURCE_VOCAB, 2, 7), _tokens(draw, TARGET_VOCAB, 2, 5)
        seen = model.weights()
        logits = shaped(model(source, target), (2, 5, TARGET_VOCAB), what="the logits")
        backward(logits, draw.normal(2, 5, TARGET_VOCAB), "the logits")
        for name in weights:
            # A constant added to all keys cancels in the softmax, so its gradient says nothing.
            if ".key.bias" in name:
                continue
            found = gradient(seen[name], f"`{name}`")
            assert found.abs().max() > 0, f"no gradient reaches `{name}`"

    @weight(0.25)
    def test_device(self, student):
        """After a move to another device the model works on tokens that are there."""
        model = student.Transformer(SOURCE_VOCAB, TARGET_VOCAB, **SIZES, n_layers=1)
        source, target = (torch.ones(2, n, dtype=torch.long, device="meta") for n in (7, 5))
        what = "the logits"
        on_meta(lambda: model.to_empty(device="meta")(source, target), (2, 5, TARGET_VOCAB), what)


class TestSequenceLoss:
    exercise = "sequence_loss"

    @weight(1)
    def test_without_padding(self, student, seed):
        """Without padding and smoothing: the mean of −log p of the targets, a single number."""
        draw = Draw(seed)
        logits, targets = draw.normal(2, 3, 7, scale=2.0), draw.integers(0, 7, 2, 3)
        seen = student.sequence_loss(logits, targets, 8)
        expected = F.cross_entropy(logits.double().flatten(0, 1), targets.flatten())
        close(seen, expected, "the loss", dtype=torch.float32)

    @weight(2)
    def test_padding(self, student, seed):
        """Padding does not count: the mean runs over all other targets of the batch, each with the same weight."""
        draw = Draw(seed)
        logits, targets = draw.normal(3, 5, 7, scale=2.0), draw.integers(0, 6, 3, 5)
        targets += targets >= 2
        targets[0, 1:], targets[1, 0], targets[1, 3] = 2, 2, 2
        seen = student.sequence_loss(logits, targets, 2)
        unchanged(student)
        expected = _cross_entropy(logits, targets, 2)
        close(seen, expected, "the loss", dtype=torch.float32)

    @weight(1.5)
    def test_smoothing(self, student, seed):
        """Label smoothing gives (1 − ε) to the target and ε/v to each of the v classes, the target among them."""
        draw = Draw(seed)
        logits, targets = draw.normal(2, 4, 5, scale=2.0), draw.integers(0, 5, 2, 4)
        for smoothing in (0.1, 0.45):
            seen = student.sequence_loss(logits, targets, 9, label_smoothing=smoothing)
            expected = _cross_entropy(logits, targets, 9, smoothing)
            close(seen, expected, f"the loss with label_smoothing={smoothing}", dtype=torch.float32)

    @weight(1)
    def test_smoothing_with_padding(self, student, seed):
        """With label smoothing too, padding does not count, while its class keeps its ε/v at other targets."""
        draw = Draw(seed)
        logits, targets = draw.normal(2, 5, 6, scale=2.0), draw.integers(1, 6, 2, 5)
        targets[0, 3:], targets[1, 0] = 0, 0
        seen = student.sequence_loss(logits, targets, 0, 0.3)
        close(seen, _cross_entropy(logits, targets, 0, 0.3), "the loss", dtype=torch.float32)

    @weight(1.5)
    def test_large_logits(self, student, seed):
        """Logits of ±10⁴ give the right loss, for likely and for hopeless targets."""
        draw = Draw(seed)
        logits = draw.uniform(2, 6, 5, low=-1e4, high=1e4)
        targets = draw.integers(0, 5, 2, 6)
        # One row is right by a wide margin, one wrong by the widest.
        logits[0, 0], targets[0, 0] = torch.tensor([-1e4, 1e4, -1e4, 0.0, 0.0]), 1
        logits[0, 1], targets[0, 1] = torch.tensor([-1e4, 1e4, -1e4, 0.0, 0.0]), 0
        for smoothing in (0.0, 0.1):
            seen = student.sequence_loss(logits, targets, 6, label_smoothing=smoothing)
            expected = _cross_entropy(logits, targets, 6, smoothing)
            what = f"the loss with label_smoothing={smoothing}"
            close(seen, expected, what, rtol=1e-4, dtype=torch.float32)
        for row, value in ((0, 0.0), (1, 2e4)):
            seen = student.sequence_loss(logits[:1, row : row + 1], targets[:1, row : row + 1], 6)
            close(seen, torch.tensor(value), "the loss of one target", atol=1e-3, rtol=1e-4)

    @weight(1)
    def test_pad_id_is_no_class(self, student, seed):
        """`pad_id` need not be a class: −100 or a number beyond the vocabulary work as well."""
        draw = Draw(seed)
        logits, targets = draw.normal(2, 5, 7, scale=2.0), draw.integers(0, 7, 2, 5)
        for pad_id in (-100, 50):
            padded = targets.clone()
            padded[0, 2:], padded[1, 4] = pad_id, pad_id
            for smoothing in (0.0, 0.2):
                seen = student.sequence_loss(logits, padded, pad_id, smoothing)
                unchanged(student)
                expected = _cross_entropy(logits, padded, pad_id, smoothing)
                close(seen, expected, f"the loss with pad_id={pad_id}", dtype=torch.float32)
            # With a single class there is one number only that may stand in the place of padding.
            only = torch.where(padded == pad_id, pad_id, 0)
            seen = student.sequence_loss(logits[..., :1], only, pad_id)
            close(seen, torch.tensor(0.0), f"the loss of a single class with pad_id={pad_id}")

    @weight(1.25)
    def test_only_padding(self, student, seed):
        """If every target is padding the loss is 0, and its gradients are zero."""
        draw = Draw(seed)
        for pad_id in (3, -100):
            logits = draw.normal(2, 3, 5).requires_grad_()
            seen = student.sequence_loss(logits, torch.full((2, 3), pad_id), pad_id, 0.1)
            seen = close(seen, torch.tensor(0.0), "the loss")
            assert seen.requires_grad, "backward should work: the loss is cut off from the logits"
            seen.backward()
            found = torch.zeros(2, 3, 5) if logits.grad is None else logits.grad
            close(found, torch.zeros(2, 3, 5), "the gradient of the logits")

    @weight(1)
    def test_gradients(self, student, seed):
        """The gradient of the logits is (p − y) / number of targets, and 0 at padding."""
        draw = Draw(seed)
        logits = draw.normal(2, 5, 6, scale=2.0).requires_grad_()
        targets = draw.integers(0, 6, 2, 5)
        targets[0, 3:], targets[1, 1] = -100, -100
        seen = student.sequence_loss(logits, targets, -100, 0.2)
        backward(shaped(seen, (), torch.float32, "the loss"), torch.tensor(1.0), "the loss")
        copy = logits.detach().double().requires_grad_()
        _cross_entropy(copy, targets, -100, 0.2).backward()
        close(
            gradient(logits, "the logits"),
            copy.grad,
            "the gradient of the logits",
            dtype=torch.float32,
        )
        for smoothing in (0.0, 0.2):
            far = draw.uniform(2, 5, 6, low=-1e4, high=1e4).requires_grad_()
            seen = student.sequence_loss(far, targets, -100, smoothing)
            backward(shaped(seen, (), torch.float32, "the loss"), torch.tensor(1.0), "the loss")
            copy = far.detach().double().requires_grad_()
            _cross_entropy(copy, targets, -100, smoothing).backward()
            seen, what = gradient(far, "logits up to ±10⁴"), "the gradient of logits up to ±10⁴"
            close(seen, copy.grad, what, 1e-3, dtype=torch.float32)

    @weight(0.5)
    def test_dtypes(self, student, seed):
        """The loss has the dtype of the logits, and is right in half and double precision."""
        draw = Draw(seed)
        logits, targets = draw.normal(2, 3, 7, dtype=torch.float64), draw.integers(1, 7, 2, 3)
        targets[1, 2] = 0
        # A loss that is computed in float32 whatever the dtype is no mistake.
        for dtype, tolerance in HALF_AND_DOUBLE:
            seen = student.sequence_loss(logits.to(dtype), targets, 0, 0.1)
            expected = _cross_entropy(logits.to(dtype), targets, 0, 0.1)
            close(seen, expected, f"the loss in {dtype}", tolerance, tolerance, dtype)

    @weight(0.5)
    def test_strides(self, student, seed):
        """Logits and targets may lie in memory in any way, as `tokens[:, 1:]` does."""
        draw = Draw(seed)
        logits, targets = draw.strided(draw.normal(3, 5, 7)), draw.integers(0, 7, 3, 6)[:, 1:]
        seen = student.sequence_loss(logits, targets, 0, 0.1)
        close(seen, _cross_entropy(logits, targets, 0, 0.1), "the loss", dtype=torch.float32)

    @weight(0.25)
    def test_device(self, student):
        """The loss is on the device of the logits, with label smoothing too."""
        logits = torch.zeros(2, 3, 7, device="meta")
        targets = torch.zeros(2, 3, dtype=torch.long, device="meta")
        for smoothing in (0.0, 0.1):
            on_meta(
                lambda e=smoothing: student.sequence_loss(logits, targets, 0, e), (), "the loss"
            )


def _cross_entropy(logits: Tensor, targets: Tensor, pad_id: int, smoothing: float = 0.0) -> Tensor:
    """torch's own, in float64."""
    return F.cross_entropy(
        logits.double().flatten(0, 1),
        targets.flatten(),
        ignore_index=pad_id,
        label_smoothing=smoothing,
    )


# Ids that are neither 0, 1, 2 nor in order.
BOS, EOS, FILL, WORDS = 6, 3, 8, (0, 1, 2, 4, 5, 7)


class Writer(nn.Module):
    """Writes its source, token by token; notes how it is called."""

    def __init__(self, draw: Draw, pad_id: int = FILL) -> None:
        super().__init__()
        self.pad_id = pad_id
        self._draw = draw
        self._encoded = self._decoded = 0
        self._training: list[bool] = []
        self._gradients: list[bool] = []

    def _note(self) -> None:
        self._training.append(self.training)
        self._gradients.append(torch.is_grad_enabled())

    def encode(self, source: Tensor) -> Tensor:
        """The token of each position as a number, twice."""
        self._note()
        self._encoded += 1
        return source.double().unsqueeze(-1).expand(*source.shape, 2).contiguous()

    def decode(self, target: Tensor, memory: Tensor, source: Tensor) -> Tensor:
        """After position i, the most likely token is that at position i of the source."""
        self._note()
        self._decoded += 1
        assert tuple(source.shape) == tuple(memory.shape[:2]), (
            f"decode should get memory and source of the same rows, they have the shapes "
            f"{tuple(memory.shape)} and {tuple(source.shape)}"
        )
        assert len(target) == len(source), (
            f"decode should get one target for each source, there are {len(target)} and {len(source)}"
        )
        return self._scores(target, memory)

    def _scores(self, target: Tensor, memory: Tensor) -> Tensor:
        following = memory[..., 0].long()[:, : target.shape[1]]
        logits = self._draw.uniform(*target.shape, 9, low=-9.0, high=-5.0)
        return logits.scatter(-1, following.unsqueeze(-1), -4.0)


class Improviser(Writer):
    """The next token depends on all that is written, in its order, and on the source."""

    def __init__(self, draw: Draw) -> None:
        super().__init__(draw)
        self._table = draw.normal(97, 9)

    def _scores(self, target: Tensor, memory: Tensor) -> Tensor:
        factors = torch.arange(1, 1 + max(target.shape[1], memory.shape[1]))
        told = (memory[..., 0].long() * factors[: memory.shape[1]]).sum(dim=-1, keepdim=True)
        written = (target * factors[: target.shape[1]]).cumsum(dim=-1)
        return self._table[(told * 31 + written * 7) % 97]


class Undecided(Writer):
    """Finds all tokens equally likely, on any device."""

    def _scores(self, target: Tensor, memory: Tensor) -> Tensor:
        return torch.zeros(*target.shape, 9, device=target.device)


def _written(model: Writer, source: Tensor, length: int) -> Tensor:
    """What greedy decoding gives, row by row."""
    rows = []
    for row in source:
        tokens = [BOS]
        memory = row.double().reshape(1, -1, 1)
        while len(tokens) < length and (tokens[-1] != EOS or len(tokens) == 1):
            scores = model._scores(torch.tensor([tokens]), memory)
            tokens.append(int(scores[0, -1].argmax()))
        rows.append(tokens)
    longest = max(map(len, rows))
    return torch.tensor([tokens + [FILL] * (longest - len(tokens)) for tokens in rows])


def _sentences(draw: Draw, *lengths: int, size: int = 8) -> Tensor:
    """Rows of words in which EOS stands after so many; then words again, which nobody should see."""
    source = torch.tensor(WORDS)[draw.integers(0, len(WORDS), len(lengths), size)]
    for row, length in enumerate(lengths):
        source[row, length] = EOS
    return source


class TestGreedyDecode:
    exercise = "greedy_decode"

    @weight(1.5)
    def test_one_row(self, student, seed):
        """The row begins with `bos_id`, goes on with the most likely tokens and ends with `eos_id`."""
        draw = Draw(seed)
        source = _sentences(draw, 4)
        seen = student.greedy_decode(Writer(draw), source, BOS, EOS, 8)
        expected = torch.cat([torch.tensor([[BOS]]), source[:, :5]], dim=1)
        equal(seen, expected, "the tokens")
        unchanged(student)

    @weight(2)
    def test_finished_rows(self, student, seed):
        """A finished row is filled up with `model.pad_id`, and the longest row says where to stop."""
        draw = Draw(seed)
        source = _sentences(draw, 2, 5, 0)
        source[0, 3:5] = EOS  # which nobody should see, and nobody count
        source = draw.strided(source)
        model = Writer(draw)
        seen = student.greedy_decode(model, source, BOS, EOS, 8)
        expected = torch.full((3, 7), FILL)
        expected[:, 0] = BOS
        for row, length in enumerate((2, 5, 0)):
            expected[row, 1 : length + 2] = source[row, : length + 1]
        equal(seen, expected, "the tokens")

    @weight(1.5)
    def test_all_that_is_written(self, student, seed):
        """Each token is chosen given all tokens before it, and the source of its own row."""
        draw = Draw(seed)
        source = draw.integers(0, 9, 5, 4)
        model = Improviser(draw)
        expected = _written(model, source, 9)
        equal(student.greedy_decode(model, source, BOS, EOS, 9), expected, "the tokens")

    @weight(1)
    def test_max_length(self, student, seed):
        """No row is longer than `max_length`, in which `bos_id` counts; 1 leaves `bos_id` alone."""
        draw = Draw(seed)
        source = _sentences(draw, 6, 2, 7)
        full = torch.cat([torch.full((3, 1), BOS), source], dim=1)
        full[1, 4:] = FILL
        for length in (5, 2, 1):
            seen = student.greedy_decode(Writer(draw), source, BOS, EOS, length)
            equal(seen, full[:, :length], f"the tokens for max_length={length}")

    @weight(0.5)
    def test_stops(self, student, seed):
        """Decoding stops when all rows are finished, long before a large `max_length`."""
        draw = Draw(seed)
        source = _sentences(draw, 1, 2, size=40)
        model = Writer(draw)
        seen = student.greedy_decode(model, source, BOS, EOS, 40)
        shaped(seen, (2, 4), what="the tokens")
        # Three steps are needed; decoding each row alone, or one step too many, is no harm.
        assert model._decoded <= 8, (
            f"3 steps finish both rows, but decode was called {model._decoded} times"
        )

    @weight(1.25)
    def test_what_ends_a_row(self, student, seed):
        """Only a produced `eos_id` ends a row: not `bos_id`, even if it equals `eos_id`, and not `pad_id`."""
        draw = Draw(seed)
        source = _sentences(draw, 3, 4)
        seen = student.greedy_decode(Writer(draw), source, EOS, EOS, 8)
        expected = torch.cat([torch.full((2, 1), EOS), source[:, :5]], dim=1)
        expected[0, 5] = FILL
        equal(seen, expected, "the tokens where bos_id and eos_id are the same")
        source[:, 1], source[:, 2] = FILL, BOS
        seen = student.greedy_decode(Writer(draw), source, BOS, EOS, 8)
        expected = torch.cat([torch.full((2, 1), BOS), source[:, :5]], dim=1)
        expected[0, 5] = FILL
        equal(seen, expected, "the tokens where pad_id and then bos_id are the most likely")
        seen = student.greedy_decode(Writer(draw), source, BOS, EOS, 3)
        equal(seen, expected[:, :3], "the tokens where pad_id is the last one written")

    @weight(1)
    def test_evaluation_mode(self, student, seed):
        """The model runs in evaluation mode and is afterwards in the mode in which it was."""
        draw = Draw(seed)
        for training, length in ((True, 8), (False, 8), (True, 3), (True, 1)):
            model = Writer(draw).train(training)
            seen = student.greedy_decode(model, _sentences(draw, 2, 3), BOS, EOS, length)
            assert model._decoded or length == 1, "the model's decode is never called"
            assert not any(model._training), "the model was called in training mode"
            shaped(seen, (2, min(length, 5)), what="the tokens")
            before, after = ("train" if mode else "eval" for mode in (training, model.training))
            assert before == after, (
                f"with max_length={length}, the model was in {before}() before, and is in "
                f"{after}() afterwards"
            )

    @weight(1)
    def test_no_gradients(self, student, seed):
        """The model runs without gradients, even where the caller has them on."""
        draw = Draw(seed)
        model = Writer(draw)
        with torch.enable_grad():
            seen = student.greedy_decode(model, _sentences(draw, 2, 3), BOS, EOS, 8)
        assert model._decoded, "the model's decode is never called"
        shaped(seen, (2, 5), what="the tokens")
        assert not any(model._gradients), "the model was called with gradients on"

    @weight(1.25)
    def test_encodes_once(self, student, seed):
        """The source is encoded once, however many tokens are written."""
        draw = Draw(seed)
        model = Writer(draw)
        seen = student.greedy_decode(model, _sentences(draw, 2, 5), BOS, EOS, 8)
        shaped(seen, (2, 7), what="the tokens")
        assert model._encoded <= 1, f"encode was called {model._encoded} times"

    @weight(0.25)
    def test_device(self, student):
        """The tokens are on the device of the source."""
        # `bos_id` alone, as all that follows is chosen by values, which are not there to be read.
        model, source = Undecided(Draw(0)), torch.zeros(2, 5, dtype=torch.long, device="meta")
        on_meta(lambda: student.greedy_decode(model, source, BOS, EOS, 1), (2, 1), "the tokens")

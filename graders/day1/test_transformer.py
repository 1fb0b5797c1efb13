"""Hidden tests for the Transformer chapter. The oracles use torch's own layers in float64."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autograder.execution.checks import (
    Draw,
    backpropagate,
    close,
    describe,
    equal,
    finite,
    leaf_gradient,
    on_meta,
    redrawn,
    shaped,
    unchanged,
    value_error,
    weight,
)
from autograder.execution.student import StudentError
from graders.day1.test_attention import check_dtype
from graders.day1.test_layers import (
    DTYPE_TOLERANCES,
    apply_norm,
    decoder_weights,
    encoder_weights,
    torch_decoder_layer,
    torch_encoder_layer,
)
from graders.equivalent_calls import first_supported

# All sizes differ, including the number of heads and the head size. The padding id is neither the
# first nor the last id.
SOURCE_VOCAB, TARGET_VOCAB, D, HEADS, D_FF, PAD = 12, 9, 6, 3, 10, 4
SIZES = {"d_model": D, "n_heads": HEADS, "d_ff": D_FF, "pad_id": PAD, "max_length": 11}

# The message of a ValueError must contain one of these names. The error may come from the
# positional encoding or from an earlier exercise, where the arguments have different names.
LENGTH_NAMES = ("source", "target", "max_length", "length", "n", "m", "x", "tokens")


def _shuffled_ids(draw: Draw, vocab: int, *shape: int) -> Tensor:
    """Return token ids in random order. They include every id of the vocabulary if the shape has room for them."""
    return draw.uniform(math.prod(shape)).argsort().reshape(shape) % vocab


def _draw_ids(draw: Draw, vocab: int, *shape: int) -> Tensor:
    """Return token ids without padding, in random order."""
    tokens = _shuffled_ids(draw, vocab - 1, *shape)
    return tokens + (tokens >= PAD)


def _outer_weights(draw: Draw) -> dict[str, Tensor]:
    """Return random weights for the embeddings and `output`, with embeddings small enough for positions to matter."""
    return {
        "source_embedding.weight": draw.normal(SOURCE_VOCAB, D, scale=0.5),
        "target_embedding.weight": draw.normal(TARGET_VOCAB, D, scale=0.5),
        "output.weight": draw.normal(TARGET_VOCAB, D),
        "output.bias": draw.normal(TARGET_VOCAB),
    }


def _all_weights(draw: Draw, n_layers: int = 1) -> dict[str, Tensor]:
    """Return random weights for the whole model."""
    weights = _outer_weights(draw)
    for i in range(n_layers):
        weights |= {f"encoder.{i}.{name}": w for name, w in encoder_weights(draw, D, D_FF).items()}
        weights |= {f"decoder.{i}.{name}": w for name, w in decoder_weights(draw, D, D_FF).items()}
    return weights


def _with_zero_outputs(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of the weights, changed so that attention and feed-forward networks output 0."""
    last = (".out.", ".linear2.")
    return {n: w * (not any(part in n for part in last)) for n, w in weights.items()}


def _layer_weights(weights: dict[str, Tensor], stack: str) -> Iterator[dict[str, Tensor]]:
    """Yield the weights of each layer in `stack`, which is "encoder" or "decoder"."""
    i = 0
    while layer := {
        n.split(".", 2)[2]: w for n, w in weights.items() if n.startswith(f"{stack}.{i}.")
    }:
        yield layer
        i += 1


def _embed(tokens: Tensor, table: Tensor) -> Tensor:
    """Return √d · embedding + positional encoding for the tokens, in float64."""
    d = table.shape[1]
    positions = torch.arange(tokens.shape[1], dtype=torch.float64)
    encoding = torch.empty(tokens.shape[1], d, dtype=torch.float64)
    for i in range(0, d, 2):
        angle = positions / 10000 ** (i / d)
        encoding[:, i], encoding[:, i + 1] = angle.sin(), angle.cos()
    return table.double()[tokens] * d**0.5 + encoding


def _encode_oracle(source: Tensor, weights: dict[str, Tensor], heads: int = HEADS) -> Tensor:
    """Return the memory, computed by torch's layers in float64."""
    x = _embed(source, weights["source_embedding.weight"])
    for layer in _layer_weights(weights, "encoder"):
        x = torch_encoder_layer(layer, heads)(x, src_key_padding_mask=source == PAD)
    return x


def _decode_oracle(
    target: Tensor, memory: Tensor, source: Tensor, weights: dict[str, Tensor]
) -> Tensor:
    """Return the logits, computed by torch's layers in float64."""
    n = target.shape[1]
    future = torch.ones(n, n, dtype=torch.bool).triu(1)
    x = _embed(target, weights["target_embedding.weight"])
    for layer in _layer_weights(weights, "decoder"):
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
        n_layers = max(1, len(list(_layer_weights(weights, "encoder"))))
        sizes = SIZES | {"n_layers": n_layers} | sizes
        model = student.Transformer(SOURCE_VOCAB, TARGET_VOCAB, **sizes)
        model.load(weights)
        return model.eval()

    @weight(1)
    def test_parts(self, student):
        """All parts of the model have the documented names, each stack has `n_layers` layers, and no weights are shared."""
        vocab = TARGET_VOCAB
        model = student.Transformer(vocab, vocab, **SIZES, n_layers=2)
        for stack in ("encoder", "decoder"):
            length = model.length(stack)
            assert length == 2, (
                f"with n_layers=2, `{stack}` should have 2 layers; yours has {length}"
            )
        draw = Draw(0)
        weights = _all_weights(draw, n_layers=2)
        weights["source_embedding.weight"] = draw.normal(vocab, D)
        model.load(weights)
        parameters = model.weights()
        for name, value in weights.items():
            close(parameters[name], value, f"`{name}` after loading all weights")
        pad_id = model.get("pad_id")
        assert pad_id == PAD, (
            f"`pad_id` should be {PAD}, as passed to the constructor; yours is {describe(pad_id)}"
        )

    @weight(1)
    def test_embedding(self, student, seed):
        """If all sublayers return 0, only the norms and `output` are applied to √d_model · embedding + positional encoding."""
        # Layers whose sublayers output 0 only normalise their input.
        draw = Draw(seed)
        weights = _with_zero_outputs(_all_weights(draw))
        source, target = _draw_ids(draw, SOURCE_VOCAB, 2, 7), _draw_ids(draw, TARGET_VOCAB, 2, 5)
        model = self._model(student, weights)
        x, y = (
            _embed(tokens, weights[f"{side}_embedding.weight"])
            for side, tokens in (("source", source), ("target", target))
        )
        for norm in ("encoder.0.norm1", "encoder.0.norm2"):
            x = apply_norm(x, weights, norm)
        for norm in ("decoder.0.norm1", "decoder.0.norm2", "decoder.0.norm3"):
            y = apply_norm(y, weights, norm)
        expected = F.linear(y, weights["output.weight"].double(), weights["output.bias"].double())
        what = "if all sublayers return 0"
        close(model.encode(source), x, f"the result of encode {what}", 1e-3, 1e-3, torch.float32)
        actual = model.decode(target, x.float(), source)
        close(actual, expected, f"the result of decode {what}", 1e-3, 1e-3, torch.float32)

    @weight(1.5)
    def test_encode(self, student, seed):
        """`encode` embeds the source and applies all encoder layers; without padding, no position is masked."""
        draw = Draw(seed)
        weights = _all_weights(draw, n_layers=2)
        source = _draw_ids(draw, SOURCE_VOCAB, 3, 7)
        actual = self._model(student, weights).encode(source)
        unchanged(student)
        close(actual, _encode_oracle(source, weights), "the memory", 1e-3, 1e-3, torch.float32)

    @weight(1.5)
    def test_decode(self, student, seed):
        """`decode` embeds the target, applies all decoder layers with the memory and a causal mask, and then applies `output`."""
        draw = Draw(seed)
        weights = _all_weights(draw, n_layers=2)
        source, target = _draw_ids(draw, SOURCE_VOCAB, 2, 7), _draw_ids(draw, TARGET_VOCAB, 2, 5)
        memory = draw.normal(2, 7, D)
        actual = self._model(student, weights).decode(target, memory, source)
        unchanged(student)
        close(
            actual,
            _decode_oracle(target, memory, source, weights),
            "the logits",
            1e-3,
            1e-3,
            torch.float32,
        )

    @weight(1)
    def test_forward(self, student, seed):
        """The model encodes the source and returns the logits of `decode`, masking padding in source and target."""
        draw = Draw(seed)
        weights = _all_weights(draw, n_layers=2)
        for side in ("source", "target"):
            weights[f"{side}_embedding.weight"][PAD] *= 9
        # The sublayers have small outputs and the norms have small biases, so the vectors of different tokens
        # stay distinct, and any attention to padding changes the logits.
        small = re.compile(r"\.(out|linear2)\.|\.norm\d\.bias")
        weights = {name: w * 0.3 if small.search(name) else w for name, w in weights.items()}
        model = self._model(student, weights)
        # The two batches have different padding, because one call must not affect the next.
        for start in (0, 1):
            source, target = (
                _draw_ids(draw, SOURCE_VOCAB, 3, 7),
                _draw_ids(draw, TARGET_VOCAB, 3, 5),
            )
            source[start, 4:], source[1 - start, 0] = PAD, PAD
            target[start, 3:], target[2, 1 + start] = PAD, PAD
            actual = shaped(
                model(source, target), (3, 5, TARGET_VOCAB), torch.float32, "the logits"
            )
            memory, real = _encode_oracle(source, weights), target != PAD
            expected = _decode_oracle(target, memory, source, weights)[real]
            close(actual[real], expected, "the logits at real targets", 1e-3, 1e-3, torch.float32)
        real, what = source != PAD, "the memory at real tokens"
        read = shaped(model.encode(source), (3, 7, D), torch.float32, "the memory")
        close(read[real], memory[real], what, 1e-3, 1e-3, torch.float32)
        what = "the logits in bfloat16"
        shaped(model.to(torch.bfloat16)(source, target), actual.shape, torch.bfloat16, what)

    @weight(1)
    def test_source_padding(self, student, seed):
        """The amount of padding after the source does not affect the logits or the memory of real tokens,
        even after a model with a different `pad_id` has been created.
        """
        draw = Draw(seed)
        model = self._model(student, _outer_weights(draw))
        student.Transformer(SOURCE_VOCAB, TARGET_VOCAB, **SIZES | {"pad_id": PAD + 1})
        source, target = _draw_ids(draw, SOURCE_VOCAB, 2, 4), _draw_ids(draw, TARGET_VOCAB, 2, 6)
        padded = F.pad(source, (0, 5), value=PAD)
        memory = finite(shaped(model.encode(source), (2, 4, D), what="the memory"))
        actual = shaped(model.encode(padded), (2, 9, D), what="the memory")
        close(
            actual[:, :4], memory, "the memory of the real tokens in the padded source", atol=1e-4
        )
        logits = finite(shaped(model(source, target), (2, 6, TARGET_VOCAB), what="the logits"))
        close(model(padded, target), logits, "the logits for the padded source", atol=1e-4)
        # The memory's values at padding positions must not affect the logits, even if the model has encoded
        # a different source since.
        model.encode(_draw_ids(draw, SOURCE_VOCAB, 2, 9))
        memory = F.pad(memory, (0, 0, 0, 5), value=3.0)
        actual = model.decode(target, memory, padded)
        unchanged(student)
        what = "the logits if the memory is set to 3 at padding, after a different source has been encoded"
        close(actual, logits, what, atol=1e-4)

    @weight(1)
    def test_future(self, student, seed):
        """Changing a target token changes the logits at its own position, but at no earlier position."""
        draw = Draw(seed)
        model = self._model(student, _outer_weights(draw))
        source = _draw_ids(draw, SOURCE_VOCAB, 2, 4)
        target = torch.tensor([[1, 2, 3, 5, 6], [2, 1, 5, 3, 7]])
        changed = target.clone()
        changed[:, 3:] = torch.tensor([[7, 8], [8, 0]])
        before = finite(shaped(model(source, target), (2, 5, TARGET_VOCAB), what="the logits"))
        after = finite(shaped(model(source, changed), (2, 5, TARGET_VOCAB), what="the logits"))
        close(
            after[:, :3],
            before[:, :3],
            "the logits at positions before the changed tokens",
            atol=1e-4,
        )
        difference = (after - before)[:, 3:].abs().amax(-1)
        assert (difference > 1e-5).all(), (
            "changing a target token should change the logits at its own position; "
            "at some positions, your logits do not change"
        )
        for n in (3, 1):
            actual = shaped(model(source, target[:, :n]), (2, n, TARGET_VOCAB), what="the logits")
            close(actual, before[:, :n], "the logits of a shorter target", atol=1e-4)

    @weight(0.5)
    def test_target_padding(self, student, seed):
        """No position attends to padding in the target, wherever the padding is; `pad_id` defaults to 0."""
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
        what = "the logits at real targets after changing the embeddings of padding"
        close(after[real], finite(before[real], what), what, atol=1e-4)

    @weight(0.5)
    def test_only_padding(self, student, seed):
        """A source that is all padding gives finite logits and gradients and does not affect other rows in the batch."""
        draw = Draw(seed)
        model = self._model(student, _outer_weights(draw))
        source, target = _draw_ids(draw, SOURCE_VOCAB, 2, 5), _draw_ids(draw, TARGET_VOCAB, 2, 3)
        source[0, 4] = PAD
        alone = finite(
            shaped(model(source[:1], target[:1]), (1, 3, TARGET_VOCAB), what="the logits")
        )
        source[1] = PAD
        weights = model.weights()
        actual = finite(model(source, target), "the logits")
        close(actual[:1], alone, "the logits of the other row", atol=1e-4)
        backpropagate(actual, actual.detach(), "the logits")
        for name in _outer_weights(draw):
            leaf_gradient(weights[name], f"`{name}`")

    @weight(0.5)
    def test_too_long(self, student, seed):
        """A source or target of `max_length` tokens is accepted; a longer one raises a ValueError, even if it is all padding."""
        draw = Draw(seed)
        model = student.Transformer(
            SOURCE_VOCAB, TARGET_VOCAB, **(SIZES | {"max_length": 5}), n_layers=1
        ).eval()
        # The number of sequences is also above max_length, which must not matter.
        source, target = _draw_ids(draw, SOURCE_VOCAB, 6, 6), _draw_ids(draw, TARGET_VOCAB, 6, 6)
        what = "the logits for 6 sequences of 5 tokens with max_length=5"
        finite(model(source[:, :5], target[:, :5]), what)
        with value_error(*LENGTH_NAMES, when="the source has 6 tokens and max_length is 5"):
            model(source, target[:, :5])
        with value_error(*LENGTH_NAMES, when="the target has 6 tokens and max_length is 5"):
            model(source[:, :5], target)
        source.fill_(PAD)
        with value_error(
            *LENGTH_NAMES, when="the source is 6 tokens of padding and max_length is 5"
        ):
            model.encode(source)

    @weight(0.5)
    def test_defaults(self, student, seed):
        """All arguments except the vocabulary sizes have the default values given in the stub."""
        model = student.Transformer(5, 7)
        memory = model.encode(torch.ones(1, 1, dtype=torch.long))
        shaped(memory, (1, 1, 64), what="the memory with the default d_model")
        shapes = {"output.weight": (7, 64), "encoder.1.feed_forward.linear1.weight": (128, 64)}
        weights = model.weights()
        for name, shape in shapes.items():
            assert name in weights, f"your model should have a parameter `{name}`"
            shaped(weights[name], shape, what=f"`{name}`")
        length, pad_id = model.length("decoder"), model.get("pad_id")
        assert length == 2, f"`n_layers` should default to 2; your decoder has {length} layers"
        assert pad_id == 0, f"`pad_id` should default to 0; yours is {describe(pad_id)}"
        pad_id = student.Transformer(5, 7, 2, 1, 1, 3, 0.0, 4, 9).get("pad_id")
        assert pad_id == 4, (
            "for `Transformer(5, 7, 2, 1, 1, 3, 0.0, 4, 9)`, `pad_id` should be 4; "
            f"yours is {describe(pad_id)}"
        )
        model = student.Transformer(5, 7, d_model=2, n_heads=1, n_layers=1, d_ff=3).eval()
        source = torch.ones(1, 513, dtype=torch.long)
        finite(
            model.encode(source[:, :512]), "the memory of 512 tokens with the default max_length"
        )
        with value_error(
            *LENGTH_NAMES, when="the source has 513 tokens and max_length has its default value"
        ):
            model.encode(source)
        # The reference is the student's own model, with the stub's defaults passed explicitly, so that other mistakes do
        # not make this test fail.
        draw = Draw(seed)
        source, target = _draw_ids(draw, SOURCE_VOCAB, 2, 5), _draw_ids(draw, TARGET_VOCAB, 2, 4)
        loaded = {
            "source_embedding.weight": draw.normal(SOURCE_VOCAB, 8),
            "target_embedding.weight": draw.normal(TARGET_VOCAB, 8),
            "output.weight": draw.normal(TARGET_VOCAB, 8),
            "output.bias": draw.normal(TARGET_VOCAB),
        }
        layers = {
            "encoder.0": encoder_weights(draw, 8, 10),
            "decoder.0": decoder_weights(draw, 8, 10),
        }
        for layer, weights in layers.items():
            loaded |= {f"{layer}.{name}": value for name, value in weights.items()}
        sizes = {"d_model": 8, "n_layers": 1, "d_ff": 10, "pad_id": PAD}
        models = [
            student.Transformer(SOURCE_VOCAB, TARGET_VOCAB, **sizes, **options)
            for options in ({}, {"n_heads": 4, "dropout": 0.0})
        ]
        for model in models:
            model.load(loaded)
        what = "the memory with the default n_heads"
        given = finite(shaped(models[1].eval().encode(source), (2, 5, 8), what=what), what)
        close(models[0].eval().encode(source), given, what, 1e-4, 1e-4)
        logits = models[1].decode(target, given, source)
        what = "the memory in training mode with the default dropout"
        close(models[0].train().encode(source), given, what, 1e-4, 1e-4)
        what = "the logits in training mode with the default dropout"
        logits = finite(shaped(logits, (2, 4, TARGET_VOCAB), what=what), what)
        close(models[0].decode(target, given, source), logits, what, 1e-4, 1e-4)

    @weight(0.5)
    def test_dropout(self, student, seed):
        """In training mode, dropout is applied to the embedding plus the positional encoding. It is off in evaluation mode."""
        draw = Draw(seed)
        source, target = _draw_ids(draw, SOURCE_VOCAB, 3, 7), _draw_ids(draw, TARGET_VOCAB, 3, 5)
        # All sublayers output 0, so only dropout on the input of the layers has an effect.
        model = self._model(student, _with_zero_outputs(_all_weights(draw)), dropout=0.5)
        memory = finite(shaped(model.encode(source), (3, 7, D), what="the memory"))
        close(
            model.encode(source),
            memory,
            "the memory of a second call in evaluation mode",
            atol=1e-6,
        )
        baseline = finite(
            shaped(model.decode(target, memory, source), (3, 5, TARGET_VOCAB), what="the logits")
        )
        changed = student.changed
        model.train()
        dropped = finite(shaped(model.encode(source), (3, 7, D), what="the memory"))
        assert (dropped - memory).abs().max() > 1e-3, (
            "dropout on the embedded source should change the memory in training mode, "
            "but the memory is the same as in evaluation mode"
        )
        redrawn(model.encode(source), dropped)
        actual = finite(
            shaped(model.decode(target, memory, source), baseline.shape, what="the logits")
        )
        unchanged(student, besides=changed)
        difference = actual - baseline
        assert difference.abs().max() > 1e-3, (
            "dropout on the embedded target should change the logits in training mode, "
            "but the logits are the same as in evaluation mode"
        )

    @weight(0.5)
    def test_dropout_in_layers(self, student, seed):
        """`dropout` is passed to both the encoder layers and the decoder layers."""
        draw = Draw(seed)
        source, target = _draw_ids(draw, SOURCE_VOCAB, 3, 7), _draw_ids(draw, TARGET_VOCAB, 3, 5)
        weights = _with_zero_outputs(_all_weights(draw))
        # The norm before the feed-forward network outputs a constant, which removes any earlier effect of
        # dropout. The network also outputs a constant.
        for layer, norm in (("encoder.0", "norm1"), ("decoder.0", "norm2")):
            weights[f"{layer}.{norm}.weight"] = torch.zeros(D)
            weights[f"{layer}.feed_forward.linear2.bias"] = draw.normal(D) + 3
        model = self._model(student, weights, dropout=0.5)
        memory = finite(shaped(model.encode(source), (3, 7, D), what="the memory"))
        baseline = finite(
            shaped(model.decode(target, memory, source), (3, 5, TARGET_VOCAB), what="the logits")
        )
        model.train()
        difference = finite(shaped(model.encode(source), (3, 7, D), what="the memory")) - memory
        assert difference.abs().max() > 1e-3, (
            "in training mode, your encoder layers do not apply dropout"
        )
        difference = (
            finite(shaped(model.decode(target, memory, source), baseline.shape, what="the logits"))
            - baseline
        )
        assert difference.abs().max() > 1e-3, (
            "in training mode, your decoder layers do not apply dropout"
        )

    @weight(0.5)
    def test_gradients(self, student, seed):
        """Gradients reach every parameter."""
        draw = Draw(seed)
        weights = _all_weights(draw)
        model = self._model(student, weights).train()
        source, target = _draw_ids(draw, SOURCE_VOCAB, 2, 7), _draw_ids(draw, TARGET_VOCAB, 2, 5)
        parameters = model.weights()
        logits = shaped(model(source, target), (2, 5, TARGET_VOCAB), what="the logits")
        backpropagate(logits, draw.normal(2, 5, TARGET_VOCAB), "the logits")
        for name in weights:
            # The key bias adds the same value to all scores of a query, which cancels out in the softmax.
            if ".key.bias" in name:
                continue
            found = leaf_gradient(parameters[name], f"`{name}`")
            assert found.abs().max() > 0, f"the gradient of `{name}` is all zeros"

    @weight(0.25)
    def test_device(self, student):
        """After `.to(device)`, the model works with tokens on that device."""
        model = student.Transformer(SOURCE_VOCAB, TARGET_VOCAB, **SIZES, n_layers=1)
        source, target = (torch.ones(2, n, dtype=torch.long, device="meta") for n in (7, 5))
        what = "the logits"
        on_meta(lambda: model.to("meta")(source, target), (2, 5, TARGET_VOCAB), what)


def _make_unlikely(logits: Tensor, targets: Tensor, padding: Tensor) -> Tensor:
    """Return a copy of the logits with zeros at padding. Elsewhere, make the target an unlikely class.

    With label smoothing, the loss of such logits depends on how ε is shared among the classes and on whether
    padding is included.
    """
    unlikely = logits - 3 * F.one_hot(targets, logits.shape[-1]).to(logits.dtype)
    return unlikely.masked_fill(padding.unsqueeze(-1), 0)


class TestSequenceLoss:
    exercise = "sequence_loss"

    @weight(1)
    def test_without_padding(self, student, seed):
        """Without padding or label smoothing, the loss is a scalar: the mean of −log p over the targets."""
        draw = Draw(seed)
        for b, n in ((2, 3), (3, 1)):
            logits, targets = draw.normal(b, n, 7, scale=2.0), _shuffled_ids(draw, 7, b, n)
            actual = student.sequence_loss(logits, targets, 8)
            expected = F.cross_entropy(logits.double().flatten(0, 1), targets.flatten())
            what = f"the loss for logits of shape {tuple(logits.shape)}"
            close(actual, expected, what, dtype=torch.float32)

    @weight(2)
    def test_padding(self, student, seed):
        """Padding is ignored: the loss is the mean over all other targets in the batch, each weighted equally."""
        draw = Draw(seed)
        logits, targets = draw.normal(3, 5, 7, scale=2.0), draw.integers(0, 6, 3, 5)
        targets += targets >= 2
        targets[0, 1:], targets[1, 0], targets[1, 3], targets[2, 1] = 2, 2, 2, 0
        actual = student.sequence_loss(logits, targets, 2)
        unchanged(student)
        expected = _cross_entropy(logits, targets, 2)
        close(actual, expected, "the loss", dtype=torch.float32)

    @weight(1.5)
    def test_smoothing(self, student, seed):
        """Label smoothing assigns 1 − ε to the target, plus ε/v to each of the v classes, including the target."""
        draw = Draw(seed)
        logits, targets = draw.normal(2, 4, 5), _shuffled_ids(draw, 5, 2, 4)
        logits = _make_unlikely(logits, targets, targets == 9)
        for smoothing in (0.1, 0.45):
            actual = student.sequence_loss(logits, targets, 9, label_smoothing=smoothing)
            expected = _cross_entropy(logits, targets, 9, smoothing)
            close(
                actual, expected, f"the loss with label_smoothing={smoothing}", dtype=torch.float32
            )

    @weight(1)
    def test_smoothing_with_padding(self, student, seed):
        """With label smoothing, `pad_id` is ignored as a target but counts as one of the v classes."""
        draw = Draw(seed)
        logits, targets = draw.normal(2, 5, 6), draw.integers(1, 6, 2, 5)
        targets[0, 3:], targets[1, 0] = 0, 0
        logits = _make_unlikely(logits, targets, targets == 0)
        actual = student.sequence_loss(logits, targets, 0, 0.3)
        close(actual, _cross_entropy(logits, targets, 0, 0.3), "the loss", dtype=torch.float32)

    @weight(1.5)
    def test_large_logits(self, student, seed):
        """Logits of ±10⁴ give the correct loss, both for likely and for very unlikely targets."""
        draw = Draw(seed)
        logits = draw.uniform(2, 6, 5, low=-1e4, high=1e4)
        targets = _shuffled_ids(draw, 5, 2, 6)
        # Most targets are unlikely classes, so that label smoothing changes the loss.
        logits.scatter_(-1, targets.unsqueeze(-1), draw.uniform(2, 6, 1, low=-1e4, high=-8e3))
        # One target is the most likely class by a wide margin; another is one of the least likely classes.
        logits[0, 0], targets[0, 0] = torch.tensor([-1e4, 1e4, -1e4, 0.0, 0.0]), 1
        logits[0, 1], targets[0, 1] = torch.tensor([-1e4, 1e4, -1e4, 0.0, 0.0]), 0
        for smoothing in (0.0, 0.1):
            actual = student.sequence_loss(logits, targets, 6, label_smoothing=smoothing)
            expected = _cross_entropy(logits, targets, 6, smoothing)
            what = f"the loss with label_smoothing={smoothing}"
            close(actual, expected, what, rtol=1e-4, dtype=torch.float32)
        for row, value in ((0, 0.0), (1, 2e4)):
            actual = student.sequence_loss(logits[:1, row : row + 1], targets[:1, row : row + 1], 6)
            close(actual, torch.tensor(value), "the loss for a single target", atol=1e-3, rtol=1e-4)

    @weight(1)
    def test_pad_id_is_no_class(self, student, seed):
        """`pad_id` does not have to be a valid class index: −100 and ids outside the vocabulary also work."""
        draw = Draw(seed)
        logits, targets = draw.normal(2, 5, 7), draw.integers(0, 7, 2, 5)
        padding = torch.zeros(2, 5, dtype=torch.bool)
        padding[0, 2:], padding[1, 4] = True, True
        logits = _make_unlikely(logits, targets, padding)
        for pad_id in (-100, 50):
            padded = targets.masked_fill(padding, pad_id)
            for smoothing in (0.0, 0.2):
                actual = student.sequence_loss(logits, padded, pad_id, smoothing)
                unchanged(student)
                expected = _cross_entropy(logits, padded, pad_id, smoothing)
                close(actual, expected, f"the loss with pad_id={pad_id}", dtype=torch.float32)
            # With a single class, 0 is the only valid index to replace padding with.
            only = torch.where(padding, pad_id, 0)
            actual = student.sequence_loss(logits[..., :1], only, pad_id)
            close(actual, torch.tensor(0.0), f"the loss for a single class with pad_id={pad_id}")

    @weight(1.25)
    def test_only_padding(self, student, seed):
        """If every target is padding, the loss is 0 and its gradients are zero."""
        draw = Draw(seed)
        for pad_id in (3, -100):
            logits = draw.normal(2, 3, 5).requires_grad_()
            actual = student.sequence_loss(logits, torch.full((2, 3), pad_id), pad_id, 0.1)
            actual = close(actual, torch.tensor(0.0), "the loss")
            assert actual.requires_grad, (
                "the loss should require gradients, so that backward() works; yours does not"
            )
            actual.backward()
            found = torch.zeros(2, 3, 5) if logits.grad is None else logits.grad
            close(found, torch.zeros(2, 3, 5), "the gradient of the logits")

    @weight(1)
    def test_gradients(self, student, seed):
        """The gradient of the logits is (p − y) / (number of real targets), where y is the smoothed target, and 0 at padding."""
        draw = Draw(seed)
        logits = draw.normal(2, 5, 6, scale=2.0).requires_grad_()
        targets = draw.integers(0, 6, 2, 5)
        targets[0, 3:], targets[1, 1] = -100, -100
        actual = student.sequence_loss(logits, targets, -100, 0.2)
        backpropagate(shaped(actual, (), torch.float32, "the loss"), torch.tensor(1.0), "the loss")
        copy = logits.detach().double().requires_grad_()
        _cross_entropy(copy, targets, -100, 0.2).backward()
        close(
            leaf_gradient(logits, "the logits"),
            copy.grad,
            "the gradient of the logits",
            dtype=torch.float32,
        )
        for smoothing in (0.0, 0.2):
            far = draw.uniform(2, 5, 6, low=-1e4, high=1e4).requires_grad_()
            actual = student.sequence_loss(far, targets, -100, smoothing)
            backpropagate(
                shaped(actual, (), torch.float32, "the loss"), torch.tensor(1.0), "the loss"
            )
            copy = far.detach().double().requires_grad_()
            _cross_entropy(copy, targets, -100, smoothing).backward()
            actual, what = (
                leaf_gradient(far, "logits up to ±10⁴"),
                "the gradient of logits up to ±10⁴",
            )
            close(actual, copy.grad, what, 1e-3, dtype=torch.float32)

    @weight(0.5)
    def test_dtypes(self, student, seed):
        """The loss has the dtype of the logits and is correct in half and double precision."""
        draw = Draw(seed)
        logits, targets = draw.normal(2, 3, 7, dtype=torch.float64), draw.integers(1, 7, 2, 3)
        targets[1, 2] = 0
        logits = _make_unlikely(logits, targets, targets == 0)
        # Computing the loss in float32 for every dtype is also correct.
        for dtype, tolerance in DTYPE_TOLERANCES:
            actual = student.sequence_loss(logits.to(dtype), targets, 0, 0.1)
            expected = _cross_entropy(logits.to(dtype), targets, 0, 0.1)
            close(actual, expected, f"the loss in {dtype}", tolerance, tolerance, dtype)
        actual = student.sequence_loss(logits, torch.zeros_like(targets), 0)
        shaped(actual, (), torch.float64, "the float64 loss if every target is padding")

    @weight(0.5)
    def test_strides(self, student, seed):
        """Logits and targets may be non-contiguous, like the slice `tokens[:, 1:]`."""
        draw = Draw(seed)
        logits, targets = draw.normal(3, 5, 7), _shuffled_ids(draw, 7, 3, 6)[:, 1:]
        targets[0].clamp_(min=1)
        targets[1, 1:3] = 0  # more padding than in the first sequence
        logits = draw.strided(_make_unlikely(logits, targets, targets == 0))
        actual = student.sequence_loss(logits, targets, 0, 0.1)
        close(actual, _cross_entropy(logits, targets, 0, 0.1), "the loss", dtype=torch.float32)

    @weight(0.25)
    def test_device(self, student):
        """The loss is on the same device as the logits, with and without label smoothing."""
        logits = torch.zeros(2, 3, 7, device="meta")
        targets = torch.zeros(2, 3, dtype=torch.long, device="meta")
        for smoothing in (0.0, 0.1):
            on_meta(
                lambda e=smoothing: student.sequence_loss(logits, targets, 0, e), (), "the loss"
            )


def _cross_entropy(logits: Tensor, targets: Tensor, pad_id: int, smoothing: float = 0.0) -> Tensor:
    """Return torch's cross-entropy, computed in float64."""
    return F.cross_entropy(
        logits.double().flatten(0, 1),
        targets.flatten(),
        ignore_index=pad_id,
        label_smoothing=smoothing,
    )


# The ids are in no particular order, and the special ids are not 0, 1 and 2.
BOS, EOS, DECODE_PAD, WORDS = 6, 3, 8, (0, 1, 2, 4, 5, 7)


class CopyModel(nn.Module):
    """A model that copies its source token by token and records how it is called."""

    def __init__(self, draw: Draw, pad_id: int = DECODE_PAD) -> None:
        super().__init__()
        self.pad_id, self.layer = pad_id, nn.Identity()
        self._draw = draw
        self._encode_calls = self._decode_calls = 0
        self._training_modes: list[bool] = []
        self._gradient_modes: list[bool] = []

    def _record_call(self) -> None:
        """Record the training mode and whether gradients are enabled."""
        self._training_modes.append(self.training)
        self._gradient_modes.append(torch.is_grad_enabled())

    def encode(self, source: Tensor) -> Tensor:
        """Return a memory with two features per position, both equal to the token id."""
        self._record_call()
        self._encode_calls += 1
        return source.double().unsqueeze(-1).expand(*source.shape, 2).contiguous()

    def decode(self, target: Tensor, memory: Tensor, source: Tensor) -> Tensor:
        """Return logits whose argmax at position i is the source token at position i."""
        self._record_call()
        self._decode_calls += 1
        assert tuple(source.shape) == tuple(memory.shape[:2]), (
            f"decode should receive a memory and a source with the same batch size and length; "
            f"it received shapes "
            f"{tuple(memory.shape)} and {tuple(source.shape)}"
        )
        assert len(target) == len(source), (
            f"decode should receive as many targets as sources; it received {len(target)} and {len(source)}"
        )
        return self._logits(target, memory)

    def _logits(self, target: Tensor, memory: Tensor) -> Tensor:
        following = memory[..., 0].long()[:, : target.shape[1]]
        logits = self._draw.uniform(*target.shape, 9, low=-9.0, high=-5.0)
        return logits.scatter(-1, following.unsqueeze(-1), -4.0)


class PrefixModel(CopyModel):
    """A model whose next token depends on the source and on all target tokens so far, including their order."""

    def __init__(self, draw: Draw) -> None:
        super().__init__(draw)
        self._table = draw.normal(97, 9)

    def _logits(self, target: Tensor, memory: Tensor) -> Tensor:
        factors = torch.arange(1, 1 + max(target.shape[1], memory.shape[1]))
        source_sum = (memory[..., 0].long() * factors[: memory.shape[1]]).sum(dim=-1, keepdim=True)
        target_sums = (target * factors[: target.shape[1]]).cumsum(dim=-1)
        return self._table[(source_sum * 31 + target_sums * 7) % 97]


class UniformModel(CopyModel):
    """A model that assigns all tokens the same logit, on any device."""

    def _logits(self, target: Tensor, memory: Tensor) -> Tensor:
        return torch.zeros(*target.shape, 9, device=target.device)


def _greedy_oracle(model: CopyModel, source: Tensor, length: int) -> Tensor:
    """Return the expected result of greedy decoding, computed row by row."""
    rows = []
    for row in source:
        tokens = [BOS]
        memory = row.double().reshape(1, -1, 1)
        while len(tokens) < length and (tokens[-1] != EOS or len(tokens) == 1):
            scores = model._logits(torch.tensor([tokens]), memory)
            tokens.append(int(scores[0, -1].argmax()))
        rows.append(tokens)
    longest = max(map(len, rows))
    return torch.tensor([tokens + [DECODE_PAD] * (longest - len(tokens)) for tokens in rows])


def _random_prefix_model(draw: Draw, source: Tensor, length: int) -> PrefixModel:
    """Return a `PrefixModel` for which some rows end early, some never end, and some continue after generating padding."""
    for _ in range(1000):
        model, tokens = PrefixModel(draw), torch.full((len(source), 1), BOS)
        for _ in range(length - 1):
            logits = model._logits(tokens, source.double().unsqueeze(-1))
            tokens = torch.cat([tokens, logits[:, -1:].argmax(dim=-1)], dim=1)
        unfinished = (tokens == EOS).cumsum(dim=1) == 0
        # True where a row generates pad_id and then a different token.
        continued = (tokens[:, :-1] == DECODE_PAD) & (tokens[:, 1:] != DECODE_PAD)
        last = unfinished[:, -1] & (tokens[:, -1] != DECODE_PAD)
        both = last.any() and (~unfinished).sum() >= 8
        if both and (continued & unfinished[:, 1:]).any():
            return model
    raise AssertionError("could not draw a suitable model")


def _random_sources(draw: Draw, *lengths: int, size: int = 8) -> Tensor:
    """Return a source for each length: `length` words, then EOS, then words that must be ignored."""
    source = torch.tensor(WORDS)[draw.integers(0, len(WORDS), len(lengths), size)]
    for row, length in enumerate(lengths):
        source[row, length] = EOS
    return source


def greedy_decode(student):
    """Return the student's function, for code that decodes one row at a time."""

    def rows(training: bool, model: CopyModel, source: Tensor, *args) -> Tensor:
        model.train(training)
        found = [student.greedy_decode(model, row, *args) for row in source.split(1)]
        assert all(isinstance(tokens, Tensor) and tokens.dim() == 2 for tokens in found)
        longest = max(tokens.shape[1] for tokens in found)
        return torch.cat(
            [F.pad(tokens, (0, longest - tokens.shape[1]), value=model.pad_id) for tokens in found]
        )

    def call(model: CopyModel, *args) -> Tensor:
        calls = [partial(student.greedy_decode, model, *args)]
        calls.append(partial(rows, model.training, model, *args))
        return first_supported(calls, 2)

    return call


class TestGreedyDecode:
    exercise = "greedy_decode"

    @weight(1.5)
    def test_one_row(self, student, seed):
        """The decoded row starts with `bos_id`, continues with the most likely tokens and ends with `eos_id`."""
        draw = Draw(seed)
        source = _random_sources(draw, 4)
        actual = student.greedy_decode(CopyModel(draw), source, BOS, EOS, 8)
        expected = torch.cat([torch.tensor([[BOS]]), source[:, :5]], dim=1)
        equal(actual, expected, "the tokens")
        unchanged(student)

    @weight(2)
    def test_finished_rows(self, student, seed):
        """Finished rows are padded with `model.pad_id` to the length of the longest row."""
        draw = Draw(seed)
        source = _random_sources(draw, 2, 5, 0)
        source[0, 3:5] = EOS  # must be ignored: the row is finished
        source = draw.strided(source)
        model = CopyModel(draw)
        actual = student.greedy_decode(model, source, BOS, EOS, 8)
        expected = torch.full((3, 7), DECODE_PAD)
        expected[:, 0] = BOS
        for row, length in enumerate((2, 5, 0)):
            expected[row, 1 : length + 2] = source[row, : length + 1]
        equal(actual, expected, "the tokens")

    @weight(1)
    def test_max_length(self, student, seed):
        """Unfinished rows have exactly `max_length` tokens, including `bos_id`; with max_length=1, only `bos_id` is returned."""
        draw = Draw(seed)
        source = _random_sources(draw, 6, 2, 7)
        full = torch.cat([torch.full((3, 1), BOS), source], dim=1)
        full[1, 4:] = DECODE_PAD
        for length in (5, 2, 1):
            actual = greedy_decode(student)(CopyModel(draw), source, BOS, EOS, length)
            equal(actual, full[:, :length], f"the tokens for max_length={length}")

    @weight(1.25)
    def test_what_ends_a_row(self, student, seed):
        """Only a generated `eos_id` ends a row: `pad_id` and the initial `bos_id` do not, even if `bos_id` equals `eos_id`."""
        draw = Draw(seed)
        source = _random_sources(draw, 3, 4)
        actual = greedy_decode(student)(CopyModel(draw), source, EOS, EOS, 8)
        expected = torch.cat([torch.full((2, 1), EOS), source[:, :5]], dim=1)
        expected[0, 5] = DECODE_PAD
        equal(actual, expected, "the tokens when bos_id equals eos_id")
        source[:, 1], source[:, 2] = DECODE_PAD, BOS
        actual = greedy_decode(student)(CopyModel(draw), source, BOS, EOS, 8)
        expected = torch.cat([torch.full((2, 1), BOS), source[:, :5]], dim=1)
        expected[0, 5] = DECODE_PAD
        equal(actual, expected, "the tokens when pad_id and then bos_id are the most likely tokens")
        actual = greedy_decode(student)(CopyModel(draw), source, BOS, EOS, 3)
        equal(actual, expected[:, :3], "the tokens when the last generated token is pad_id")

    @weight(1.5)
    def test_all_that_is_written(self, student, seed):
        """Each token is chosen based on all previous tokens and the source of its own row."""
        draw = Draw(seed)
        source = draw.integers(0, 9, 5, 4)
        model = _random_prefix_model(draw, source, 9)
        expected = _greedy_oracle(model, source, 9)
        equal(greedy_decode(student)(model, source, BOS, EOS, 9), expected, "the tokens")

    @weight(0.5)
    def test_stops(self, student, seed):
        """Decoding stops once all rows are finished, even if `max_length` is much larger."""
        draw = Draw(seed)
        source = _random_sources(draw, 1, 2, size=40)
        model = CopyModel(draw)
        actual = student.greedy_decode(model, source, BOS, EOS, 40)
        shaped(actual, (2, 4), what="the tokens")
        # Three steps are enough. Decoding each row separately or taking one extra step is also accepted.
        assert model._decode_calls <= 8, (
            f"both rows are finished after 3 steps, but model.decode was called {model._decode_calls} times"
        )

    @weight(1)
    def test_evaluation_mode(self, student, seed):
        """The model runs in evaluation mode; afterwards, the model and all its submodules are back in their previous mode."""
        draw = Draw(seed)
        for training, length in ((True, 8), (False, 8), (True, 3), (True, 1)):
            model = CopyModel(draw).train(training)
            actual = greedy_decode(student)(model, _random_sources(draw, 2, 3), BOS, EOS, length)
            assert model._decode_calls or length == 1, "your code never calls model.decode"
            assert not any(model._training_modes), (
                "the model, or a part of it, was in training mode when it was called"
            )
            shaped(actual, (2, min(length, 5)), what="the tokens")
            before, after = (
                "training" if mode else "evaluation" for mode in (training, model.training)
            )
            assert before == after, (
                f"with max_length={length}, the model was in {before} mode before the call "
                f"but in {after} mode after it"
            )
            assert model.layer.training == training, (
                f"with max_length={length}, the model was in {before} mode before the call, "
                "but its submodules are in a different mode after it"
            )

    @weight(1)
    def test_no_gradients(self, student, seed):
        """The model is called with gradients disabled, even if the caller has enabled them."""
        draw = Draw(seed)
        model = CopyModel(draw)
        with torch.enable_grad():
            actual = greedy_decode(student)(model, _random_sources(draw, 2, 3), BOS, EOS, 8)
        assert model._decode_calls, "your code never calls model.decode"
        shaped(actual, (2, 5), what="the tokens")
        assert not any(model._gradient_modes), "the model was called with gradients enabled"

    @weight(1.25)
    def test_encodes_once(self, student, seed):
        """The source is encoded only once, however many tokens are generated."""
        draw = Draw(seed)
        model = CopyModel(draw)
        actual = student.greedy_decode(model, _random_sources(draw, 2, 5), BOS, EOS, 8)
        shaped(actual, (2, 7), what="the tokens")
        assert model._encode_calls <= 1, (
            f"model.encode should be called only once; it was called {model._encode_calls} times"
        )

    @weight(0.25)
    def test_device(self, student):
        """The tokens have the dtype of the source and are on the same device."""
        source = _random_sources(Draw(0), 2, 3).int()
        for max_length in (8, 1):
            what = f"the tokens for an int32 source and max_length={max_length}"
            # Code may be written for int64 alone, which is what the course uses.
            with suppress(StudentError):
                actual = student.greedy_decode(CopyModel(Draw(0)), source, BOS, EOS, max_length)
                check_dtype(actual, torch.int32, what)
        # The result is only `bos_id`: choosing more tokens would require values, which meta tensors do not have.
        model, source = UniformModel(Draw(0)), torch.zeros(2, 5, dtype=torch.long, device="meta")
        on_meta(lambda: student.greedy_decode(model, source, BOS, EOS, 1), (2, 1), "the tokens")

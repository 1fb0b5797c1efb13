"""Hidden tests for the masking chapter."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.execution.checks import (
    Draw,
    close,
    equal,
    finite,
    on_meta,
    pair,
    shaped,
    unchanged,
    weight,
)
from graders.day1.test_attention import LOOSE, gradients, leaves, pair_on_meta, scores_oracle
from graders.equivalent_calls import attention_like


def as_bool(actual: Any, shape: tuple[int, ...]) -> Tensor:
    """Check the shape of a mask and return the mask as booleans; a separate test checks the dtype."""
    return finite(shaped(actual, shape, what="the mask"), "the mask").detach().bool()


def check_boolean(actual: Any) -> None:
    """Check that a mask is boolean."""
    assert isinstance(actual, Tensor), "the mask should be a tensor; yours is not"
    assert actual.dtype == torch.bool, f"the mask should be boolean; yours has dtype {actual.dtype}"


def padding_oracle(tokens: Tensor, pad_id: int) -> Tensor:
    """Return the padding mask, computed token by token."""
    return torch.tensor([[[token != pad_id for token in row]] for row in tokens.tolist()])


def decoder_oracle(tokens: Tensor, pad_id: int) -> Tensor:
    """Return the decoder mask, built row by row: query i may attend to the real tokens up to position i."""
    rows = []
    for i in range(tokens.shape[1]):
        row = tokens != pad_id
        row[:, i + 1 :] = False
        rows.append(row)
    return torch.stack(rows, dim=1)


def masked_oracle(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Compute masked attention in float64; the output and weights are 0 for a query that cannot attend to any key."""
    scores = scores_oracle(query, key)
    highest = scores.masked_fill(~mask, -1e30).amax(dim=-1, keepdim=True).detach()
    exponentials = (scores - highest).masked_fill(~mask, -1e30).exp() * mask
    weights = exponentials / exponentials.sum(dim=-1, keepdim=True).clamp(min=1e-30)
    return torch.einsum("...nm,...mv->...nv", weights, value.double()), weights


def check_attention(
    actual: Any, expected: tuple[Tensor, Tensor], what: str, *tolerance: float
) -> None:
    """Compare the attention weights, and then the output, with the expected values."""
    output, weights = pair(actual, "output", "weights")
    tolerance = tolerance or (1e-4, 1e-4)
    close(weights, expected[1], f"the weights {what}", *tolerance, dtype=torch.float32)
    close(output, expected[0], f"the output {what}", *tolerance, dtype=torch.float32)


def check_consistent(
    actual: Any, mask: Tensor, value: Tensor, what: str, atol: float = 1e-4
) -> None:
    """Check that masked keys get weight 0, the other weights sum to 1, and the output is the weighted sum of the values."""
    output, weights = pair(actual, "output", "weights")
    allowed_keys = mask.expand(*value.shape[:-2], 3, 5)
    finite(
        shaped(weights, allowed_keys.shape, torch.float32, f"the weights {what}"),
        f"the weights {what}",
    )
    shaped(output, (*value.shape[:-2], 3, 6), torch.float32, f"the output {what}")
    # A separate test checks that the weights of masked keys are exactly 0.
    worst = (weights * ~allowed_keys).abs().max().item()
    assert worst < 1e-4, (
        f"the weights {what} should be 0 for masked keys; your largest absolute value is {worst:.3g}"
    )
    assert bool((weights >= 0).all()), (
        f"the weights {what} should not be negative; your smallest is {weights.min().item():.3g}"
    )
    totals = allowed_keys.any(dim=-1).float()
    close(weights.sum(dim=-1), totals, f"the sum of each query's weights {what}", atol, 1e-4)
    expected = torch.einsum("...nm,...mv->...nv", weights.double(), value.double())
    close(output, expected, f"the output {what}", **LOOSE, dtype=torch.float32)


def random_qkv(draw: Draw, *leading: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return random queries (3 × 4), keys (5 × 4) and values (5 × 6)."""
    shapes = ((3, 4), (5, 4), (5, 6))
    return [draw.normal(*leading, *shape, dtype=dtype) for shape in shapes]


def random_mask(draw: Draw, *shape: int) -> Tensor:
    """Return a random mask. Every row allows at least two keys, and one particular key is masked in all rows."""
    hidden = int(draw.integers(0, shape[-1], 1))
    scores = draw.uniform(*shape)
    scores[..., hidden] = -1.0
    mask = (scores >= scores.topk(2, dim=-1).values[..., 1:]) | draw.mask(*shape)
    mask[..., hidden] = False
    return mask


def check_gradients(student: Any, draw: Draw, empty_rows: bool) -> None:
    """Compare the student's gradients with the oracle's. If `empty_rows` is true, two queries cannot attend to any key."""
    inputs, mask = random_qkv(draw, 2), random_mask(draw, 2, 3, 5)
    if empty_rows:
        mask[0, 2] = mask[1, 1] = False
    upstream = [draw.normal(2, 3, 6), draw.normal(2, 3, 5)]
    exact, given = leaves(*(x.double() for x in inputs)), leaves(*inputs)
    expected = gradients(list(masked_oracle(*exact, mask)), exact, upstream)
    output, weights = pair(
        attention_like(student.masked_attention)(*given, mask), "output", "weights"
    )
    shaped(output, (2, 3, 6), torch.float32, "the output")
    shaped(weights, (2, 3, 5), torch.float32, "the weights")
    found = gradients([output, weights], given, upstream)
    for name, actual, want in zip(("queries", "keys", "values"), found, expected, strict=True):
        finite(actual, f"the gradient of the {name}")
        close(actual, want, f"the gradient of the {name}", **LOOSE, dtype=torch.float32)
    # These scores are so far apart that most weights are 0.
    far = leaves(300 * inputs[0], inputs[1], inputs[2])
    actual = pair(attention_like(student.masked_attention)(*far, mask), "output", "weights")
    for name, got in zip(
        ("queries", "keys", "values"), gradients(actual, far, upstream), strict=True
    ):
        finite(got, f"the gradient of the {name} for widely spread scores")


class TestPaddingMask:
    exercise = "padding_mask"

    @weight(0.5)
    def test_dtype(self, student, seed):
        """The mask is boolean (True where attention is allowed), not additive."""
        tokens = Draw(seed).integers(0, 3, 2, 5)
        check_boolean(student.padding_mask(tokens, 0))

    @weight(2)
    def test_padding_behind(self, student, seed):
        """The mask has shape (b, 1, m) and is True for real tokens and False for the padding after them."""
        draw = Draw(seed)
        tokens = draw.integers(1, 9, 3, 6)
        for row, length in enumerate((2, 6, 5)):
            tokens[row, length:] = 0
        actual = as_bool(student.padding_mask(tokens, 0), (3, 1, 6))
        equal(actual, padding_oracle(tokens, 0), "the mask")

    @weight(2)
    def test_any_pad_id(self, student, seed):
        """`pad_id` can be any integer; tokens with smaller or larger ids are real tokens."""
        draw = Draw(seed)
        for pad_id in (3, 1, 700, -100):
            tokens = draw.integers(pad_id - 1, pad_id + 2, 2, 9)
            tokens[:, 4], tokens[:, 7], tokens[:, 5] = pad_id + 1, pad_id - 1, pad_id
            actual = as_bool(student.padding_mask(tokens, pad_id), (2, 1, 9))
            equal(actual, padding_oracle(tokens, pad_id), f"the mask for pad_id={pad_id}")

    def test_padding_anywhere(self, student, seed):
        """Padding can also be at the start or in the middle of a sequence."""
        draw = Draw(seed)
        tokens = draw.integers(0, 3, 4, 7)
        tokens[0] = torch.tensor([0, 0, 5, 4, 0, 2, 0])
        tokens[3] = 0
        actual = as_bool(student.padding_mask(tokens, 0), (4, 1, 7))
        equal(actual, padding_oracle(tokens, 0), "the mask")

    @weight(0.5)
    def test_no_padding(self, student, seed):
        """If `pad_id` does not occur in `tokens`, no token is masked."""
        draw = Draw(seed)
        tokens = draw.uniform(10).argsort().reshape(2, 5) % 9  # every id from 0 to 8
        for pad_id in (-1, 50_000):
            actual = as_bool(student.padding_mask(tokens, pad_id), (2, 1, 5))
            equal(actual, torch.ones(2, 1, 5).bool(), f"the mask for pad_id={pad_id}")

    @weight(0.5)
    def test_smallest(self, student, seed):
        """The mask is correct for a single sequence with a single token."""
        token = int(Draw(seed).integers(1, 9, 1))
        for pad_id, real in ((token, False), (token + 1, True)):
            actual = as_bool(student.padding_mask(torch.tensor([[token]]), pad_id), (1, 1, 1))
            equal(
                actual,
                torch.tensor([[[real]]]),
                f"the mask for tokens [[{token}]] and pad_id={pad_id}",
            )

    @weight(0.5)
    def test_tokens(self, student, seed):
        """`tokens` may be non-contiguous and is not modified in place."""
        draw = Draw(seed)
        tokens = draw.integers(0, 3, 4, 5)
        tokens[1, :3] = torch.tensor([1, 2, 0])
        tokens = draw.strided(tokens)
        actual = student.padding_mask(tokens, 1)
        unchanged(student)
        equal(as_bool(actual, (4, 1, 5)), padding_oracle(tokens, 1), "the mask")

    @weight(0.5)
    def test_device(self, student):
        """The mask is on the same device as `tokens`."""
        tokens = torch.zeros(2, 5, dtype=torch.int64, device="meta")
        on_meta(lambda: student.padding_mask(tokens, 0), (2, 1, 5), "the mask")


class TestCausalMask:
    exercise = "causal_mask"

    @weight(0.5)
    def test_dtype(self, student):
        """The mask is boolean (True where attention is allowed), not additive."""
        check_boolean(student.causal_mask(4))

    @weight(0.5)
    def test_past(self, student):
        """Each position may attend to all positions before it."""
        mask = as_bool(student.causal_mask(6), (6, 6))
        for i in range(6):
            for j in range(i):
                assert bool(mask[i, j]), (
                    f"position {i} should be allowed to attend to position {j}: row {i}, column {j} should be True"
                )

    @weight(0.5)
    def test_own_position(self, student):
        """Each position may attend to itself: the diagonal is True."""
        mask = as_bool(student.causal_mask(5), (5, 5))
        for i in range(5):
            assert bool(mask[i, i]), (
                f"position {i} should be allowed to attend to itself: row {i}, column {i} should be True"
            )

    @weight(1.5)
    def test_future(self, student):
        """A position may attend to earlier positions but not to later ones."""
        mask = as_bool(student.causal_mask(7), (7, 7))
        for i in range(7):
            for j in range(i + 1, 7):
                assert not mask[i, j], (
                    f"position {i} must not attend to position {j}: "
                    f"row {i}, column {j} should be False"
                )
        assert bool(mask[3, 1]), (
            "position 3 should be allowed to attend to position 1: row 3, column 1 should be True"
        )

    @weight(2)
    def test_sizes(self, student):
        """The mask is correct for every length: True where j ≤ i, False elsewhere."""
        for n in (2, 3, 11, 29, 270):
            expected = torch.arange(n) <= torch.arange(n).unsqueeze(1)
            equal(as_bool(student.causal_mask(n), (n, n)), expected, f"the mask for n={n}")

    @weight(0.5)
    def test_smallest(self, student):
        """The mask is also correct for n = 1 and n = 0, with the same dtype as for n = 2."""
        dtype = shaped(student.causal_mask(2), (2, 2), what="the mask for n=2").dtype
        one = shaped(student.causal_mask(1), (1, 1), dtype, "the mask for n=1")
        equal(as_bool(one, (1, 1)), torch.tensor([[True]]), "the mask for n=1")
        shaped(student.causal_mask(0), (0, 0), dtype, "the mask for n=0")

    @weight(0.5)
    def test_device(self, student):
        """The mask is on the given `device` (a string or a `torch.device`) and has the same dtype as without `device`."""
        expected = torch.tensor([[True, False], [True, True]])
        dtype = shaped(student.causal_mask(2), (2, 2), what="the mask without `device`").dtype
        given = shaped(student.causal_mask(2, "cpu"), (2, 2), dtype, "the mask on 'cpu'")
        equal(as_bool(given, (2, 2)), expected, "the mask on 'cpu'")
        for device in ("meta", torch.device("meta")):
            on_meta(lambda device=device: student.causal_mask(3, device=device), (3, 3), "the mask")


class TestDecoderMask:
    exercise = "decoder_mask"

    @weight(0.5)
    def test_dtype(self, student, seed):
        """The mask is boolean (True where attention is allowed), not additive."""
        check_boolean(student.decoder_mask(Draw(seed).integers(0, 3, 2, 5), 0))

    def test_future(self, student, seed):
        """Without padding, the mask of each sequence is the causal mask, even for long sequences."""
        for b, n in ((2, 5), (1, 270)):
            tokens = Draw(seed).integers(1, 9, b, n)
            actual = as_bool(student.decoder_mask(tokens, 0), (b, n, n))
            equal(actual, decoder_oracle(tokens, 0), f"the mask for {n} tokens without padding")

    def test_padded_keys(self, student, seed):
        """No query can attend to the padding at the end of a sequence, not even a query that is itself padding."""
        tokens = Draw(seed).integers(1, 9, 3, 6)
        for row, length in enumerate((4, 6, 1)):
            tokens[row, length:] = 0
        actual = as_bool(student.decoder_mask(tokens, 0), (3, 6, 6))
        assert bool(actual[1].any()), (
            "sequence 1 has no padding, but your mask does not allow any attention in this sequence"
        )
        for row, length in ((0, 4), (2, 1)):
            assert bool(actual[row, 0, 0]), (
                f"token 0 of sequence {row} is not padding, so row 0, column 0 of the sequence's mask should be True"
            )
            assert not actual[row, :, length:].any(), (
                f"in sequence {row}, the tokens from index {length} on are padding, "
                f"but your mask allows attention to at least one of them"
            )

    def test_padded_queries(self, student, seed):
        """A query that is padding can still attend to the real tokens before it, so its row is not all False."""
        tokens = Draw(seed).integers(1, 9, 2, 6)
        tokens[0, 3:] = tokens[1, 4:] = 0
        actual = as_bool(student.decoder_mask(tokens, 0), (2, 6, 6))
        for row, i, before in ((0, 3, 3), (0, 5, 3), (1, 4, 4)):
            assert bool(actual[row, i, :before].all()), (
                f"token {i} of sequence {row} is padding, but it should still be able to attend to the first "
                f"{before} tokens, which are real"
            )
            assert not actual[row, i, i], (
                f"token {i} of sequence {row} is padding, but your mask allows attention to it"
            )

    @weight(1.5)
    def test_padding_anywhere(self, student, seed):
        """Padding can be at the start or in the middle of a sequence, and `pad_id` can be any integer."""
        draw = Draw(seed)
        for pad_id in (0, 2, -100):
            tokens = draw.integers(0, 4, 3, 7)
            tokens[2, :2] = torch.tensor([1, 3])
            tokens[0, :2] = tokens[1, 3] = pad_id
            actual = as_bool(student.decoder_mask(tokens, pad_id), (3, 7, 7))
            equal(actual, decoder_oracle(tokens, pad_id), f"the mask for pad_id={pad_id}")

    @weight(0.5)
    def test_smallest(self, student):
        """The mask is correct for a sequence of a single token, whether this token is real or padding."""
        for token, real in ((4, True), (6, False)):
            actual = as_bool(student.decoder_mask(torch.tensor([[token]]), 6), (1, 1, 1))
            equal(actual, torch.tensor([[[real]]]), f"the mask for tokens [[{token}]] and pad_id=6")

    @weight(0.5)
    def test_tokens(self, student, seed):
        """`tokens` may be non-contiguous and is not modified in place."""
        draw = Draw(seed)
        tokens = draw.integers(0, 3, 4, 5)
        tokens[1, :3] = torch.tensor([1, 2, 0])
        tokens = draw.strided(tokens)
        actual = student.decoder_mask(tokens, 1)
        unchanged(student)
        equal(as_bool(actual, (4, 5, 5)), decoder_oracle(tokens, 1), "the mask")

    @weight(0.5)
    def test_device(self, student):
        """The mask is on the same device as `tokens`."""
        tokens = torch.zeros(2, 5, dtype=torch.int64, device="meta")
        on_meta(lambda: student.decoder_mask(tokens, 0), (2, 5, 5), "the mask")


class TestMaskedAttention:
    exercise = "masked_attention"

    def test_no_mask(self, student, seed):
        """Without a mask, the weights are softmax(QKᵀ/√d) and the output is weights · V, with correct gradients and dtypes."""
        draw, everything = Draw(seed), torch.ones(3, 5).bool()
        inputs = random_qkv(draw, 2)
        expected = masked_oracle(*inputs, everything)
        check_attention(
            attention_like(student.masked_attention)(*inputs), expected, "without a mask"
        )
        check_attention(
            attention_like(student.masked_attention)(*inputs, mask=None), expected, "with mask=None"
        )
        upstream = [draw.normal(2, 3, 6), draw.normal(2, 3, 5)]
        exact, given = leaves(*(x.double() for x in inputs)), leaves(*inputs)
        found = gradients(attention_like(student.masked_attention)(*given), given, upstream)
        wanted = gradients(list(masked_oracle(*exact, everything)), exact, upstream)
        for name, actual, want in zip(("queries", "keys", "values"), found, wanted, strict=True):
            what = f"the gradient of the {name} without a mask"
            close(actual, want, what, **LOOSE, dtype=torch.float32)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            actual = attention_like(student.masked_attention)(*(x.to(dtype) for x in inputs))
            parts = zip(("output", "weights"), pair(actual, "output", "weights"), strict=True)
            for (name, part), width in zip(parts, (6, 5), strict=True):
                what = f"the {name} without a mask for {str(dtype)[6:]} inputs"
                shaped(part, (2, 3, width), dtype, what)

    @weight(0.5)
    def test_everything_allowed(self, student, seed):
        """A mask that is True everywhere gives the same result as no mask: the output is softmax(QKᵀ/√d) V."""
        inputs, mask = random_qkv(Draw(seed), 2), torch.ones(2, 3, 5).bool()
        expected = masked_oracle(*inputs, mask)
        check_attention(
            attention_like(student.masked_attention)(*inputs, mask),
            expected,
            "with a mask that is True everywhere",
        )

    def test_one_key(self, student, seed):
        """True means allowed: for a query with a single allowed key, the output is the value of that key."""
        draw = Draw(seed)
        query, key, value = random_qkv(draw, 2)
        # In sequence 0, queries 0 and 1 choose the same key. Queries 0 and 2 choose the same keys in both sequences.
        chosen = draw.uniform(5).argsort()[torch.tensor([[0, 0, 1], [0, 2, 1]])]
        mask = torch.nn.functional.one_hot(chosen, 5).bool()
        expected = (value.gather(1, chosen[..., None].expand(2, 3, 6)), mask.double())
        actual = attention_like(student.masked_attention)(query, key, value, mask)
        check_attention(actual, expected, "with one allowed key per query")

    @weight(2)
    def test_some_keys(self, student, seed):
        """The weights are the softmax of the scores over the allowed keys."""
        draw = Draw(seed)
        inputs, mask = random_qkv(draw, 2), random_mask(draw, 2, 3, 5)
        expected = masked_oracle(*inputs, mask)
        check_attention(
            attention_like(student.masked_attention)(*inputs, mask), expected, "with a mask"
        )

    def test_exact_zeros(self, student, seed):
        """Masked keys get a weight of exactly 0, and the weights of the allowed keys sum to 1."""
        draw = Draw(seed)
        inputs, mask = random_qkv(draw, 2), random_mask(draw, 2, 3, 5)
        actual = attention_like(student.masked_attention)(*inputs, mask)
        check_consistent(actual, mask, inputs[2], "with a mask")
        worst = actual[1][~mask].max().item()
        assert worst == 0, f"the weight of a masked key should be exactly 0; yours is {worst:.3g}"
        least = actual[1][mask].min().item()
        assert least > 0, (
            f"the weight of an allowed key should be positive; your smallest is {least:.3g}"
        )

    def test_high_forbidden_scores(self, student, seed):
        """The result is correct even if masked keys have much higher scores than allowed ones."""
        draw = Draw(seed)
        query, key, value = random_qkv(draw, 2)
        mask = random_mask(draw, 2, 1, 5)
        query[..., 0] = 1.0
        key[..., 0] += torch.where(mask[:, 0], 0.0, 500.0)
        actual = attention_like(student.masked_attention)(query, key, value, mask)
        check_consistent(actual, mask, value, "for masked keys with scores near 250")

    def test_low_allowed_scores(self, student, seed):
        """The result is correct even if all allowed keys have scores near −10⁴."""
        draw = Draw(seed)
        mask = (torch.arange(5) != draw.integers(0, 5, 1)).repeat(3, 1)
        value = draw.normal(5, 6)
        # Allowed keys have scores of −10,000 + r/2 for integers r; masked keys have scores of 0.
        # float32 represents all of these scores exactly.
        r = draw.integers(0, 7, 5).float()
        query = torch.tensor([[-100.0, 1.0, 0.0, 0.0]]).repeat(3, 1)
        key = torch.stack([torch.full((5,), 200.0), r, *draw.normal(2, 5)], dim=1)
        key = torch.where(mask[0, :, None], key, 0.0)
        actual = attention_like(student.masked_attention)(query, key, value, mask)
        # Even a correct softmax is only accurate to about 10⁻³ for these scores.
        what = "for allowed keys with scores near −10⁴"
        check_consistent(actual, mask, value, what, atol=2e-3)
        # The scores differ, so clamping them to a fixed range changes the weights.
        _, weights = masked_oracle(query, key, value, mask)
        close(actual[1], weights, f"the weights {what}", 5e-3, 5e-3, dtype=torch.float32)

    @weight(0.5)
    def test_forbidden_keys_are_unseen(self, student, seed):
        """Changing keys and values at masked positions does not change the output."""
        draw = Draw(seed)
        query, key, value = random_qkv(draw, 2)
        mask = random_mask(draw, 2, 1, 5)
        before = pair(
            attention_like(student.masked_attention)(query, key, value, mask), "output", "weights"
        )
        hidden = ~mask.transpose(1, 2)
        key = key + hidden * draw.normal(2, 5, 4, scale=5.0)
        value = value + hidden * draw.normal(2, 5, 6, scale=50.0)
        actual = attention_like(student.masked_attention)(query, key, value, mask)
        check_consistent(actual, mask, value, "with large values at masked positions")
        finite(shaped(before[0], (2, 3, 6), torch.float32, "the output"), "the output")
        what = "the output after changing keys and values at masked positions"
        close(actual[0], before[0], what, **LOOSE)

    @weight(1.5)
    def test_mask_shapes(self, student, seed):
        """The mask broadcasts to the shape of the weights."""
        draw = Draw(seed)
        inputs = random_qkv(draw, 2)
        for shape in ((3, 5), (1, 5), (5,), (2, 1, 5), (2, 3, 5), (1, 3, 5)):
            mask = random_mask(draw, *shape)
            what = f"with a mask of shape {shape}"
            check_consistent(student.masked_attention(*inputs, mask), mask, inputs[2], what)
        # With as many queries as keys, code that swaps the rows and columns of the mask raises no error.
        query, key, value = draw.normal(2, 4, 3), draw.normal(2, 4, 3), draw.normal(2, 4, 6)
        mask = random_mask(draw, 2, 4, 4)
        actual = student.masked_attention(query, key, value, mask)
        check_attention(actual, masked_oracle(query, key, value, mask), "for 4 queries and 4 keys")

    def test_leading_axes(self, student, seed):
        """The inputs may have any number of leading axes, including none, and the mask broadcasts over these axes."""
        draw = Draw(seed)
        cases = (
            ((), (3, 5)),
            ((2,), (2, 3, 5)),
            ((2, 4), (4, 3, 5)),
            ((2, 4), (2, 1, 1, 5)),
            ((2, 4), (2, 4, 3, 5)),
        )
        for leading, shape in cases:
            inputs, mask = random_qkv(draw, *leading), random_mask(draw, *shape)
            what = f"for leading axes {leading} and a mask of shape {shape}"
            actual = student.masked_attention(*inputs, mask)
            check_attention(actual, masked_oracle(*inputs, mask), what)

    @weight(0.5)
    def test_broadcast(self, student, seed):
        """With a mask, the leading axes of the queries, keys and values broadcast as they do in `attention`."""
        draw = Draw(seed)
        query, key = draw.normal(4, 1, 3, 4), draw.normal(2, 5, 4)
        value, mask = draw.normal(2, 5, 6), random_mask(draw, 2, 3, 5)
        expected = masked_oracle(query, key, value, mask)
        what = "for queries (4, 1, 3, 4), keys (2, 5, 4) and values (2, 5, 6)"
        check_attention(student.masked_attention(query, key, value, mask), expected, what)
        query, key, value = draw.normal(3, 4), draw.normal(5, 4), draw.normal(2, 5, 6)
        mask = random_mask(draw, 3, 5)
        # Leading axes that only the values have are optional in the weights.
        actual = student.masked_attention(query, key, value, mask)
        output, _ = pair(actual, "output", "weights")
        expected = masked_oracle(query, key, value, mask)[0]
        what = "the output for queries (3, 4), keys (5, 4) and values (2, 5, 6)"
        close(output, expected, what, **LOOSE, dtype=torch.float32)

    @weight(0.5)
    def test_single(self, student, seed):
        """`masked_attention` works for one sequence with one query, key and feature, and keeps axes of size 1."""
        inputs = Draw(seed).normal(3, 1, 1, 1)
        mask = torch.ones(1, 1, 1).bool()
        for what, given in (("with mask=None", None), ("with mask=[[[True]]]", mask)):
            check_attention(
                attention_like(student.masked_attention)(*inputs, given),
                masked_oracle(*inputs, mask),
                what,
            )

    @weight(2)
    def test_empty_rows(self, student, seed):
        """If a query cannot attend to any key, its weights and output are 0; other queries are unaffected."""
        draw = Draw(seed)
        inputs, mask = random_qkv(draw, 2), random_mask(draw, 2, 3, 5)
        mask[0, 1] = mask[1, 0] = False
        output, weights = pair(
            attention_like(student.masked_attention)(*inputs, mask), "output", "weights"
        )
        for part, shape, name in (
            (weights, (2, 3, 5), "the weights"),
            (output, (2, 3, 6), "the output"),
        ):
            finite(shaped(part, shape, what=name), name)
            for row in ((0, 1), (1, 0)):
                worst = part[row].abs().max().item()
                assert worst == 0, (
                    f"{name} should be 0 for a query that cannot attend to any key; "
                    f"your largest absolute value is {worst:.3g}"
                )
        check_consistent(
            [output, weights], mask, inputs[2], "with a mask in which some rows are all False"
        )

    def test_empty_sentences(self, student, seed):
        """A mask may hide all keys of a sequence, or even all keys in the batch."""
        draw = Draw(seed)
        inputs, padding = random_qkv(draw, 2), random_mask(draw, 2, 1, 5)
        padding[0] = False
        rows = torch.tensor([[True], [False], [True]])
        nothing = torch.zeros(3, 5).bool()
        for mask, what in (
            (padding, "when one sequence is all padding"),
            (rows, "with a mask of shape (3, 1) whose second row is False"),
            (nothing, "with a mask that is False everywhere"),
        ):
            check_consistent(
                attention_like(student.masked_attention)(*inputs, mask), mask, inputs[2], what
            )

    def test_gradient(self, student, seed):
        """With a mask, the gradients of the queries, keys and values are correct."""
        check_gradients(student, Draw(seed), empty_rows=False)

    @weight(2)
    def test_gradient_beside_empty_rows(self, student, seed):
        """Even if a query cannot attend to any key, all gradients are correct and none of them is NaN."""
        check_gradients(student, Draw(seed), empty_rows=True)

    def test_dtypes(self, student, seed):
        """For float16, bfloat16 and float64 inputs, the result has the same dtype, and masked keys get weights of exactly 0."""
        draw = Draw(seed)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            inputs, mask = random_qkv(draw, 2, dtype=dtype), random_mask(draw, 2, 3, 5)
            actual = pair(
                attention_like(student.masked_attention)(*inputs, mask), "output", "weights"
            )
            tolerance = (1e-5, 1e-5) if dtype == torch.float64 else (None, None)
            expected = masked_oracle(*inputs, mask)
            for name, part, want in zip(("output", "weights"), actual, expected, strict=True):
                close(part, want, f"the {name} in {dtype}", *tolerance, dtype=dtype)
            worst = actual[1][~mask].abs().max().item()
            assert worst == 0, (
                f"the weights of masked keys should be exactly 0 in {dtype}; "
                f"your largest absolute value is {worst:.3g}"
            )
        inputs, nothing = random_qkv(draw, 2, dtype=torch.float64), torch.zeros(3, 5).bool()
        actual = pair(
            attention_like(student.masked_attention)(*inputs, nothing), "output", "weights"
        )
        for name, part, width in zip(("output", "weights"), actual, (6, 5), strict=True):
            what = f"the {name} in float64 with a mask that is False everywhere"
            shaped(part, (2, 3, width), torch.float64, what)

    @weight(0.5)
    def test_half_precision_beside_empty_rows(self, student, seed):
        """In half precision, the result for a query that cannot attend to any key is 0, and all gradients are finite."""
        draw = Draw(seed)
        for dtype in (torch.float16, torch.bfloat16):
            inputs, mask = leaves(*random_qkv(draw, 2, dtype=dtype)), random_mask(draw, 2, 3, 5)
            mask[1, 2] = False
            actual = pair(
                attention_like(student.masked_attention)(*inputs, mask), "output", "weights"
            )
            for name, part, width in zip(("output", "weights"), actual, (6, 5), strict=True):
                finite(shaped(part, (2, 3, width), dtype, f"the {name}"), f"the {name} in {dtype}")
                worst = part[1, 2].abs().max().item()
                assert worst == 0, (
                    f"the {name} should be 0 in {dtype} for a query that cannot attend to any key; "
                    f"your largest absolute value is {worst:.3g}"
                )
            found = gradients(actual, inputs, [torch.ones_like(part) for part in actual])
            for name, gradient in zip(("queries", "keys", "values"), found, strict=True):
                finite(gradient, f"the gradient of the {name} in {dtype}")

    @weight(0.5)
    def test_arguments(self, student, seed):
        """The inputs and the mask may be non-contiguous and are not modified in place."""
        draw = Draw(seed)
        inputs = [draw.strided(x) for x in random_qkv(draw, 2)]
        mask = random_mask(draw, 3, 5)
        # In the expanded mask, both sequences share the same memory.
        for given in (draw.strided(mask), mask.expand(2, 3, 5)):
            actual = student.masked_attention(*inputs, given)
            unchanged(student)
            check_attention(actual, masked_oracle(*inputs, mask), "for non-contiguous inputs")

    @weight(0.25)
    def test_device(self, student):
        """The output and the weights are on the same device as the inputs, with and without a mask."""
        inputs = [torch.zeros(2, *shape, device="meta") for shape in ((3, 4), (5, 4), (5, 6))]
        for mask in (None, torch.ones(3, 5, dtype=torch.bool, device="meta")):
            call = partial(attention_like(student.masked_attention), *inputs, mask)
            pair_on_meta(call, (2, 3, 6), (2, 3, 5))

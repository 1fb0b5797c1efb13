"""Hidden graders of the chapter on masking."""

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
    pair_on_meta,
    shaped,
    unchanged,
    weight,
)
from graders.day1.test_attention import LOOSE, gradients, leaves, scores_oracle


def allowed(seen: Any, shape: tuple[int, ...]) -> Tensor:
    """The mask as booleans; that its dtype is one is a test of its own."""
    return shaped(seen, shape, what="the mask").detach().bool()


def boolean(seen: Any) -> None:
    """Check that a mask is boolean."""
    assert isinstance(seen, Tensor), "the mask should be a tensor"
    assert seen.dtype == torch.bool, f"the mask should be boolean, yours is {seen.dtype}"


def padding_oracle(tokens: Tensor, pad_id: int) -> Tensor:
    """Token by token."""
    return torch.tensor([[[token != pad_id for token in row]] for row in tokens.tolist()])


def decoder_oracle(tokens: Tensor, pad_id: int) -> Tensor:
    """Query by query: the real tokens up to its own position."""
    rows = []
    for i in range(tokens.shape[1]):
        row = tokens != pad_id
        row[:, i + 1 :] = False
        rows.append(row)
    return torch.stack(rows, dim=1)


def masked_oracle(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Output and weights in float64: exponentials of the allowed scores over their sum, or 0."""
    scores = scores_oracle(query, key)
    highest = scores.masked_fill(~mask, -1e30).amax(dim=-1, keepdim=True).detach()
    exponentials = (scores - highest).masked_fill(~mask, -1e30).exp() * mask
    weights = exponentials / exponentials.sum(dim=-1, keepdim=True).clamp(min=1e-30)
    return torch.einsum("...nm,...mv->...nv", weights, value.double()), weights


def compare(seen: Any, expected: tuple[Tensor, Tensor], what: str, *tolerance: float) -> None:
    """Check weights, then output."""
    output, weights = pair(seen, "output", "weights")
    tolerance = tolerance or (1e-4, 1e-4)
    close(weights, expected[1], f"weights {what}", *tolerance, dtype=torch.float32)
    close(output, expected[0], f"output {what}", *tolerance, dtype=torch.float32)


def consistent(seen: Any, mask: Tensor, value: Tensor, what: str, atol: float = 1e-4) -> None:
    """Check what holds whatever the scores are: who shares the weight, and what is made of it."""
    output, weights = pair(seen, "output", "weights")
    allowed_keys = mask.expand(*value.shape[:-2], 3, 5)
    finite(shaped(weights, allowed_keys.shape, torch.float32, f"weights {what}"), f"weights {what}")
    shaped(output, (*value.shape[:-2], 3, 6), torch.float32, f"output {what}")
    # That it is 0 exactly is a test of its own.
    worst = (weights * ~allowed_keys).abs().max().item()
    assert worst < 1e-4, f"weights {what}: a forbidden key has {worst:.3g}, not 0"
    assert bool((weights >= 0).all()), f"weights {what}: one is {weights.min().item():.3g}"
    totals = allowed_keys.any(dim=-1).float()
    close(weights.sum(dim=-1), totals, f"the sum of each query's weights {what}", atol, 1e-4)
    expected = torch.einsum("...nm,...mv->...nv", weights.double(), value.double())
    close(output, expected, f"output {what}", **LOOSE, dtype=torch.float32)


def qkv(draw: Draw, *leading: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Three queries of 4 features, five keys, five values of 6 features."""
    shapes = ((3, 4), (5, 4), (5, 6))
    return [draw.normal(*leading, *shape, dtype=dtype) for shape in shapes]


def some_allowed(draw: Draw, *shape: int) -> Tensor:
    """A mask in which every row allows a key and forbids one."""
    order = draw.uniform(*shape).argsort(dim=-1)
    return ((order == 0) | draw.mask(*shape)) & (order != 1)


def check_gradients(student: Any, draw: Draw, empty: bool) -> None:
    """Compare the gradients with those of the oracle in float64, where asked with rows empty."""
    inputs, mask = qkv(draw, 2), some_allowed(draw, 2, 3, 5)
    if empty:
        mask[0, 2] = mask[1, 1] = False
    upstream = [draw.normal(2, 3, 6), draw.normal(2, 3, 5)]
    exact, given = leaves(*(x.double() for x in inputs)), leaves(*inputs)
    expected = gradients(list(masked_oracle(*exact, mask)), exact, upstream)
    output, weights = pair(student.masked_attention(*given, mask), "output", "weights")
    shaped(output, (2, 3, 6), torch.float32, "output")
    shaped(weights, (2, 3, 5), torch.float32, "weights")
    found = gradients([output, weights], given, upstream)
    for name, seen, want in zip(("queries", "keys", "values"), found, expected, strict=True):
        finite(seen, f"the gradient of the {name}")
        close(seen, want, f"the gradient of the {name}", **LOOSE, dtype=torch.float32)
    # Scores so far apart that most weights are 0.
    far = leaves(300 * inputs[0], inputs[1], inputs[2])
    seen = pair(student.masked_attention(*far, mask), "output", "weights")
    for name, got in zip(
        ("queries", "keys", "values"), gradients(seen, far, upstream), strict=True
    ):
        finite(got, f"for scores far apart, the gradient of the {name}")


class TestPaddingMask:
    exercise = "padding_mask"

    @weight(0.5)
    def test_dtype(self, student, seed):
        """The mask is boolean: True where attention is allowed, and no number that is added to scores."""
        tokens = Draw(seed).integers(0, 3, 2, 5)
        boolean(student.padding_mask(tokens, 0))

    @weight(2)
    def test_padding_behind(self, student, seed):
        """Real tokens are True and the padding behind them is False, in the shape (b, 1, m)."""
        draw = Draw(seed)
        tokens = draw.integers(1, 9, 3, 6)
        for row, length in enumerate((2, 6, 5)):
            tokens[row, length:] = 0
        seen = allowed(student.padding_mask(tokens, 0), (3, 1, 6))
        equal(seen, padding_oracle(tokens, 0), "the mask")

    @weight(2)
    def test_any_pad_id(self, student, seed):
        """`pad_id` may be any whole number; smaller and larger tokens are real."""
        draw = Draw(seed)
        for pad_id in (3, 1, 700, -100):
            tokens = draw.integers(pad_id - 1, pad_id + 2, 2, 9)
            tokens[:, 4], tokens[:, 7], tokens[:, 5] = pad_id + 1, pad_id - 1, pad_id
            seen = allowed(student.padding_mask(tokens, pad_id), (2, 1, 9))
            equal(seen, padding_oracle(tokens, pad_id), f"the mask for pad_id={pad_id}")

    def test_padding_anywhere(self, student, seed):
        """Padding is padding in front and in the middle, too."""
        draw = Draw(seed)
        tokens = draw.integers(0, 3, 4, 7)
        tokens[0] = torch.tensor([0, 0, 5, 4, 0, 2, 0])
        tokens[3] = 0
        seen = allowed(student.padding_mask(tokens, 0), (4, 1, 7))
        equal(seen, padding_oracle(tokens, 0), "the mask")

    @weight(0.5)
    def test_no_padding(self, student, seed):
        """A `pad_id` that never occurs masks nothing."""
        draw = Draw(seed)
        tokens = draw.integers(0, 9, 2, 5)
        tokens[1, 2] = 1
        for pad_id in (-1, 50_000):
            seen = allowed(student.padding_mask(tokens, pad_id), (2, 1, 5))
            equal(seen, torch.ones(2, 1, 5).bool(), f"the mask for pad_id={pad_id}")

    @weight(0.5)
    def test_smallest(self, student, seed):
        """One sentence of one token is enough."""
        token = int(Draw(seed).integers(1, 9, 1))
        for pad_id, real in ((token, False), (token + 1, True)):
            seen = allowed(student.padding_mask(torch.tensor([[token]]), pad_id), (1, 1, 1))
            equal(seen, torch.tensor([[[real]]]), f"the mask of [[{token}]], pad_id={pad_id}")

    @weight(0.5)
    def test_tokens(self, student, seed):
        """The tokens may lie in memory in any way, and are not changed."""
        draw = Draw(seed)
        tokens = draw.strided(draw.integers(0, 3, 4, 5))
        seen = student.padding_mask(tokens, 1)
        unchanged(student)
        equal(allowed(seen, (4, 1, 5)), padding_oracle(tokens, 1), "the mask")

    @weight(0.5)
    def test_device(self, student):
        """The mask is on the device of the tokens."""
        tokens = torch.zeros(2, 5, dtype=torch.int64, device="meta")
        on_meta(lambda: student.padding_mask(tokens, 0), (2, 1, 5), "the mask")


class TestCausalMask:
    exercise = "causal_mask"

    @weight(0.5)
    def test_dtype(self, student):
        """The mask is boolean: True where attention is allowed, and no number that is added to scores."""
        boolean(student.causal_mask(4))

    @weight(0.5)
    def test_past(self, student):
        """A position may attend to every position before it."""
        mask = allowed(student.causal_mask(6), (6, 6))
        for i in range(6):
            for j in range(i):
                assert bool(mask[i, j]), (
                    f"position {i} should see position {j}: row {i}, column {j}"
                )

    @weight(0.5)
    def test_own_position(self, student):
        """A position may attend to itself."""
        mask = allowed(student.causal_mask(5), (5, 5))
        for i in range(5):
            assert bool(mask[i, i]), f"position {i} should see itself"

    @weight(1.5)
    def test_future(self, student):
        """A position may not attend to any position after it, though it does to one before it."""
        mask = allowed(student.causal_mask(7), (7, 7))
        for i in range(7):
            for j in range(i + 1, 7):
                assert not mask[i, j], f"position {i} should not see {j}: row {i}, column {j}"
        assert bool(mask[3, 1]), "position 3 should see position 1"

    @weight(2)
    def test_sizes(self, student, seed):
        """Every length is right: True where j ≤ i, and nowhere else."""
        for n in (2, 3, 11, int(Draw(seed).integers(12, 40, 1)), 270):
            expected = torch.arange(n) <= torch.arange(n).unsqueeze(1)
            equal(allowed(student.causal_mask(n), (n, n)), expected, f"the mask for n={n}")

    @weight(0.5)
    def test_smallest(self, student):
        """`n` may be 1 or 0, which changes nothing about the dtype."""
        one, none = student.causal_mask(1), student.causal_mask(0)
        equal(allowed(one, (1, 1)), torch.tensor([[True]]), "the mask for n=1")
        shaped(none, (0, 0), one.dtype, "the mask for n=0")

    def test_device(self, student):
        """The mask is made on the device that is asked for; it may be given by name."""
        expected = torch.tensor([[True, False], [True, True]])
        equal(allowed(student.causal_mask(2, "cpu"), (2, 2)), expected, "the mask on 'cpu'")
        for device in ("meta", torch.device("meta")):
            on_meta(lambda device=device: student.causal_mask(3, device=device), (3, 3), "the mask")


class TestDecoderMask:
    exercise = "decoder_mask"

    @weight(0.5)
    def test_dtype(self, student, seed):
        """The mask is boolean: True where attention is allowed, and no number that is added to scores."""
        boolean(student.decoder_mask(Draw(seed).integers(0, 3, 2, 5), 0))

    def test_future(self, student, seed):
        """Without padding the mask allows what j ≤ i allows, for every sentence, a long one too."""
        for b, n in ((2, 5), (1, 270)):
            tokens = Draw(seed).integers(1, 9, b, n)
            seen = allowed(student.decoder_mask(tokens, 0), (b, n, n))
            equal(seen, decoder_oracle(tokens, 0), f"the mask of {n} tokens without padding")

    def test_padded_keys(self, student, seed):
        """Padding behind a sentence is seen by no query, the last ones included."""
        tokens = Draw(seed).integers(1, 9, 3, 6)
        for row, length in enumerate((4, 6, 1)):
            tokens[row, length:] = 0
        seen = allowed(student.decoder_mask(tokens, 0), (3, 6, 6))
        assert bool(seen[1].any()), "a sentence without padding should see something"
        for row, length in ((0, 4), (2, 1)):
            assert bool(seen[row, 0, 0]), "a first token that is real should see itself"
            assert not seen[row, :, length:].any(), f"keys from {length} on are padding, yet seen"

    def test_padded_queries(self, student, seed):
        """A row is not emptied because its own token is padding: it sees the real tokens before."""
        tokens = Draw(seed).integers(1, 9, 2, 6)
        tokens[0, 3:] = tokens[1, 4] = 0
        seen = allowed(student.decoder_mask(tokens, 0), (2, 6, 6))
        for row, i, before in ((0, 3, 3), (0, 5, 3), (1, 4, 4)):
            assert bool(seen[row, i, :before].all()), (
                f"the token at {i} is padding; row {i} should allow the {before} real tokens before"
            )
            assert not seen[row, i, i], f"the token at {i} is padding, yet row {i} allows it"

    @weight(1.5)
    def test_padding_anywhere(self, student, seed):
        """Padding stands in front or in the middle, and has any id."""
        draw = Draw(seed)
        for pad_id in (0, 2, -100):
            tokens = draw.integers(0, 4, 3, 7)
            tokens[0, :2] = tokens[1, 3] = pad_id
            seen = allowed(student.decoder_mask(tokens, pad_id), (3, 7, 7))
            equal(seen, decoder_oracle(tokens, pad_id), f"the mask for pad_id={pad_id}")

    @weight(0.5)
    def test_smallest(self, student):
        """One token, real or padding, is enough."""
        for token, real in ((4, True), (6, False)):
            seen = allowed(student.decoder_mask(torch.tensor([[token]]), 6), (1, 1, 1))
            equal(seen, torch.tensor([[[real]]]), f"the mask of [[{token}]] for pad_id=6")

    @weight(0.5)
    def test_tokens(self, student, seed):
        """The tokens may lie in memory in any way, and are not changed."""
        draw = Draw(seed)
        tokens = draw.strided(draw.integers(0, 3, 4, 5))
        seen = student.decoder_mask(tokens, 1)
        unchanged(student)
        equal(allowed(seen, (4, 5, 5)), decoder_oracle(tokens, 1), "the mask")

    def test_device(self, student):
        """The mask is on the device of the tokens."""
        tokens = torch.zeros(2, 5, dtype=torch.int64, device="meta")
        on_meta(lambda: student.decoder_mask(tokens, 0), (2, 5, 5), "the mask")


class TestMaskedAttention:
    exercise = "masked_attention"

    def test_no_mask(self, student, seed):
        """Without a mask, or with None, every key is allowed."""
        inputs = qkv(Draw(seed), 2)
        expected = masked_oracle(*inputs, torch.ones(3, 5).bool())
        compare(student.masked_attention(*inputs), expected, "without a mask")
        compare(student.masked_attention(*inputs, mask=None), expected, "with mask=None")

    @weight(0.5)
    def test_everything_allowed(self, student, seed):
        """A mask of True only is as good as none."""
        inputs, mask = qkv(Draw(seed), 2), torch.ones(2, 3, 5).bool()
        expected = masked_oracle(*inputs, mask)
        compare(student.masked_attention(*inputs, mask), expected, "with a mask of True only")

    def test_one_key(self, student, seed):
        """True means allowed: a query that may see a single key receives the value of that key."""
        draw = Draw(seed)
        query, key, value = qkv(draw, 2)
        chosen = draw.integers(0, 5, 2, 3)
        mask = torch.nn.functional.one_hot(chosen, 5).bool()
        expected = (value.gather(1, chosen[..., None].expand(2, 3, 6)), mask.double())
        seen = student.masked_attention(query, key, value, mask)
        compare(seen, expected, "where each query may see a single key")

    @weight(2)
    def test_some_keys(self, student, seed):
        """The allowed keys share all of the weight, as softmax of their scores."""
        draw = Draw(seed)
        inputs, mask = qkv(draw, 2), some_allowed(draw, 2, 3, 5)
        expected = masked_oracle(*inputs, mask)
        compare(student.masked_attention(*inputs, mask), expected, "under a mask")

    def test_exact_zeros(self, student, seed):
        """A forbidden key gets a weight of exactly 0, and the allowed ones share the whole unit."""
        draw = Draw(seed)
        inputs, mask = qkv(draw, 2), some_allowed(draw, 2, 3, 5)
        seen = student.masked_attention(*inputs, mask)
        consistent(seen, mask, inputs[2], "under a mask")
        worst = seen[1][~mask].max().item()
        assert worst == 0, f"a forbidden key has the weight {worst:.3g}, not 0"
        least = seen[1][mask].min().item()
        assert least > 0, f"an allowed key with an ordinary score has the weight {least:.3g}"

    def test_high_forbidden_scores(self, student, seed):
        """A forbidden key may fit far better than all allowed ones; the result is right even so."""
        draw = Draw(seed)
        query, key, value = qkv(draw, 2)
        mask = some_allowed(draw, 2, 1, 5)
        query[..., 0] = 1.0
        key[..., 0] += torch.where(mask[:, 0], 0.0, 500.0)
        seen = student.masked_attention(query, key, value, mask)
        consistent(seen, mask, value, "where forbidden keys have scores near 250")

    def test_low_allowed_scores(self, student, seed):
        """Allowed keys may have scores near −10⁴, lower than any forbidden one."""
        draw = Draw(seed)
        mask = some_allowed(draw, 1, 5).expand(3, 5)
        value = draw.normal(5, 6)
        # Scores of −10,000 + r/2 with a whole r where allowed, of 0 where not: exact in float32.
        r = draw.integers(0, 7, 5).float()
        query = torch.tensor([[-100.0, 1.0, 0.0, 0.0]]).repeat(3, 1)
        key = torch.stack([torch.full((5,), 200.0), r, *draw.normal(2, 5)], dim=1)
        key = torch.where(mask[0, :, None], key, 0.0)
        seen = student.masked_attention(query, key, value, mask)
        # A softmax is right within 10⁻³ there.
        consistent(seen, mask, value, "where allowed keys have scores near −10⁴", atol=2e-3)

    @weight(0.5)
    def test_forbidden_keys_are_unseen(self, student, seed):
        """Other keys and values at forbidden places change nothing."""
        draw = Draw(seed)
        query, key, value = qkv(draw, 2)
        mask = some_allowed(draw, 2, 1, 5)
        before = pair(student.masked_attention(query, key, value, mask), "output", "weights")
        hidden = ~mask.transpose(1, 2)
        key = key + hidden * draw.normal(2, 5, 4, scale=5.0)
        value = value + hidden * draw.normal(2, 5, 6, scale=50.0)
        seen = student.masked_attention(query, key, value, mask)
        consistent(seen, mask, value, "with large values at forbidden places")
        finite(shaped(before[0], (2, 3, 6), torch.float32, "output"), "output")
        what = "output after a change at forbidden places"
        close(seen[0], before[0], what, **LOOSE)

    @weight(1.5)
    def test_mask_shapes(self, student, seed):
        """The mask broadcasts to the weights."""
        draw = Draw(seed)
        inputs = qkv(draw, 2)
        for shape in ((3, 5), (1, 5), (5,), (2, 1, 5), (2, 3, 5), (1, 3, 5)):
            mask = some_allowed(draw, *shape)
            what = f"under a mask of shape {shape}"
            consistent(student.masked_attention(*inputs, mask), mask, inputs[2], what)
        # As many queries as keys, where rows and columns can be taken for one another.
        query, key, value = draw.normal(2, 4, 3), draw.normal(2, 4, 3), draw.normal(2, 4, 6)
        mask = some_allowed(draw, 2, 4, 4)
        seen = student.masked_attention(query, key, value, mask)
        compare(seen, masked_oracle(query, key, value, mask), "for 4 queries and 4 keys")

    def test_leading_axes(self, student, seed):
        """Two leading axes are allowed, or none, and the mask broadcasts to them."""
        draw = Draw(seed)
        cases = (((), (3, 5)), ((2, 4), (4, 3, 5)), ((2, 4), (2, 1, 1, 5)), ((2, 4), (2, 4, 3, 5)))
        for leading, shape in cases:
            inputs, mask = qkv(draw, *leading), some_allowed(draw, *shape)
            what = f"with leading axes {leading} under a mask of shape {shape}"
            seen = student.masked_attention(*inputs, mask)
            compare(seen, masked_oracle(*inputs, mask), what)

    @weight(0.5)
    def test_broadcast(self, student, seed):
        """Leading axes of queries, keys and values broadcast under a mask as without."""
        draw = Draw(seed)
        query, key = draw.normal(4, 1, 3, 4), draw.normal(2, 5, 4)
        value, mask = draw.normal(2, 5, 6), some_allowed(draw, 2, 3, 5)
        expected = masked_oracle(query, key, value, mask)
        what = "for queries (4, 1, 3, 4), keys (2, 5, 4) and values (2, 5, 6)"
        compare(student.masked_attention(query, key, value, mask), expected, what)
        query, key, value = draw.normal(3, 4), draw.normal(5, 4), draw.normal(2, 5, 6)
        mask = some_allowed(draw, 3, 5)
        # Whether axes that only the values have appear in the weights is open.
        seen = student.masked_attention(query, key, value, mask)
        output, _ = pair(seen, "output", "weights")
        expected = masked_oracle(query, key, value, mask)[0]
        what = "output for values (2, 5, 6) with a single set of queries and keys"
        close(output, expected, what, **LOOSE, dtype=torch.float32)

    @weight(0.5)
    def test_single(self, student, seed):
        """One sentence, one query, one key and one feature are enough: axes of size 1 stay."""
        inputs = Draw(seed).normal(3, 1, 1, 1)
        mask = torch.ones(1, 1, 1).bool()
        for what, given in (("with mask=None", None), ("under a mask of a single True", mask)):
            compare(student.masked_attention(*inputs, given), masked_oracle(*inputs, mask), what)

    @weight(2)
    def test_empty_rows(self, student, seed):
        """A query that may attend to nothing has weights 0 and output 0; the others share 1."""
        draw = Draw(seed)
        inputs, mask = qkv(draw, 2), some_allowed(draw, 2, 3, 5)
        mask[0, 1] = mask[1, 0] = False
        output, weights = pair(student.masked_attention(*inputs, mask), "output", "weights")
        for part, shape, name in ((weights, (2, 3, 5), "weights"), (output, (2, 3, 6), "output")):
            finite(shaped(part, shape, what=name), name)
            for row in ((0, 1), (1, 0)):
                worst = part[row].abs().max().item()
                assert worst == 0, f"{name} of a query that may see nothing: {worst:.3g}, not 0"
        consistent([output, weights], mask, inputs[2], "beside empty rows")

    def test_empty_sentences(self, student, seed):
        """All of a sentence may be forbidden, and so may everything."""
        draw = Draw(seed)
        inputs, padding = qkv(draw, 2), some_allowed(draw, 2, 1, 5)
        padding[0] = False
        rows = torch.tensor([[True], [False], [True]])
        nothing = torch.zeros(3, 5).bool()
        for mask, what in (
            (padding, "where a whole sentence is padding"),
            (rows, "under a mask of shape (3, 1) whose second row is False"),
            (nothing, "where nothing is allowed"),
        ):
            consistent(student.masked_attention(*inputs, mask), mask, inputs[2], what)

    def test_gradient(self, student, seed):
        """Under a mask the gradients of queries, keys and values are those of the formula."""
        check_gradients(student, Draw(seed), empty=False)

    @weight(2)
    def test_gradient_beside_empty_rows(self, student, seed):
        """With a query that may attend to nothing no gradient is NaN, and the others are right."""
        check_gradients(student, Draw(seed), empty=True)

    def test_dtypes(self, student, seed):
        """float64, float16 and bfloat16 stay what they are, and forbidden keys weigh 0 there."""
        draw = Draw(seed)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            inputs, mask = qkv(draw, 2, dtype=dtype), some_allowed(draw, 2, 3, 5)
            seen = pair(student.masked_attention(*inputs, mask), "output", "weights")
            tolerance = (1e-5, 1e-5) if dtype == torch.float64 else (None, None)
            expected = masked_oracle(*inputs, mask)
            for name, part, want in zip(("output", "weights"), seen, expected, strict=True):
                close(part, want, f"{name} in {dtype}", *tolerance, dtype=dtype)
            worst = seen[1][~mask].abs().max().item()
            assert worst == 0, f"a forbidden key has the weight {worst:.3g} in {dtype}"

    @weight(0.5)
    def test_half_precision_beside_empty_rows(self, student, seed):
        """In half precision, too, an empty row gives 0 and no gradient is NaN."""
        draw = Draw(seed)
        for dtype in (torch.float16, torch.bfloat16):
            inputs, mask = leaves(*qkv(draw, 2, dtype=dtype)), some_allowed(draw, 2, 3, 5)
            mask[1, 2] = False
            seen = pair(student.masked_attention(*inputs, mask), "output", "weights")
            for name, part, width in zip(("output", "weights"), seen, (6, 5), strict=True):
                finite(shaped(part, (2, 3, width), dtype, name), f"{name} in {dtype}")
                worst = part[1, 2].abs().max().item()
                assert worst == 0, f"{name} of an empty row in {dtype}: {worst:.3g}, not 0"
            found = gradients(seen, inputs, [torch.ones_like(part) for part in seen])
            for name, gradient in zip(("queries", "keys", "values"), found, strict=True):
                finite(gradient, f"the gradient of the {name} in {dtype}")

    @weight(0.5)
    def test_arguments(self, student, seed):
        """The arguments may lie in memory in any way, and are not changed."""
        draw = Draw(seed)
        inputs = [draw.strided(x) for x in qkv(draw, 2)]
        mask = some_allowed(draw, 3, 5)
        # An expanded mask: its rows for the two sentences are the same memory.
        for given in (draw.strided(mask), mask.expand(2, 3, 5)):
            seen = student.masked_attention(*inputs, given)
            unchanged(student)
            compare(seen, masked_oracle(*inputs, mask), "for tensors that are not contiguous")

    @weight(0.25)
    def test_device(self, student):
        """Output and weights are on the device of the arguments, with a mask and without."""
        inputs = [torch.zeros(2, *shape, device="meta") for shape in ((3, 4), (5, 4), (5, 6))]
        for mask in (None, torch.ones(3, 5, dtype=torch.bool, device="meta")):
            call = partial(student.masked_attention, *inputs, mask)
            pair_on_meta(call, (2, 3, 6), (2, 3, 5))

"""Check the language-model solutions against GPT-2 from `transformers`, a plain loop and hand-computed counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from solutions.day2.language_model import (
    GPT,
    TOPIC_COPY,
    TOPIC_HELD_OUT,
    TOPIC_SPLIT,
    TOPIC_TEXT,
    TOPIC_TRAINING,
    CausalSelfAttention,
    KeyValueCache,
    are_copied,
    generate,
    next_token_loss,
    topic_text,
    without_copies,
    witten_bell,
)

VOCAB, LENGTH, D, HEADS, LAYERS = 13, 9, 12, 3, 2


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def gpt2() -> Any:
    """Return a small float64 GPT-2 with random weights, biases and norms."""
    # The import takes seconds, and each process that runs tests imports all their modules.
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=LENGTH,
        n_embd=D,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(config).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def with_weights_of(theirs: Any) -> GPT:
    """Return the course's GPT with the weights from a `transformers` GPT-2, which stores linear weights transposed."""
    ours = GPT(VOCAB, LENGTH, D, HEADS, LAYERS).double().eval()
    state = {
        "token_embedding.weight": theirs.transformer.wte.weight,
        "position_embedding.weight": theirs.transformer.wpe.weight,
        "norm.weight": theirs.transformer.ln_f.weight,
        "norm.bias": theirs.transformer.ln_f.bias,
    }
    for i, block in enumerate(theirs.transformer.h):
        for name, norm in (("norm1", block.ln_1), ("norm2", block.ln_2)):
            state |= {f"blocks.{i}.{name}.{n}": p for n, p in norm.named_parameters()}
        for name, conv in (
            ("attention.qkv", block.attn.c_attn),
            ("attention.out", block.attn.c_proj),
            ("linear1", block.mlp.c_fc),
            ("linear2", block.mlp.c_proj),
        ):
            state[f"blocks.{i}.{name}.weight"] = conv.weight.T
            state[f"blocks.{i}.{name}.bias"] = conv.bias
    ours.load_state_dict(state)
    return ours


def test_gpt_matches_gpt2_given_its_weights() -> None:
    theirs = gpt2()
    ours, tokens = with_weights_of(theirs), torch.randint(VOCAB, (3, LENGTH))
    seen = theirs(tokens, labels=tokens)
    torch.testing.assert_close(ours(tokens), seen.logits, rtol=0, atol=1e-9)
    # `transformers` computes the loss for GPT-2 in float32.
    loss = next_token_loss(ours(tokens), tokens).float()
    torch.testing.assert_close(loss, seen.loss, rtol=1e-5, atol=0)


def test_gpt_has_as_many_parameters_as_gpt2() -> None:
    theirs = gpt2()
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert sum(parameter.numel() for parameter in with_weights_of(theirs).parameters()) == count


def test_cached_logits_match_those_of_gpt2() -> None:
    theirs = gpt2()
    ours, tokens = with_weights_of(theirs), torch.randint(VOCAB, (2, LENGTH))
    caches, past = [KeyValueCache() for _ in range(LAYERS)], None
    for piece in tokens.split([4, 1, 3, 1], dim=1):
        seen = theirs(piece, past_key_values=past, use_cache=True)
        past = seen.past_key_values
        torch.testing.assert_close(ours(piece, caches), seen.logits, rtol=0, atol=1e-9)


def test_greedy_generation_matches_gpt2() -> None:
    theirs = gpt2()
    prompt = torch.randint(VOCAB, (3, 2))
    expected = theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=LENGTH - 2,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    assert torch.equal(
        generate(with_weights_of(theirs), prompt, LENGTH - 2, temperature=0), expected
    )


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0}, {"temperature": 3.0, "top_k": 9, "top_p": 0.9}]
)
def test_caching_does_not_change_sampled_tokens(options: dict[str, float]) -> None:
    model, prompt = with_weights_of(gpt2()), torch.randint(VOCAB, (4, 3))
    runs = []
    for use_cache in (True, False):
        generator = torch.Generator().manual_seed(1)
        tokens = generate(model, prompt, 6, **options, use_cache=use_cache, generator=generator)
        runs.append((tokens, generator.get_state()))
    (with_cache, state), (without, other_state) = runs
    assert torch.equal(with_cache, without)
    assert torch.equal(state, other_state)
    # `generate` should make one random draw per step, even at temperature 0.
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        torch.multinomial(torch.ones(4, VOCAB, dtype=torch.float64), 1, generator=generator)
    assert torch.equal(generator.get_state(), state)


def attention_loop(attention: CausalSelfAttention, x: Tensor) -> Tensor:
    """Compute causal self-attention with a plain loop over sequences, positions and heads."""
    d_head = D // HEADS
    qkv = x @ attention.qkv.weight.T + attention.qkv.bias
    result = torch.empty_like(x)
    for b, i, h in torch.cartesian_prod(*map(torch.arange, (*x.shape[:2], HEADS))).tolist():
        query, key, value = (
            qkv[b, : i + 1, start + h * d_head : start + (h + 1) * d_head]
            for start in (0, D, 2 * D)
        )
        scores = key @ query[i] / math.sqrt(d_head)
        weights = scores.exp() / scores.exp().sum()
        result[b, i, h * d_head : (h + 1) * d_head] = weights @ value
    projected: Tensor = result @ attention.out.weight.T + attention.out.bias
    return projected


@pytest.mark.parametrize("pieces", [[7], [1] * 7, [3, 4], [2, 1, 4]])
def test_causal_self_attention_matches_a_plain_loop(pieces: list[int]) -> None:
    attention, x = CausalSelfAttention(D, HEADS).double().eval(), torch.randn(2, 7, D).double()
    cache = KeyValueCache()
    with torch.no_grad():
        seen = torch.cat([attention(piece, cache) for piece in x.split(pieces, dim=1)], dim=1)
        torch.testing.assert_close(seen, attention_loop(attention, x), rtol=0, atol=1e-10)
        torch.testing.assert_close(attention(x), seen, rtol=0, atol=1e-10)
    assert len(cache) == 7


def test_ngram_probabilities_sum_to_one_for_every_context() -> None:
    text, contexts = torch.randint(5, (300,)) ** 2 % 5, torch.randint(5, (40, 3))
    windows = torch.cat([contexts.repeat_interleave(5, 0), torch.arange(5).repeat(40)[:, None]], 1)
    for probability in witten_bell(text, windows, 5):
        assert probability.min() > 0
        torch.testing.assert_close(
            probability.reshape(40, 5).sum(dim=1), torch.ones(40, dtype=torch.float64)
        )


def test_ngram_probabilities_match_counts_by_hand() -> None:
    # In this text, 0 is followed by 1 twice, 1 is followed once by 0 and once by 1, and 2 never occurs.
    text, windows = torch.tensor([0, 1, 0, 1, 1]), torch.tensor([[0, 1], [1, 1], [1, 2], [2, 0]])
    unigram, bigram = witten_bell(text, windows, 3)
    one, zero, two = (3 + 2 / 3) / 7, (2 + 2 / 3) / 7, (2 / 3) / 7
    assert unigram.tolist() == pytest.approx([one, one, two, zero])
    assert bigram.tolist() == pytest.approx([(2 + one) / 3, (1 + 2 * one) / 4, 2 * two / 4, zero])


def test_no_held_out_passage_occurs_in_the_training_text() -> None:
    training, held_out = topic_text(TOPIC_TRAINING), topic_text(TOPIC_HELD_OUT)
    assert held_out == TOPIC_TEXT[TOPIC_SPLIT:]
    assert len(training) > 0.97 * TOPIC_SPLIT
    held_out_passages = {held_out[i : i + 40] for i in range(len(held_out) - 39)}
    found = [i for i in range(len(training) - 39) if training[i : i + 40] in held_out_passages]
    assert not found


def test_removing_copies_leaves_none_where_the_remaining_parts_meet() -> None:
    copy = "".join(map(chr, range(200, 200 + TOPIC_COPY)))
    before, after = "before", "after"
    assert without_copies(before + copy + after, f"x{copy}y") == before + after
    assert without_copies(before + copy[:9] + copy + copy[9:] + after, copy) == before + after
    assert without_copies(before + copy[1:] + after, copy) == before + copy[1:] + after


def test_copied_characters_are_those_in_copied_passages() -> None:
    copy = "".join(map(chr, range(200, 201 + TOPIC_COPY)))
    known = f"known{copy}text"
    assert are_copied(f"ab{copy}c{copy[2:]}", known).nonzero().flatten().tolist() == list(
        range(2, 3 + TOPIC_COPY)
    )
    assert not are_copied("short", known).any()

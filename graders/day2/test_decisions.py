"""Hidden tests for the decisions chapter. The oracles use loops and torch's own encoder layer, and compute in float64."""

import torch
from torch import Tensor, nn

from autograder.execution.checks import (
    Draw,
    backpropagate,
    close,
    equal,
    finite,
    gradient,
    on_meta,
    shaped,
    unchanged,
    value_error,
    weight,
)
from graders.equivalent_calls import leading_axes

ATOL = 1e-4  # covers the rounding error of a few float32 layers on any hardware


def returns_oracle(rewards: Tensor) -> Tensor:
    """Return the sum of the rewards from each step to the end, computed in float64."""
    steps = range(rewards.shape[-1])
    return torch.stack([rewards[..., step:].double().sum(dim=-1) for step in steps], dim=-1)


def check_returns(function, rewards: Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Compare the student's returns with the oracle's. The tolerance is relative to the sum of |reward| over an episode."""
    scale = rewards.double().abs().sum(dim=-1, keepdim=True).clamp(min=1e-30)
    seen = shaped(function(rewards), rewards.shape, rewards.dtype, what)
    right = (seen.double() - returns_oracle(rewards)).abs() <= tolerance * scale
    if not bool(right.all()):
        close(seen, returns_oracle(rewards), what, 0, 0, rewards.dtype)


class TestReturnsToGo:
    exercise = "returns_to_go"

    @weight(1)
    def test_own_reward(self, student, seed):
        """The last return-to-go is the last reward, and the first is the sum of all rewards."""
        draw = Draw(seed)
        rewards = -1 - draw.uniform(9).argsort()[:6].float()  # all different
        seen = shaped(leading_axes(student.returns_to_go, 1)(rewards), (6,), torch.float32)
        close(seen[-1], rewards[-1], "the last return-to-go", 1e-3)
        close(seen[0], rewards.sum(), "the first return-to-go", 1e-3)

    @weight(2)
    def test_values(self, student, seed):
        """Each entry is the sum of the rewards from its own step to the end, even if some rewards are 0."""
        draw = Draw(seed)
        for t in (7, 130):
            rewards = draw.normal(t)
            rewards[1::3] = 0
            check_returns(
                leading_axes(student.returns_to_go, 1), rewards, f"the result for t = {t}"
            )

    @weight(1)
    def test_leading_axes(self, student, seed):
        """Steps run along the last axis, after any number of leading axes. The rewards may be non-contiguous."""
        draw = Draw(seed)
        for shape in ((6,), (3, 5), (5, 3), (4, 4), (2, 3, 6), (2, 1, 3, 4)):
            rewards = draw.strided(draw.normal(*shape))
            check_returns(student.returns_to_go, rewards, f"the result for shape {shape}")

    @weight(0.5)
    def test_sizes(self, student, seed):
        """The return of a one-step episode is its only reward. An episode may mix large and small rewards."""
        draw = Draw(seed)
        for shape in ((1,), (3, 1), (1, 2)):
            check_returns(
                leading_axes(student.returns_to_go, 1),
                draw.normal(*shape),
                f"the result for shape {shape}",
            )
        rewards = draw.normal(4, 6) * torch.tensor([1e4, 1.0, 1e-2, 1e2, 1e-3, 1.0])
        check_returns(
            leading_axes(student.returns_to_go, 1),
            rewards,
            "the result for large and small rewards",
        )

    @weight(0.5)
    def test_gradient(self, student, seed):
        """The gradient of each reward is the sum of the gradients of the returns up to and including the reward's step."""
        draw = Draw(seed)
        rewards, upstream = draw.normal(2, 5).requires_grad_(), draw.normal(2, 5)
        seen = gradient(
            leading_axes(student.returns_to_go, 1)(rewards), rewards, upstream, "the rewards"
        )
        close(seen, upstream.cumsum(dim=-1), "the gradient of the rewards", 1e-4)

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """The result has the dtype of the rewards, which may be non-contiguous and are not modified."""
        draw = Draw(seed)
        exact = draw.normal(3, 5, dtype=torch.float64)
        tolerances = {torch.float64: 1e-9, torch.float16: 2e-2, torch.bfloat16: 1e-1}
        for dtype, tolerance in tolerances.items():
            rewards = draw.strided(exact.to(dtype))
            check_returns(
                leading_axes(student.returns_to_go, 1),
                rewards,
                f"the result for {str(dtype)[6:]}",
                tolerance,
            )
            unchanged(student)

    @weight(0.25)
    def test_device(self, student):
        """The result is on the same device as the rewards."""
        on_meta(
            lambda: leading_axes(student.returns_to_go, 1)(torch.zeros(2, 4, device="meta")), (2, 4)
        )


def interleave_oracle(returns: Tensor, states: Tensor, actions: Tensor) -> Tensor:
    """Build the interleaved sequence by appending one token at a time."""
    tokens = []
    for step in range(returns.shape[1]):
        tokens += [returns[:, step], states[:, step], actions[:, step]]
    return torch.stack(tokens, dim=1)


class TestInterleave:
    exercise = "interleave"

    @weight(2)
    def test_order(self, student):
        """Each step contributes its return, its state and its action, in this order."""
        returns, states, actions = (torch.arange(4.0).reshape(1, 4, 1) + 10 * k for k in (1, 2, 3))
        seen = student.interleave(returns, states, actions)
        equal(seen, interleave_oracle(returns, states, actions))

    @weight(2)
    def test_values(self, student, seed):
        """Token 3s + c of the result is the return (c = 0), state (c = 1) or action (c = 2) of step s."""
        draw = Draw(seed)
        for shape in ((2, 5, 4), (4, 3, 7), (3, 3, 3), (2, 70, 3)):
            parts = [draw.normal(*shape) for _ in range(3)]
            equal(student.interleave(*parts), interleave_oracle(*parts), f"the result for {shape}")

    @weight(0.5)
    def test_sizes(self, student, seed):
        """The batch size b, the number of steps t and the number of features d may be 1."""
        draw = Draw(seed)
        for shape in ((1, 1, 1), (3, 1, 2), (1, 4, 1), (1, 2, 5)):
            parts = [draw.normal(*shape) for _ in range(3)]
            equal(student.interleave(*parts), interleave_oracle(*parts), f"the result for {shape}")

    @weight(0.5)
    def test_gradient(self, student, seed):
        """Each token of the result passes its gradient back to the argument that it came from."""
        draw = Draw(seed)
        parts = [draw.normal(2, 4, 3).requires_grad_() for _ in range(3)]
        upstream = draw.normal(2, 12, 3)
        result = shaped(student.interleave(*parts), (2, 12, 3))
        backpropagate(result, upstream)
        for place, (name, part) in enumerate(
            zip(("returns", "states", "actions"), parts, strict=True)
        ):
            assert part.grad is not None, f"no gradient reaches {name}"
            close(part.grad, upstream[:, place::3], f"the gradient of {name}")

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """The result has the dtype of the arguments, which may be non-contiguous and are not modified."""
        draw = Draw(seed)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            parts = [draw.strided(draw.normal(2, 4, 3, dtype=dtype)) for _ in range(3)]
            what = f"the result for {str(dtype)[6:]}"
            equal(student.interleave(*parts), interleave_oracle(*parts), what)
            unchanged(student)

    @weight(0.25)
    def test_device(self, student):
        """The result is on the same device as the arguments."""
        part = torch.zeros(2, 4, 3, device="meta")
        on_meta(lambda: student.interleave(part, part, part), (2, 12, 3))


class Sizes:
    """The sizes of a model, which are the arguments of its constructor."""

    def __init__(self, n_states=7, n_actions=4, max_steps=9, d_model=6, n_heads=2, n_layers=2):
        self.all = n_states, n_actions, max_steps, d_model, n_heads, n_layers

    def parameters(self, draw: Draw) -> dict[str, Tensor]:
        """Return random weights for which every token affects all later logits."""
        n_states, n_actions, max_steps, d, _, n_layers = self.all
        shapes = {"return_embedding.weight": (d, 1), "return_embedding.bias": (d,)}
        for name, rows in (("state", n_states), ("action", n_actions), ("step", max_steps)):
            shapes[f"{name}_embedding.weight"] = (rows, d)
        shapes |= {"head.weight": (n_actions, d), "head.bias": (n_actions,)}
        parameters = {name: draw.normal(*shape) for name, shape in shapes.items()}
        norms = ["norm"]
        for i in range(n_layers):
            block = f"blocks.{i}"
            for name, (rows, columns) in {
                "self_attn.in_proj_": (3 * d, d),
                "self_attn.out_proj.": (d, d),
                "linear1.": (4 * d, d),
                "linear2.": (d, 4 * d),
            }.items():
                parameters[f"{block}.{name}weight"] = draw.normal(
                    rows, columns, scale=columns**-0.5
                )
                parameters[f"{block}.{name}bias"] = draw.normal(rows, scale=0.2)
            norms += [f"{block}.norm1", f"{block}.norm2"]
        for norm in norms:
            parameters[f"{norm}.weight"] = 1 + draw.normal(d, scale=0.2)
            parameters[f"{norm}.bias"] = draw.normal(d, scale=0.2)
        return parameters

    def model(self, student, draw: Draw):
        """Return a student's model with random weights, along with those weights."""
        model = student.DecisionTransformer(*self.all)
        parameters = self.parameters(draw)
        model.load(parameters)
        return model.eval(), parameters

    def episode(self, draw: Draw, b: int, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return random returns, states and actions for a batch of episodes."""
        n_states, n_actions, *_ = self.all
        return (
            draw.normal(b, t, scale=2),
            draw.integers(0, n_states, b, t),
            draw.integers(0, n_actions, b, t),
        )

    def expected(self, parameters: dict[str, Tensor], *episode: Tensor) -> Tensor:
        """Compute the expected logits in float64: build the sequence token by token, and run it through torch's own layers."""
        *_, d, n_heads, n_layers = self.all
        weights = {name: tensor.double() for name, tensor in parameters.items()}
        returns, states, actions = episode
        tokens = []
        for s in range(returns.shape[1]):
            step = weights["step_embedding.weight"][s]
            number = returns[:, s].double().unsqueeze(-1)
            tokens += [
                number * weights["return_embedding.weight"][:, 0]
                + weights["return_embedding.bias"]
                + step,
                weights["state_embedding.weight"][states[:, s]] + step,
                weights["action_embedding.weight"][actions[:, s]] + step,
            ]
        x = torch.stack(tokens, dim=1)
        x = nn.functional.layer_norm(x, (d,), weights["norm.weight"], weights["norm.bias"])
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        for i in range(n_layers):
            layer = nn.TransformerEncoderLayer(d, n_heads, 4 * d, dropout=0.0, batch_first=True)
            own = {
                name.removeprefix(f"blocks.{i}."): tensor
                for name, tensor in weights.items()
                if name.startswith(f"blocks.{i}.")
            }
            x = torch.func.functional_call(layer.double(), own, (x,), {"src_mask": future})
        return x[:, 1::3] @ weights["head.weight"].T + weights["head.bias"]


class TestDecisionTransformer:
    exercise = "DecisionTransformer"

    @weight(1)
    def test_one_step(self, student, seed):
        """For a one-step episode, the logits are correct: the state token attends to the return and the state."""
        draw, sizes = Draw(seed), Sizes(n_layers=1)
        model, parameters = sizes.model(student, draw)
        episode = sizes.episode(draw, 5, 1)
        close(
            model(*episode),
            sizes.expected(parameters, *episode),
            "the logits",
            ATOL,
            dtype=torch.float32,
        )

    @weight(1)
    def test_embeddings(self, student, seed):
        """Without blocks, the logits at step s are head(norm(state embedding + row s of `step_embedding`))."""
        draw, sizes = Draw(seed), Sizes(n_layers=0, d_model=5, n_heads=1)
        model, parameters = sizes.model(student, draw)
        episode = sizes.episode(draw, 3, 6)
        close(
            model(*episode),
            sizes.expected(parameters, *episode),
            "the logits",
            ATOL,
            dtype=torch.float32,
        )

    @weight(1.5)
    def test_actions_do_not_leak(self, student, seed):
        """The logits depend on the actions of earlier steps, but not on the current action or later ones."""
        draw, sizes = Draw(seed), Sizes()
        model, _ = sizes.model(student, draw)
        returns, states, actions = sizes.episode(draw, 4, 6)
        before = finite(shaped(model(returns, states, actions), (4, 6, 4))).detach()
        for step in (0, 2, 4):
            changed = actions.clone()
            changed[:, step] = (changed[:, step] + 1) % 4
            after = finite(shaped(model(returns, states, changed), (4, 6, 4))).detach()
            change = (after - before).abs().amax(dim=(0, 2))
            early = int(change[: step + 1].argmax())
            assert change[early] <= 1e-6, (
                f"changing the action at step {step} changes the logits at step {early} by {change[early].item():.3g}"
            )
            assert change[step + 1] > 1e-7, (
                f"changing the action at step {step} should change the logits at step {step + 1}, but it does not"
            )

    @weight(1.5)
    def test_states_and_returns(self, student, seed):
        """The logits depend on the current state and return, but not on later ones."""
        draw, sizes = Draw(seed), Sizes()
        model, _ = sizes.model(student, draw)
        returns, states, actions = sizes.episode(draw, 4, 6)
        before = finite(shaped(model(returns, states, actions), (4, 6, 4))).detach()
        for step in (1, 3, 5):
            other_returns, other_states = returns.clone(), states.clone()
            other_returns[:, step] += 3
            other_states[:, step] = (other_states[:, step] + 1) % 7
            for name, inputs in (
                ("return", (other_returns, states)),
                ("state", (returns, other_states)),
            ):
                after = finite(shaped(model(*inputs, actions), (4, 6, 4))).detach()
                change = (after - before).abs().amax(dim=(0, 2))
                early = int(change[:step].argmax())
                assert change[early] <= 1e-6, (
                    f"changing the {name} at step {step} changes the logits at step {early} by {change[early].item():.3g}"
                )
                assert change[step] > 1e-7, (
                    f"changing the {name} at step {step} should change the logits at this step, but it does not"
                )

    @weight(2)
    def test_values(self, student, seed):
        """The model applies embedding, interleaving, norm, blocks and head, in this order."""
        draw = Draw(seed)
        for sizes, b, t in (
            (Sizes(n_layers=1), 2, 3),
            (Sizes(n_states=5, n_actions=3, max_steps=8, d_model=12, n_heads=3, n_layers=3), 3, 5),
            (Sizes(n_states=40, n_actions=1, max_steps=75, d_model=4, n_heads=1), 1, 70),
        ):
            model, parameters = sizes.model(student, draw)
            episode = sizes.episode(draw, b, t)
            episode[0][:, ::2] *= 100  # large and small returns
            expected = sizes.expected(parameters, *episode)
            what = f"the logits for b = {b} and t = {t}"
            close(model(*episode), expected, what, ATOL, 1e-4, torch.float32)

    @weight(0.25)
    def test_eps(self, student, seed):
        """`norm` uses eps = 1e-5, the default of `nn.LayerNorm`, which matters for small embeddings."""
        draw, sizes = Draw(seed), Sizes(n_layers=1)
        model, parameters = sizes.model(student, draw)
        parameters |= {n: 2e-3 * p for n, p in parameters.items() if "_embedding" in n}
        model.load(parameters)
        episode = sizes.episode(draw, 3, 4)
        expected = sizes.expected(parameters, *episode)
        what = "the logits (if the embeddings are small)"
        close(model(*episode), expected, what, 1e-3, 1e-3, torch.float32)

    @weight(1)
    def test_longest(self, student, seed):
        """Episodes of up to `max_steps` steps are accepted; a longer episode raises a ValueError."""
        draw, sizes = Draw(seed), Sizes(max_steps=4)
        model, parameters = sizes.model(student, draw)
        episode = sizes.episode(draw, 3, 4)
        expected = sizes.expected(parameters, *episode)
        close(
            model(*episode), expected, "the logits for t = max_steps = 4", ATOL, 1e-4, torch.float32
        )
        for t in (5, 9):
            names = ("t", "max_steps", "returns", "states", "actions")
            with value_error(*names, when=f"t is {t} and max_steps is 4"):
                model(*sizes.episode(draw, 2, t))

    @weight(1)
    def test_gradients(self, student, seed):
        """The gradients of the returns and of all parameters are correct."""
        draw, sizes = Draw(seed), Sizes(n_layers=1)
        model, parameters = sizes.model(student, draw)
        returns, states, actions = sizes.episode(draw, 3, 4)
        states[0, 1] = actions[0, 1] = 0  # an embedding with padding_idx=0 has no gradient there
        upstream = draw.normal(3, 4, 4)
        exact_leaves = {name: p.double().requires_grad_() for name, p in parameters.items()}
        exact = returns.double().requires_grad_()
        backpropagate(sizes.expected(exact_leaves, exact, states, actions), upstream)
        leaves = model.weights()
        returns.requires_grad_()
        seen = shaped(model(returns, states, actions), (3, 4, 4), torch.float32, "the logits")
        backpropagate(seen, upstream, "the logits")
        for name, have, expected in (
            ("returns", returns, exact),
            *((n, leaves[n], exact_leaves[n]) for n in exact_leaves),
        ):
            found = torch.zeros_like(have) if have.grad is None else have.grad
            want = torch.zeros_like(expected) if expected.grad is None else expected.grad
            finite(found, f"the gradient of {name}")
            close(found, want, f"the gradient of {name}", 1e-3, 1e-3, torch.float32)

    @weight(0.5)
    def test_float64(self, student, seed):
        """After `.double()`, the model works with float64 returns."""
        draw, sizes = Draw(seed), Sizes()
        model, parameters = sizes.model(student, draw)
        returns, states, actions = sizes.episode(draw, 2, 5)
        expected = sizes.expected(parameters, returns, states, actions)
        seen = model.to(torch.float64)(returns.double(), states, actions)
        close(seen, expected, "the logits in float64", ATOL, 1e-4, torch.float64)

    @weight(0.5)
    def test_leaves_everything_as_it_was(self, student, seed):
        """The arguments may be non-contiguous and are not modified. Neither earlier calls nor training mode affect the logits."""
        draw, sizes = Draw(seed), Sizes()
        model, parameters = sizes.model(student, draw)
        for b, t, mode in ((3, 4, "evaluation"), (70, 2, "training"), (3, 5, "evaluation")):
            episode = [draw.strided(part) for part in sizes.episode(draw, b, t)]
            expected = sizes.expected(parameters, *episode)
            what = f"the logits in {mode} mode for b = {b} and t = {t}"
            seen = model.train(mode == "training")(*episode)
            close(seen, expected, what, ATOL, 1e-4, torch.float32)
            unchanged(student)

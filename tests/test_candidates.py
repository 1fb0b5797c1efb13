"""Test how students' tests are graded: by the mistakes that they notice, and without a way to recognise implementations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from autograder.course.config import CourseError, Day
from autograder.execution.answer_key import AnswerKey, load_locally
from autograder.execution.attempt import Outcome, RunSettings
from autograder.grading.runner import Runner
from autograder.sandbox.client import Server

pytestmark = pytest.mark.slow

NAME = "detects_broken_attention"
Run = Callable[..., list[Outcome]]


@pytest.fixture(scope="module")
def key(day1: Day) -> AnswerKey:
    return AnswerKey.read(day1)


@pytest.fixture(scope="module")
def judge(key: AnswerKey, server: Server) -> Run:
    """Return a function that runs the hidden tests on a student's test. It takes the body of the function."""
    runner = Runner(key, server)
    (exercise,) = (exercise for exercise in key.day.exercises if exercise.name == NAME)

    def judge(body: str, seed: str = "0") -> list[Outcome]:
        lines = "\n".join(f"    {line}" for line in body.strip("\n").split("\n"))
        code = f"import torch\n\ndef {NAME}(attention):\n{lines}\n"
        return runner.outcomes(exercise, key.replace_solution(NAME, code), RunSettings(seed))

    return judge


def passed(outcomes: list[Outcome]) -> int:
    return sum(outcome.passed for outcome in outcomes)


INPUTS = """
torch.manual_seed(0)
query = torch.randn(2, 3, 4, requires_grad=True)
key, value = torch.randn(2, 5, 4), torch.randn(2, 5, 6)
mask = torch.rand(2, 3, 5) < 0.5
mask[..., 0] = True
"""
SHAPES = INPUTS + "output, weights = attention(query, key, value, mask)\n"
RISING = [
    SHAPES + "return output.shape != (2, 3, 6) or weights.shape != (2, 3, 5)",
    SHAPES + "return bool((weights.sum(-1) - 1).abs().max() > 1e-3)",
    SHAPES + "return bool((weights.sum(-1) - 1).abs().max() > 1e-3 or weights[~mask].sum() > 1e-3)",
    SHAPES
    + """expected = (query @ key.mT / 2).masked_fill(~mask, -1e9).softmax(-1)
return not torch.allclose(weights, expected, atol=1e-4)""",
    SHAPES
    + """expected = (query @ key.mT / 2).masked_fill(~mask, -1e9).softmax(-1)
blind, none = attention(query, key, value, torch.zeros(2, 3, 5, dtype=torch.bool))
wrong = not torch.allclose(weights, expected, atol=1e-4) or (weights[~mask] != 0).any()
return bool(wrong or (blind != 0).any() or (none != 0).any())""",
]


def test_better_tests_earn_more(judge: Run) -> None:
    found = [passed(judge(body)) for body in RISING]
    assert found == sorted(found)
    assert found[0] <= 1
    assert len(set(found)) >= 4


def test_the_solution_notices_everything_with_other_mistakes(key: AnswerKey) -> None:
    """Each mistake of each kind is tried, not only the one that a seed selects."""
    implementations = key.implementations[NAME]
    for kind in implementations.kinds:
        for mistake in kind:
            one = replace(implementations, kinds=((mistake,),))
            student = load_locally(key.solution_source(NAME), NAME, one)
            student.connection.candidates.check([mistake])


USELESS = {
    "always broken": "return True",
    "never broken": "return False",
    "random": "import random\nreturn random.SystemRandom().random() < 0.5",
    "raises": "raise ValueError('broken')",
    "no answer": "pass",
    "text": "return 'broken'",
    "a tensor": "return torch.ones(3)",
}
# Attempts to recognise an implementation instead of testing it. Each one returns True for about half of all possible secrets, so
# if the attempt reveals nothing, either everything is accepted or a correct implementation is rejected.
CALL = "q = torch.randn(2, 3, 4)\nk = torch.randn(2, 5, 4)\n"
ATTACKS = {
    "source": """import inspect
text = inspect.getsource(attention)
return 'masked_fill(fill, -math.inf)' not in text""",
    "name": "return 'implementation' not in attention.__name__",
    "representation": "return 'mistake' in repr(attention)",
    "attributes": """return any('mistake' in str(x) for x in (dir(attention), getattr(attention, '__dict__', '')))""",
    "identity": "return id(attention) // 16 % 2 == 1",
    "hash": "return hash(attention) // 16 % 2 == 1",
    "pickle": """import pickle
return len(pickle.dumps(attention)) % 2 == 0""",
    "copy": """import copy
return copy.deepcopy(attention) is not attention""",
    "code": "return attention.__code__.co_consts[0] is None",
    "closure": "return any('mask' in str(cell.cell_contents) for cell in attention.__closure__)",
    "frames": """import sys
frame = sys._getframe()
while frame:
    if 'mistake' in str(frame.f_locals):
        return True
    frame = frame.f_back
return False""",
    "garbage": """import gc
return any(getattr(x, 'mistake', '') for x in gc.get_objects() if type(x).__name__ == 'Implementation')""",
    "modules": """import sys
return any('catalogue' in name for name in sys.modules)""",
    "processes": """import os
return os.getpid() % 2 == 1""",
    "files": """import os
return os.path.exists('/tmp/seen') or not open('/tmp/seen', 'w').close()""",
    "shared memory": """import os
return os.path.exists('/dev/shm/seen') or not open('/dev/shm/seen', 'w').close()""",
    "environment": """import os
seen = os.environ.get('SEEN')
os.environ['SEEN'] = '1'
return bool(seen)""",
    "counter": """global count
count = globals().get('count', 0) + 1
return count > 8""",
    "function attribute": """torch.seen = getattr(torch, 'seen', 0) + 1
return torch.seen > 8""",
    "random state": CALL
    + """before = torch.get_rng_state()
attention(q, k, k, None)
return not torch.equal(before, torch.get_rng_state())""",
    "strides": CALL + "return not attention(q, k, k, None)[1].is_contiguous()",
    "storage": CALL
    + """output = attention(q, k, k, None)[0]
return output.untyped_storage().nbytes() != output.numel() * 4""",
    "address": CALL + "return attention(q, k, k, None)[0].data_ptr() // 64 % 2 == 1",
    "graph": CALL
    + """q.requires_grad_()
return 'Masked' in str(attention(q, k, k, None)[0].grad_fn)""",
    "warnings": CALL
    + """import warnings
with warnings.catch_warnings(record=True) as seen:
    attention(q, k, k, None)
return bool(seen)""",
    "output": CALL
    + """import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as out:
    attention(q, k, k, None)
return bool(out.getvalue())""",
    "error texts": """try:
    attention(None, 1, 'x')
except Exception as error:
    return str(error) != 'the implementation raised an exception'
return False""",
    "error types": """try:
    attention(torch.ones(2), torch.ones(3), torch.ones(5, 5))
except Exception as error:
    return type(error) is not RuntimeError
return False""",
    "tracebacks": """try:
    attention()
except Exception as error:
    return error.__cause__ is not None or error.__context__ is not None
return False""",
    "changed arguments": CALL
    + """m = torch.ones(3, 5, dtype=torch.bool)
attention(q, k, k, m)
return not m.all()""",
    "too many calls": CALL
    + """for _ in range(51):
    attention(q, k, k, None)
return False""",
    "a function as argument": """try:
    attention(lambda: 0, attention, print)
except TypeError:
    return False
return True""",
    "a module as argument": """try:
    attention(torch.nn.Linear(2, 2), 0, 0)
except Exception:
    return False
return True""",
    "replaced functions": """import builtins
builtins.isinstance = lambda *_: True
torch.allclose = lambda *_, **__: True
return 1""",
    "a number that looks true": "return 1",
    "an odd bool": """class Odd(int):
    def __bool__(self):
        return True
    __class__ = bool
return Odd(1)""",
    "ends the process": """import os
os._exit(0)""",
}


@pytest.mark.parametrize("name", [*USELESS, *ATTACKS])
def test_code_that_does_not_test_earns_nothing(name: str, judge: Run) -> None:
    assert passed(judge({**USELESS, **ATTACKS}[name])) == 0


def test_timing_does_not_tell_implementations_apart(judge: Run) -> None:
    clock = "import time\nstarted = time.process_time_ns(), time.perf_counter_ns()\n"
    slow = "attention(torch.randn(1, 4), torch.randn(3, 4), torch.randn(3, 4), None)\n"
    end = "return time.perf_counter_ns() - started[1] > {}"
    for limit in (100_000, 500_000, 1_000_000, 2_000_000, 5_000_000):
        assert passed(judge(clock + slow + end.format(limit))) == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return True", "your test says that a correct implementation is broken"),
        ("return 'no'", "your test should return True or False, but returned a value of type str"),
        ("return torch.ones(3) > 0", "a tensor of shape (3,) and dtype bool"),
        ("pass", "your test should return True or False, but returned nothing"),
        ("raise ValueError('odd')", "`detects_broken_attention` raised ValueError: odd"),
        (
            "while True:\n    attention(torch.ones(1, 1), torch.ones(1, 1), torch.ones(1, 1))",
            "more than 50 times",
        ),
        ("while True:\n    pass", "is there an infinite loop?"),
        ("return False", "your test accepts an implementation with this mistake"),
    ],
)
def test_the_message_says_what_is_wrong(body: str, message: str, judge: Run) -> None:
    assert message in judge(body)[0].message


def test_a_false_alarm_shows_the_last_call_once(judge: Run) -> None:
    body = "o = torch.ones(1, 2)\noutput, _ = attention(o, o, o, None)\nreturn bool((output == 1).all())"
    first, second, *_ = judge(body)
    assert "Its last call: implementation(tensor([[1.0, 1.0]])" in first.message
    assert (
        second.message == "your test earns no points, for the reason that the first message gives"
    )


def test_a_list_with_an_unknown_mistake_is_an_error_of_the_course(key: AnswerKey) -> None:
    test = key.tests[NAME][0]
    tests = {**key.tests, NAME: [replace(test, mistakes=("no such mistake",))]}
    (exercise,) = (exercise for exercise in key.day.exercises if exercise.name == NAME)
    with pytest.raises(CourseError, match="has no mistake 'no such mistake'"):
        replace(key, tests=tests)._implementations_for(exercise)

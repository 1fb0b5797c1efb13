"""Define a course in Chinese whose exercises return numbers, strings, lists and booleans (see docs/instructor-guide.md)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import ROOT

TOML = """
[course]
language = "zh-Hans"
[day1]
title = "第一天：注意力"
"""
EXERCISE = """
[day1.exercises.{name}]
chapter = "attention"
points = 20
"""
BEGINNING = """# %% [markdown]
# # 注意力与词元
#
# 每个词元都可以看到它前面的词元。

# %%
import math
"""
# The heading, the stub with its solution, a visible check, a hidden test, and a known mistake with its sentence.
CELLS = '''
# %% [markdown]
# ## {heading}
# ★☆☆☆☆ · 核心 · 10 分钟
#
# 请补全下面的函数。

# %%
def {name}{signature}:
    """{sentence}"""
    ### BEGIN SOLUTION
    {solution}
    ### END SOLUTION

# %%
if __name__ == "__main__":

    @visible_check
    def check_{name}():
        result = {name}({call})
        assert result == {result!r}, f"结果应为 {result!r}，你的结果是 {{result!r}}。"
        print("{name}：检查通过。")

    check_{name}()
'''
GRADER = '''

class Test_{name}:
    exercise = "{name}"

    def test_values(self, student, seed):
        """测试：{sentence}"""
        {test}
'''
MISTAKE = """# {name}

## {mistake}
{advice}

```diff
-{solution}
+{wrong}
```
"""
EXERCISES: Mapping[str, Mapping[str, str | float | bool | list[int]]] = {
    "count_pairs": {
        "heading": "词元对的数量",
        "signature": "(n: int) -> int",
        "sentence": "返回 n 个词元中允许的词元对的数量。",
        "solution": "return n * (n + 1) // 2",
        "wrong": "return n * (n - 1) // 2",
        "mistake": "漏掉自身",
        "advice": "每个词元也可以看到它自己。",
        "call": "3",
        "result": 6,
        "test": "n = int(Draw(seed).integers(4, 30)); equal(student.count_pairs(n), sum(range(n + 1)))",
    },
    "perplexity": {
        "heading": "Übung: Perplexität",
        "signature": "(loss: float) -> float",
        "sentence": "返回困惑度，即损失的指数。",
        "solution": "return math.exp(loss)",
        "wrong": "return 2**loss",
        "mistake": "底数错误",
        "advice": "损失使用自然对数，所以底数是 e。",
        "call": "0.0",
        "result": 1.0,
        "test": "x = float(Draw(seed).uniform(1)) + 1; close(student.perplexity(x), math.e**x)",
    },
    "decode": {
        "heading": "把编号变成文字",
        "signature": "(ids: list[int], names: list[str]) -> str",
        "sentence": "返回编号对应的文字，中间没有空格。",
        "solution": 'return "".join(names[i] for i in ids)',
        "wrong": 'return " ".join(names[i] for i in ids)',
        "mistake": "多余的空格",
        "advice": "词元之间不需要空格。",
        "call": '[1, 0], ["力", "注意"]',
        "result": "注意力",
        "test": 'equal(student.decode([2, 0, 1], ["意", "力", "注"]), "注意力")',
    },
    "encode": {
        "heading": "# encode",
        "signature": "(text: str, names: list[str]) -> list[int]",
        "sentence": "返回每个字的编号。",
        "solution": "return [names.index(c) for c in text]",
        "wrong": "return [names.index(c) + 1 for c in text]",
        "mistake": "从一开始",
        "advice": "编号从零开始。",
        "call": '"力意", ["意", "力"]',
        "result": [1, 0],
        "test": 'equal(student.encode("注意", ["意", "力", "注"]), [2, 0])',
    },
    "may_attend": {
        "heading": "谁可以看到谁？",
        "signature": "(i: int, j: int) -> bool",
        "sentence": "如果词元 i 可以看到词元 j，返回 True。",
        "solution": "return j <= i",
        "wrong": "return j < i",
        "mistake": "漏掉自身",
        "advice": "每个词元也可以看到它自己。",
        "call": "2, 2",
        "result": True,
        "test": "equal([student.may_attend(3, j) for j in range(6)], [True] * 4 + [False] * 2)",
    },
}
SOLUTION = "import math\n" + "".join(
    f"# %%\ndef {name}{one['signature']}:\n    {one['solution']}\n"
    for name, one in EXERCISES.items()
)


def write(root: Path) -> Path:
    """Write the course to a folder and return the folder."""
    for folder in ("solutions", "graders", "mistakes"):
        (root / folder / "day1").mkdir(parents=True)
    parts = [(name, {"name": name, **one}) for name, one in EXERCISES.items()]
    (root / "grading.toml").write_text(TOML + "".join(EXERCISE.format(name=n) for n, _ in parts))
    chapter = BEGINNING + "".join(CELLS.format(**one) for _, one in parts)
    (root / "solutions/day1/attention.py").write_text(chapter)
    graders = "".join(GRADER.format(**one) for _, one in parts)
    imports = "import math\n\nfrom autograder.execution.checks import Draw, close, equal\n"
    (root / "graders/day1/test_attention.py").write_text(imports + graders)
    for name, one in parts:
        (root / f"mistakes/day1/{name}.md").write_text(MISTAKE.format(**one))
    for file in ("solutions/opening.py", "solutions/closing.py", "nbgrader_config.py"):
        shutil.copy(ROOT / file, root / file)
    return root

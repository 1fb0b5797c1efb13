"""Test the interactive page of attention weights: its size, its sandbox, its data, and models that it cannot show."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import re
import struct
import sys
import types
import zlib
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from torch import Tensor, nn

from autograder.course import config as courses
from autograder.course.provided import given_part, notebook_source
from autograder.in_notebook import look as module
from autograder.in_notebook.look import look
from autograder.release.visible_checks import Notebook
from autograder.submissions.cell_reader import read_cells
from solutions.day1.masking import causal_mask
from solutions.day1.transformer import Transformer
from solutions.day2.language_model import GPT
from tests.conftest import ROOT

HOSTILE = ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$x_\u2028&amp;"]
COURSE = courses.load(ROOT)
STYLES = [
    path for day in COURSE.days for path in sorted((ROOT / "tests" / "styles" / day).glob("*.py"))
]
# Untrained models, in place of those that earlier cells of the notebook train.
MODELS = {
    "day1": "reader = Transformer(3 + len(SYMBOLS), 3 + len(SYMBOLS), d_model=64)",
    "day2": """
def trained_gpt():
    return GPT(len(TOPIC_SYMBOLS), GPT_CONTEXT, d_model=96, n_heads=4, n_layers=3).eval(), None
""",
}
# These layers compute attention without calling a module that returns the weights.
WITHOUT_MODULES = {("day1", "einsum.py")}
SYMBOLS = [*HOSTILE, *"abcdef"]
SOURCE, TARGET = torch.tensor([[0, 1, 2, 3]]), torch.tensor([[4, 5, 6]])


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which `look` adds the pages that it displays."""
    shown: list[str] = []
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    monkeypatch.setattr(module, "display", lambda page: shown.append(page._repr_html_()))
    torch.manual_seed(0)
    return shown


def inside(page: str) -> str:
    found = re.search(r'srcdoc="([^"]*)"', page)
    assert found
    return html.unescape(found[1])


def picture_in(page: str) -> bytes:
    found = re.search(r'<img alt="[^"]+" src="data:image/png;base64,([^"]+)"', page)
    assert found
    return base64.b64decode(found[1])


def data(page: str) -> Any:
    found = re.search(r'id="data">(.*?)</script>', inside(page), re.DOTALL)
    assert found
    assert not re.search("[<>&\u2028\u2029]", found[1])
    return json.loads(found[1])


def shown_weights(page: str) -> dict[str, Tensor]:
    """Return the hundredths that a page shows, h × (with and without the mask) × n × m, for each layer."""
    shown = data(page)
    numbers = torch.tensor(list(zlib.decompress(base64.b64decode(shown["weights"]))))
    layers = {}
    for group in shown["groups"]:
        kinds = 2 if group["masked"] else 1
        shape = len(group["heads"]), kinds, len(group["queries"]), len(group["keys"])
        size = torch.Size(shape).numel()
        layers[group["name"]] = numbers[group["start"] : group["start"] + size].reshape(shape)
    return layers


def test_a_page_is_sandboxed_small_and_loads_nothing(pages: list[str]) -> None:
    look({title: torch.eye(3) for title in HOSTILE}, HOSTILE)
    (page,) = pages
    assert len(page) <= 60_000
    assert 'sandbox="allow-scripts"' in page
    assert page.count("sandbox=") == 1
    document = inside(page)
    policy = "default-src 'none'; script-src 'sha256-[^ ]+'; style-src 'sha256-[^ ]+'"
    assert re.search(f'http-equiv="Content-Security-Policy" content="{policy}"', document)
    assert document.count("<script") == document.count("</script>") == 2
    own = re.sub('id="data">.*?<', "", document)
    assert not re.search(r"https?:|//[a-z]+\.|\bsrc=|\bhref=|@import|url\(", own)
    assert data(page)["groups"][0]["keys"] == [label.replace(" ", "␣") for label in HOSTILE]
    assert data(page)["groups"][0]["heads"] == HOSTILE


def test_a_picture_is_shown_without_scripts(pages: list[str]) -> None:
    look({"weights": torch.eye(3)}, "abc")
    assert picture_in(pages[0]).startswith(b"\x89PNG")
    assert pages[0].index("<img") < pages[0].index("<iframe")


@pytest.mark.parametrize("training", [True, False])
def test_a_transformer_shows_every_layer(pages: list[str], training: bool) -> None:
    model = Transformer(9, 9, d_model=8, n_heads=2, dropout=0.5).train(training)
    look(model, SOURCE, TARGET, symbols=SYMBOLS)
    shown = shown_weights(pages[0])
    assert list(shown) == [
        "encoder[0].self_attention",
        "encoder[1].self_attention",
        "decoder[0].self_attention",
        "decoder[0].cross_attention",
        "decoder[1].self_attention",
        "decoder[1].cross_attention",
    ]
    assert model.training is training
    assert not any(part._forward_hooks for part in model.modules())
    recorded = []
    model.decoder[1].cross_attention.register_forward_hook(
        lambda layer, inputs, output: recorded.append(output[1][0])
    )
    with torch.no_grad():
        model.eval()(SOURCE, TARGET)
    expected = (100 * recorded[0]).round()
    expected[:, :, 0] = 255  # the source begins with padding
    assert torch.equal(shown["decoder[1].cross_attention"][:, 0].float(), expected)
    hidden = ~causal_mask(3)
    masked, unmasked = shown["decoder[0].self_attention"].unbind(1)
    assert torch.equal(masked == 255, hidden.expand(2, 3, 3))
    assert (unmasked[:, hidden] <= 100).all()
    assert (unmasked[:, hidden] > 0).any()


def test_a_language_model_shows_its_logits(pages: list[str]) -> None:
    model = GPT(len(SYMBOLS), 8, d_model=8, n_heads=2, n_layers=2).eval()
    look(model, SOURCE, symbols=SYMBOLS, n_heads=2)
    shown = data(pages[0])
    assert [group["name"] for group in shown["groups"]] == [
        "blocks[0].attention",
        "blocks[1].attention",
    ]
    assert shown["temperature"]
    packed = zlib.decompress(base64.b64decode(shown["logits"]))
    gaps = torch.tensor(struct.unpack(f"<{len(packed) // 2}H", packed)).reshape(4, len(SYMBOLS))
    probabilities = (-gaps / 1000).softmax(dim=-1)
    with torch.no_grad():
        assert torch.allclose(probabilities, model(SOURCE)[0].softmax(dim=-1), atol=1e-3)
    assert (shown_weights(pages[0])["blocks[0].attention"][:, 0].triu(1)[:, 0, 1:] == 255).all()


def test_a_pair_shows_what_the_mask_hides(pages: list[str]) -> None:
    without = torch.full((2, 2), 0.5)
    look({"causal": (torch.tensor([[1.0, 0.0], [0.5, 0.5]]), without)}, "ab")
    assert shown_weights(pages[0])[""].tolist() == [[[[100, 255], [50, 50]], [[50, 50], [50, 50]]]]


class Failing(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: look(nn.Embedding(9, 9), SOURCE, symbols=SYMBOLS), "no attention weights"),
        (lambda: look(Failing(), SOURCE, symbols=SYMBOLS), "RuntimeError: shapes do not match"),
        (lambda: look({"weights": None}, "ab"), "no attention weights"),
        (lambda: look({"weights": torch.eye(3)}, "ab"), "no attention weights"),
        (lambda: look({"weights": torch.full((2, 2), torch.nan)}, "ab"), "no attention weights"),
        (lambda: look({"weights": torch.rand(400, 400)}, range(400)), "use a shorter text"),
    ],
)
def test_what_cannot_be_shown_gets_one_sentence(
    pages: list[str], capsys: pytest.CaptureFixture[str], call: Any, sentence: str
) -> None:
    call()
    assert pages == []
    printed = capsys.readouterr().out
    assert sentence in printed
    assert printed.count("\n") == 1


def test_no_tokens_are_no_weights(pages: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    look(GPT(9, 8, d_model=8, n_heads=2, n_layers=1), SOURCE[:, :0], symbols=SYMBOLS, n_heads=2)
    assert pages == []
    assert capsys.readouterr().out.startswith("look ")


def test_exported_notebooks_keep_the_page_and_its_picture() -> None:
    code = "import torch\nfrom autograder.in_notebook.look import look\nlook({'map': torch.eye(3)}, 'abc')"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    page = notebook.cells[0].outputs[-1].data["text/html"]
    for template in ("lab", "classic"):
        exported, _ = HTMLExporter(template_name=template).from_notebook_node(notebook)
        assert inside(exported) == inside(page)
        assert picture_in(exported) == picture_in(page)
        assert 'sandbox="allow-scripts"' in exported


@pytest.mark.parametrize(
    ("day", "style"),
    [
        *((day, None) for day in COURSE.days),
        *(
            pytest.param(path.parent.name, path, id=f"{path.parent.name}-{path.stem}")
            for path in STYLES
        ),
    ],
)
def test_the_chapters_show_models_in_any_style(
    monkeypatch: pytest.MonkeyPatch, day: str, style: Path | None
) -> None:
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # a notebook replaces it
    chapters = COURSE.day(day).chapters
    looks = [
        source
        for chapter in chapters
        for cell in chapter.cells
        if cell.role == "demonstration" and re.search(r"\blook\(", source := notebook_source(cell))
    ]
    assert looks
    with contextlib.redirect_stdout(io.StringIO()):
        notebook = Notebook(COURSE.day(day))
        for cell in read_cells(style.read_bytes(), style.name)[0] if style else ():
            if cell.kind == "code" and not cell.source.startswith("%"):
                notebook.run(cell.source, "style")
    opening = given_part(COURSE.day(day), "opening").cells
    support = [notebook_source(cell) for cell in opening if cell.role == "support"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for number, source in enumerate([*support, MODELS[day], *looks]):
            notebook.run(source, f"cell {number}")
    # Outside a notebook, each page is one printed line.
    shown = printed.getvalue().count("Attention weights: run this in a notebook")
    missing = printed.getvalue().count("look found no attention weights")
    assert shown + missing == sum(source.count("look(") for source in looks)
    assert missing == (style is not None and style.parts[-2:] in WITHOUT_MODULES)

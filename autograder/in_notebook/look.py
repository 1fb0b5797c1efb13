"""Show attention weights in an interactive page that is part of the notebook. Entry point: `look`.

The page runs in a sandboxed frame and loads nothing. Where scripts do not run, a picture behind the frame shows the weights.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from IPython.display import display
from torch import Tensor, nn

from autograder.in_notebook.helper_names import helper_names, student_names

_LOOK_LIMIT = 60_000  # characters per figure
_LOOK_HIDDEN = 255  # the byte for a weight that the mask hides; others are hundredths
_VISIBLE_SPACE = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})
_LOOK_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --line: #6e7781; --weight: 9, 80, 174 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --ink: #e6edf3; --line: #8b949e; --weight: 121, 192, 255 }
}
html.ready { background: var(--paper); color: var(--ink) }
body { margin: 8px; font: 14px/1.4 system-ui, sans-serif }
h1 { font-size: 15px; margin: 0 0 6px }
[hidden] { display: none !important }
.controls, .views { display: flex; flex-wrap: wrap; gap: 6px 16px; align-items: center }
.views { align-items: flex-start; margin-top: 8px }
#heads { display: flex; flex-wrap: wrap; gap: 6px }
button, select, input { font: inherit; color: inherit }
#heads button { max-width: 11em; padding: 3px; border: 2px solid transparent; background: none; cursor: pointer }
#heads button[aria-pressed=true] { border-color: var(--ink) }
canvas { display: block; width: 56px; height: 56px; margin: auto; image-rendering: pixelated; outline: 1px solid var(--line) }
#scroll { overflow: auto; max-width: 100% }
#map { border-collapse: collapse; font-size: clamp(11px, var(--cell), 14px) }
#map { --room: calc(100vw - 20px); --cell: clamp(9px, (var(--room) - var(--wide)) / var(--across), 28px) }
@media (min-width: 640px) { #map { --room: min(560px, 100vw - 350px) } }
#map td { width: var(--cell); min-width: var(--cell); height: var(--cell); padding: 0; border: 1px solid transparent }
#map td { outline: 1px solid rgba(128, 128, 128, .2); background-color: rgba(var(--weight), var(--w, 0)) }
#map td.hidden { background: repeating-linear-gradient(45deg, var(--line) 0 1px, transparent 1px 4px) }
#map td.later { background: none; outline: none }
#map td:focus { outline: 2px solid var(--ink) }
#map th { font-weight: normal; padding: 0 3px; line-height: 1; white-space: pre }
#map thead th + th { padding: 0 }
#map thead th span { display: inline-block; max-height: 8em; overflow: hidden; line-height: 1.2 }
#map.long thead th span { writing-mode: vertical-rl; transform: rotate(180deg) }
#map tbody th { text-align: right }
#map th.on { font-weight: bold; text-decoration: underline }
#detail { min-height: 1.4em; margin: 6px 0 }
#next { width: 17em }
#next p { margin: 0 0 6px }
#next input { width: 8em }
#text { white-space: pre-wrap; overflow-wrap: anywhere }
#candidates td:first-child, #candidates th { font-weight: normal; min-width: 2.5em; text-align: left }
#candidates .bar { width: 10em }
#candidates .bar span { display: block; height: 12px; background: rgb(var(--weight)) }
"""
_LOOK_BODY = """
<main id="page" hidden>
<h1 id="title">Attention weights</h1>
<div class="controls">
<label id="layers">Layer <select id="layer"></select></label>
<div id="heads" role="group" aria-label="Head"></div>
<label id="masking"><input type="checkbox" id="mask" checked> Apply the mask</label>
</div>
<p id="detail" aria-live="polite"></p>
<div class="views">
<div id="scroll"><table id="map" role="grid" aria-label="Attention weights"></table></div>
<section id="next" aria-label="Next token" hidden>
<p><label>Step <input type="range" id="step" min="1"></label> <output id="count" for="step"></output>
<button id="back">Back</button> <button id="forward">Next</button></p>
<p id="warmth"><label>Temperature <input type="range" id="temperature" min="0.1" max="2" step="0.1" value="1"></label>
<output id="degrees" for="temperature">1.0</output></p>
<p>The model reads <code id="text"></code></p>
<table id="candidates"><caption>Probability of the next token</caption><tbody></tbody></table>
</section>
</div>
</main>
"""
_LOOK_SCRIPT = """
'use strict';
const find = id => document.getElementById(id);
const data = JSON.parse(find('data').textContent);
const HIDDEN = 255;
let group, head = 0, weights, logits, focus = [0, 0];

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Response(stream).arrayBuffer();
}

function add(parent, tag, text = '', attributes = {}) {
  const element = parent.appendChild(document.createElement(tag));
  element.textContent = text;
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  return element;
}

// The hundredths of one head, with the mask (0) or without it (1).
function values(number, without) {
  const size = group.queries.length * group.keys.length;
  const place = group.start + size * (group.masked ? 2 * number + without : number);
  return weights.subarray(place, place + size);
}

const unmasked = () => group.masked && !find('mask').checked ? 1 : 0;
const isDecoding = () => logits && group.queries.length === data.read.length;
const lastRow = () => isDecoding() ? find('step').value - 1 : group.queries.length - 1;

function describe(row, column) {
  const weight = values(head, unmasked())[row * group.keys.length + column];
  const shown = weight === HIDDEN ? '0, hidden by the mask' : (weight / 100).toFixed(2);
  return `query ${group.queries[row]}, key ${group.keys[column]}: weight ${shown}`;
}

function point(row, column) {
  find('detail').textContent = row > lastRow() ? '' : describe(row, column);
  for (const th of document.querySelectorAll('#map th.on')) th.classList.remove('on');
  find('map').tBodies[0].rows[row].cells[0].classList.add('on');
  find('map').tHead.rows[0].cells[column + 1].classList.add('on');
}

function buildHeads() {
  find('heads').replaceChildren();
  group.heads.forEach((name, number) => {
    const button = add(find('heads'), 'button', '', {type: 'button'});
    add(button, 'canvas', '', {width: group.keys.length, height: group.queries.length});
    add(button, 'span', name);
    button.onclick = () => { head = number; draw(); };
  });
  const one = group.heads.length < 2;
  find('heads').hidden = one;
  find('title').textContent = one ? group.heads[0] : 'Attention weights';
}

function buildMap() {
  const map = find('map');
  map.replaceChildren();
  map.classList.toggle('long', group.keys.some(label => label.length > 2));
  const header = add(add(map, 'thead'), 'tr');
  add(header, 'th', 'query / key', {scope: 'col'});
  for (const label of group.keys) add(add(header, 'th', '', {scope: 'col'}), 'span', label);
  const body = add(map, 'tbody');
  for (const label of group.queries) {
    const line = add(body, 'tr');
    add(line, 'th', label, {scope: 'row'});
    for (const _ of group.keys) add(line, 'td', '', {tabindex: -1});
  }
  focus = [0, 0];
  cell(0, 0).tabIndex = 0;
  map.style.setProperty('--across', group.keys.length);
  map.style.setProperty('--wide', `${Math.max(...group.queries.map(label => label.length)) * 8 + 40}px`);
}

const cell = (row, column) => find('map').tBodies[0].rows[row].cells[column + 1];

function draw() {
  const across = group.keys.length;
  const [red, green, blue] = getComputedStyle(document.documentElement).getPropertyValue('--weight').split(',');
  [...find('heads').children].forEach((button, number) => {
    button.setAttribute('aria-pressed', number === head);
    const picture = new ImageData(across, group.queries.length);
    values(number, unmasked()).forEach((weight, place) => {
      picture.data.set([red, green, blue, weight === HIDDEN ? 0 : 2.55 * weight], 4 * place);
    });
    button.firstChild.getContext('2d').putImageData(picture, 0, 0);
  });
  values(head, unmasked()).forEach((weight, place) => {
    const [row, column] = [Math.floor(place / across), place % across];
    const td = cell(row, column);
    td.style.setProperty('--w', weight === HIDDEN ? 0 : weight / 100);
    td.classList.toggle('hidden', weight === HIDDEN);
    td.classList.toggle('later', row > lastRow());
    td.setAttribute('aria-label', row > lastRow() ? 'not computed yet' : describe(row, column));
  });
  find('masking').hidden = !group.masked;
  point(...focus);
}

function predict() {
  const row = find('step').value - 1;
  const heat = Number(find('temperature').value);
  const gaps = logits.subarray(row * data.symbols.length, (row + 1) * data.symbols.length);
  const powers = Array.from(gaps, gap => Math.exp(-gap / 1000 / heat));
  const total = powers.reduce((sum, power) => sum + power, 0);
  const order = powers.map((_, token) => token).sort((a, b) => powers[b] - powers[a]).slice(0, 6);
  const list = find('candidates').tBodies[0];
  list.replaceChildren();
  for (const token of order) {
    const line = add(list, 'tr');
    add(line, 'th', data.symbols[token], {scope: 'row'});
    const share = powers[token] / total;
    add(add(line, 'td', '', {class: 'bar'}), 'span').style.width = `${100 * share}%`;
    add(line, 'td', share.toFixed(3));
  }
  find('text').textContent = data.read.slice(0, row + 1).join('');
  find('count').textContent = `${row + 1} of ${data.read.length}`;
  find('degrees').textContent = heat.toFixed(1);
}

function choose() {
  group = data.groups[find('layer').value];
  head = Math.min(head, group.heads.length - 1);
  buildHeads();
  buildMap();
  draw();
}

function step(by) {
  find('step').value = Number(find('step').value) + by;
  predict();
  draw();
}

function move(event) {
  const [rows, columns] = [lastRow(), group.keys.length - 1];
  let [row, column] = focus;
  if (event.key === 'ArrowUp') row -= 1;
  else if (event.key === 'ArrowDown') row += 1;
  else if (event.key === 'ArrowLeft') column -= 1;
  else if (event.key === 'ArrowRight') column += 1;
  else if (event.key === 'Home') column = 0;
  else if (event.key === 'End') column = columns;
  else return;
  event.preventDefault();
  cell(Math.max(0, Math.min(rows, row)), Math.max(0, Math.min(columns, column))).focus();
}

function at(event, action) {
  const td = event.target.closest('#map td');
  if (td) action(td.parentNode.rowIndex - 1, td.cellIndex - 1);
}

async function start() {
  weights = new Uint8Array(await unpacked(data.weights));
  if (data.logits) logits = new Uint16Array(await unpacked(data.logits));
  data.groups.forEach((each, number) => add(find('layer'), 'option', each.name, {value: number}));
  find('layer').value = data.groups.length - 1;
  find('layers').hidden = data.groups.length < 2;
  find('warmth').hidden = !data.temperature;
  find('page').hidden = false;
  document.documentElement.className = 'ready';
  if (logits) {
    find('next').hidden = false;
    find('step').max = data.read.length;
    find('step').value = data.read.length;
    predict();
  }
  choose();
  find('layer').onchange = choose;
  find('mask').onchange = draw;
  find('step').oninput = () => step(0);
  find('back').onclick = () => step(-1);
  find('forward').onclick = () => step(1);
  find('temperature').oninput = predict;
  find('map').addEventListener('keydown', move);
  find('map').addEventListener('pointerover', event => at(event, point));
  find('map').addEventListener('pointerleave', () => point(...focus));
  find('map').addEventListener('click', event => at(event, (row, column) => cell(row, column).focus()));
  find('map').addEventListener('focusin', event => at(event, (row, column) => {
    cell(...focus).tabIndex = -1;
    focus = [row, column];
    cell(row, column).tabIndex = 0;
    point(row, column);
  }));
  matchMedia('(prefers-color-scheme: dark)').onchange = draw;
}

start();
"""


@dataclass(frozen=True)
class _HeadMaps:
    """The attention weights of one layer's heads, h × n × m, with and without the mask, and the tokens along both axes."""

    name: str
    heads: list[str]
    weights: Tensor
    unmasked: Tensor | None
    queries: list[str]
    keys: list[str]

    @property
    def hidden(self) -> Tensor:
        """Where the mask hides a key. Without the mask, that key has a weight."""
        if self.unmasked is None:
            return torch.zeros_like(self.weights, dtype=torch.bool)
        return (self.weights == 0) & (self.unmasked > 0)


class _LookPage:
    """An interactive page: HTML in a notebook, a sentence elsewhere."""

    def __init__(self, page: str) -> None:
        self.page = page

    def __repr__(self) -> str:
        return "Attention weights: run this in a notebook to see them."

    def _repr_html_(self) -> str:
        return self.page


@helper_names()
def look(
    what: nn.Module | Mapping[str, Any],
    *inputs: Any,
    symbols: Sequence[str] | None = None,
    n_heads: int = 0,
) -> None:
    """Show attention weights. Point at a cell, or move to it with the arrow keys, to read its weight.

    look(model, tokens, symbols=...) runs the model on one row of tokens, and look(model, source, target, symbols=...) on
    two. `symbols` lists the text of each token. It shows every layer and head, with and without the mask, and the
    probabilities of the next token. `n_heads` is needed for layers with a joint `qkv`.

    look({title: weights}, queries, keys) shows matrices with these labels along their axes. A pair (weights, weights
    without the mask) also shows what the mask hides. If `keys` is missing, both axes have the same labels.
    """
    read: list[str] = []
    logits = None
    if isinstance(what, nn.Module):
        labels = [[_token_label(symbols, token) for token in row[0].tolist()] for row in inputs]
        try:
            recorded, logits = _recorded_weights(what, inputs, n_heads)
        except Exception as error:
            print(f"look shows nothing, because the model raised {type(error).__name__}: {error}")
            return
        groups = [group for found in recorded if (group := _labelled(*found, labels))]
        read = labels[-1]
    else:
        queries = [str(label).translate(_VISIBLE_SPACE) for label in inputs[0]]
        keys = [str(label).translate(_VISIBLE_SPACE) for label in inputs[-1]]
        pairs = [pair if isinstance(pair, tuple) else (pair, None) for pair in what.values()]
        groups = _titled(list(what), pairs, queries, keys)
    if not groups:
        print(
            "look found no attention weights: layers should return the pair (output, weights) or call `qkv` as a module."
        )
        return
    page = _look_page(groups, read, logits, symbols or (), temperature=len(inputs) == 1)
    if len(page) > _LOOK_LIMIT:
        print(f"look shows at most {_LOOK_LIMIT // 1000} kB, and this is more: use a shorter text.")
        return
    display(_LookPage(page))  # type: ignore[no-untyped-call]


def _token_label(symbols: Sequence[str] | None, token: int) -> str:
    known = symbols is not None and 0 <= token < len(symbols)
    return (symbols[token] if symbols and known else str(token)).translate(_VISIBLE_SPACE)


def _recorded_weights(
    model: nn.Module, inputs: Sequence[Tensor], n_heads: int
) -> tuple[list[tuple[str, Tensor, Tensor | None]], Tensor | None]:
    """Run a model on one example. Return each attention layer's path and weights, and the model's output."""
    found: list[tuple[str, Tensor, Tensor | None]] = []
    hooks = [
        module.register_forward_hook(_recorder(path, found, n_heads), with_kwargs=True)
        for path, module in model.named_modules()
    ]
    is_training = model.training
    try:
        with torch.no_grad(), student_names():
            model.eval()
            logits = model(*inputs)
    finally:
        model.train(is_training)
        for hook in hooks:
            hook.remove()
    return found, logits if _has_shape(logits, 1, inputs[-1].shape[-1], None) else None


def _recorder(
    path: str, found: list[tuple[str, Tensor, Tensor | None]], n_heads: int
) -> Callable[..., None]:
    """Return a hook that appends a layer's weights, with and without its mask, to `found`."""

    @helper_names()
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if path.endswith("qkv") and n_heads and _has_shape(output, 1, None, None):
            weights: tuple[Tensor, Tensor | None] = _weights_from_qkv(output[0], n_heads)
        elif isinstance(output, tuple | list) and len(output) == 2:
            if not _has_shape(output[1], 1, None, None, None):
                return
            weights = output[1][0].clone(), _without_mask(module, args, kwargs)
        else:
            return
        name = re.sub(r"\.(\d+)", r"[\1]", path.removesuffix(".qkv"))
        found.append((name, *weights))

    return hook


def _weights_from_qkv(output: Tensor, n_heads: int) -> tuple[Tensor, Tensor]:
    """Return the causal and the unmasked weights for the queries and keys in the output of `qkv`."""
    query, key, _ = (
        part.unflatten(-1, (n_heads, -1)).transpose(0, 1) for part in output.chunk(3, -1)
    )
    scores = query @ key.mT / key.shape[-1] ** 0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1), scores.softmax(-1)


def _without_mask(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor | None:
    """Return the weights that a layer computes without its mask: the fourth argument, or the one named `mask`."""
    masked = len(args) > 3 or kwargs.get("mask") is not None
    if not masked:
        return None
    try:
        with student_names():
            result = module.forward(*args[:3], **{**kwargs, "mask": None})
        return result[1][0].clone()  # type: ignore[no-any-return]
    except Exception:
        return None


def _has_shape(value: Any, *shape: int | None) -> bool:
    """Return whether a value is a tensor of this shape, where None means any size."""
    if not isinstance(value, Tensor) or value.ndim != len(shape):
        return False
    return all(wanted in (None, n) for wanted, n in zip(shape, value.shape, strict=True))


def _are_weights(value: Any, *shape: int) -> bool:
    """Return whether a value is a nonempty tensor of this shape with numbers from 0 to 1."""
    if not _has_shape(value, *shape):
        return False
    in_range = (value > -1e-3) & (value < 1.001)  # false for NaN
    return value.numel() > 0 and bool(in_range.all())


def _labelled(
    name: str, weights: Tensor, unmasked: Tensor | None, labels: list[list[str]]
) -> _HeadMaps | None:
    """Label a model's layer, or return None if its weights do not fit the tokens."""
    source, target = labels[0], labels[-1]
    queries = source if name.startswith("encoder") else target
    keys = source if "cross" in name else queries
    shape = len(weights), len(queries), len(keys)
    if not _are_weights(weights, *shape):
        return None
    without = unmasked if unmasked is not None and _are_weights(unmasked, *shape) else None
    if without is not None and not ((weights == 0) & (without > 0)).any():
        without = None  # the mask hides nothing
    heads = [f"head {number}" for number in range(len(weights))]
    return _HeadMaps(name, heads, weights, without, queries, keys)


def _titled(
    titles: list[str], pairs: list[tuple[Any, Any]], queries: list[str], keys: list[str]
) -> list[_HeadMaps]:
    """Combine matrices into one group, or return [] if any of them does not fit the labels."""
    shape = len(queries), len(keys)
    if not all(_are_weights(weights, *shape) for weights, _ in pairs):
        return []
    without = [each for _, each in pairs if _are_weights(each, *shape)]
    unmasked = torch.stack(without).detach() if len(without) == len(pairs) else None
    weights = torch.stack([each for each, _ in pairs]).detach()
    return [_HeadMaps("", titles, weights, unmasked, queries, keys)]


def _look_page(
    groups: list[_HeadMaps],
    read: list[str],
    logits: Tensor | None,
    symbols: Sequence[str],
    temperature: bool,
) -> str:
    """Return the HTML of a figure: a picture, and the frame with the page in front of it."""
    packed = b""
    described = []
    for group in groups:
        described.append(
            {
                "name": group.name,
                "heads": group.heads,
                "queries": group.queries,
                "keys": group.keys,
                "masked": group.unmasked is not None,
                "start": len(packed),
            }
        )
        masked = _hundredths(group.weights).masked_fill(group.hidden, _LOOK_HIDDEN)
        layers = masked.unsqueeze(1)
        if group.unmasked is not None:
            layers = torch.stack([masked, _hundredths(group.unmasked)], dim=1)
        packed += bytes(layers.flatten().tolist())
    data = {
        "groups": described,
        "weights": base64.b64encode(zlib.compress(packed, 9)).decode(),
        "read": read,
        "logits": _packed_logits(logits[0])
        if logits is not None and logits.shape[-1] == len(symbols)
        else "",
        "symbols": [symbol.translate(_VISIBLE_SPACE) for symbol in symbols],
        "temperature": temperature,
    }
    controls = 280 if any(len(group.heads) > 1 for group in groups) else 150
    rows = max(len(group.queries) * min(29, 1 + 500 / len(group.keys)) for group in groups)
    longest = max(len(label) for group in groups for label in group.keys)
    height = round(controls + min(rows, 640) + 8 * min(longest, 14))
    picture = base64.b64encode(_static_picture(groups[-1])).decode()
    frame = html.escape(_framed(data))
    return (
        f'<div style="position: relative; min-height: {height}px">'
        f'<img alt="Attention weights: {html.escape(", ".join(groups[-1].heads))}" '
        f'src="data:image/png;base64,{picture}" style="max-width: 100%; max-height: {height}px">'
        f'<iframe title="Attention weights" sandbox="allow-scripts" srcdoc="{frame}" '
        f'style="position: absolute; left: 0; top: 0; width: 100%; height: {height}px; border: 0"></iframe></div>'
    )


def _framed(data: Mapping[str, Any]) -> str:
    """Return the page inside the frame. Its policy allows only its own script and style."""
    policy = f"default-src 'none'; script-src {_csp_hash(_LOOK_SCRIPT)}; style-src {_csp_hash(_LOOK_STYLE)}"
    text = json.dumps(data, separators=(",", ":"))  # ASCII
    for symbol in "<>&":
        text = text.replace(symbol, f"\\u{ord(symbol):04x}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>Attention weights</title><style>{_LOOK_STYLE}</style></head><body>{_LOOK_BODY}"
        f'<script type="application/json" id="data">{text}</script><script>{_LOOK_SCRIPT}</script></body></html>'
    )


def _csp_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _hundredths(weights: Tensor) -> Tensor:
    return (100 * weights.detach().cpu()).round().clamp(0, 100).to(torch.uint8)


def _packed_logits(logits: Tensor) -> str:
    """Return by how many thousandths each logit is below the largest in its row, as packed 16-bit numbers."""
    gaps = 1000 * (logits.amax(dim=-1, keepdim=True) - logits).cpu().double()
    numbers = gaps.round().nan_to_num(65535).clamp(0, 65535).int().flatten().tolist()
    return base64.b64encode(zlib.compress(struct.pack(f"<{len(numbers)}H", *numbers), 9)).decode()


def _static_picture(group: _HeadMaps) -> bytes:
    """Draw all heads of a layer, with a cross for each hidden key."""
    from matplotlib.figure import Figure

    across = min(4, len(group.heads))
    down = -(-len(group.heads) // across)
    figure = Figure(figsize=(3 * across, 3 * down), dpi=60, layout="constrained")
    for number, title in enumerate(group.heads):
        axis = figure.add_subplot(down, across, number + 1)
        axis.imshow(group.weights[number].tolist(), cmap="Blues", vmin=0, vmax=1)
        if len(group.queries) <= 12:
            for row, column in group.hidden[number].nonzero().tolist():
                axis.text(column, row, "×", ha="center", va="center", color="grey")
        axis.set_title(title.replace("$", r"\$"), fontsize=9)
        for set_ticks, labels in ((axis.set_xticks, group.keys), (axis.set_yticks, group.queries)):
            shown = [label[:12].replace("$", r"\$") for label in labels]
            is_across = labels is group.keys and max(map(len, shown)) > 2
            turned = 90 if is_across and set_ticks == axis.set_xticks else 0
            set_ticks(
                range(len(labels)), shown, fontsize=7 if len(labels) <= 24 else 4, rotation=turned
            )
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()

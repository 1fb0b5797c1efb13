"""Generate the two results shown in Day 2's opening: an animation of digits being drawn, and chorales.

`python -m solutions.day2.results` trains the chapters' models with seed 0, which takes about five minutes. It writes
`digits.gif`, `chorales.json` and `chorale.wav` to the `figures` folder.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from solutions.day2 import diffusion, music

FOLDER = Path(__file__).parent / "figures"
SEED, TEMPERATURE, SCALE = 0, 0.8, 2.0


def save_digits(model: nn.Module, file: Path) -> None:
    """Save an animation of twenty digits, two of each, being drawn from noise."""
    labels = torch.arange(10).repeat(2)
    path = diffusion.draw_digits(model, labels, SCALE)
    frames = [_sheet(pictures) for pictures in path]
    times = [90] * (len(frames) - 1) + [3000]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=times, loop=0)


def _sheet(pictures: Tensor) -> Image.Image:
    """Tile pictures into a sheet with ten per row, and enlarge each pixel to 5 × 5."""
    grey = ((pictures.clamp(-1, 1) + 1) * 7.5).round() * 17  # 16 shades
    padded = nn.functional.pad(grey, (1, 1, 1, 1)).squeeze(1)
    rows = [torch.cat(list(row), dim=1) for row in padded.split(10)]
    sheet = Image.fromarray(torch.cat(rows).byte().numpy())
    return sheet.resize((5 * sheet.width, 5 * sheet.height), Image.Resampling.NEAREST)


def save_chorales(models: dict[str, nn.Module], file: Path) -> dict[str, Tensor]:
    """Save the first held-out chorale and each model's continuation of the chorale's first chord. Return all tokens."""
    _, windows = music.split_chorales(music.read_chorales())
    chord = windows[:1, :4]
    pieces = {"Bach": windows[0]}
    for kind, model in models.items():
        pieces[kind] = music.compose(model, chord, TEMPERATURE, SEED)[0]
    long = 2 * music.CHORALE_LENGTH
    longer = music.lengthened(models["relative"], long)
    pieces["relative, sixteen bars"] = music.compose(longer, chord, TEMPERATURE, SEED, long)[0]
    written = {title: as_text(tokens) for title, tokens in pieces.items()}
    about = {"seed": SEED, "temperature": TEMPERATURE}
    file.write_text(json.dumps(about | written, indent=1) + "\n", encoding="utf-8")
    return pieces


def as_text(tokens: Tensor) -> str:
    """Convert tokens to the text format of `music.PERFORMANCES`, with one character per token."""
    return "".join(music.ALPHABET[token] for token in tokens.tolist())


def main() -> None:
    """Train the models and save all results."""
    torch.set_num_threads(1)
    digit_dit, _ = diffusion.trained_digit_dit()
    save_digits(digit_dit, FOLDER / "digits.gif")
    training, windows = music.split_chorales(music.read_chorales())
    models = {
        kind: music.run_chorales(kind, SEED, training, windows).model
        for kind in ("relative", "absolute")
    }
    pieces = save_chorales(models, FOLDER / "chorales.json")
    four_bars = pieces["relative"][: music.CHORALE_LENGTH // 2]
    (FOLDER / "chorale.wav").write_bytes(music.chorale_wav(four_bars))


if __name__ == "__main__":
    main()

# %%
# ruff: noqa: F811 (each cell is a whole, wrong solution of its exercise)
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


# %% sinusoidal_encoding: the exponent doubled
# SamLynnEvans issues 7 and 25, DongjunLee issue 6
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """These frequencies fall twice as fast as they should, down to 10000⁻². Look at whether your
    index is i or already 2i."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) * 2 / d_model
    angles = positions / 10000.0**exponents
    table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    return table[:, :d_model].float()


# %% sinusoidal_encoding: a frequency for each column
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """Sine and cosine of a pair have different frequencies here. Look at which columns share an
    angle."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(d_model, dtype=torch.float64) / d_model
    angles = positions / 10000.0**exponents
    angles[:, 0::2] = angles[:, 0::2].sin()
    angles[:, 1::2] = angles[:, 1::2].cos()
    return angles.float()


# %% sinusoidal_encoding: multiplied instead of divided
# harvardnlp issue 131
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """The angles grow from pair to pair here instead of shrinking. Look at the sign of the
    exponent."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) / d_model
    angles = positions * 10000.0**exponents
    table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    return table[:, :d_model].float()


# %% sinusoidal_encoding: positions from 1
# CS336 issue 4: a formula that counts from 1 in code that counts from 0.
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """The first row here belongs to position 1. Look at which number the first position has."""
    positions = torch.arange(1, length + 1, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) / d_model
    angles = positions / 10000.0**exponents
    table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    return table[:, :d_model].float()


# %% sinusoidal_encoding: sines first, then cosines
# tensor2tensor's layout; Kyubyong and many copies have it.
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """The first half of the columns holds the sines and the second the cosines here. Look at the
    order of the columns in the formula."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) / d_model
    angles = positions / 10000.0**exponents
    table = torch.cat((angles.sin(), angles.cos()), dim=-1)
    return table[:, :d_model].float()


# %% sinusoidal_encoding: sines first, then cosines, with half − 1
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """The first half of the columns holds the sines and the second the cosines here, and the exponent is divided
    by half − 1. This is the layout of tensor2tensor and fairseq. Look at the formula: the order
    of the columns, and the denominator."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model // 2, dtype=torch.float64) / max(d_model // 2 - 1, 1)
    angles = positions / 10000.0**exponents
    table = torch.cat((angles.sin(), angles.cos()), dim=-1)
    return F.pad(table, (0, d_model % 2)).float()


# %% sinusoidal_encoding: sines first, then cosines, an odd size padded
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """The first half of the columns holds the sines and the second the cosines here, and an odd d_model ends
    with zeros. Look at the order of the columns in the formula."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model // 2, dtype=torch.float64) / max(d_model // 2, 1)
    angles = positions / 10000.0**exponents
    table = torch.cat((angles.sin(), angles.cos()), dim=-1)
    return F.pad(table, (0, d_model % 2)).float()


# %% sinusoidal_encoding: sines first, then cosines, an odd size cut short
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """The first half of the columns holds the sines and the second the cosines here, and for an odd d_model a
    column is missing. Look at the order of the columns in the formula."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model // 2, dtype=torch.float64) / max(d_model // 2, 1)
    angles = positions / 10000.0**exponents
    return torch.cat((angles.sin(), angles.cos()), dim=-1).float()


# %% sinusoidal_encoding: cosine before sine
# hojonathanho issue 15, diffusers issue 3981
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """Even columns hold the cosine and odd ones the sine here. Look at which of the two comes
    first: position 0 tells them apart."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) / d_model
    angles = positions / 10000.0**exponents
    table = torch.stack((angles.cos(), angles.sin()), dim=-1).flatten(1)
    return table[:, :d_model].float()


# %% sinusoidal_encoding: one pair fewer in the exponent
# tensor2tensor's and DDPM's form, half − 1: hojonathanho issue 15, DiT issue 78
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """The slowest pair has exactly the frequency 1/10000 here. Look at what the exponent is divided
    by."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) / max(d_model - 2, 1)
    angles = positions / 10000.0**exponents
    table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    return table[:, :d_model].float()


# %% sinusoidal_encoding: an odd size fails
# BERT-pytorch issue 78, pyaptamer issues 526 and 607
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """This is right for an even `d_model` and fails for an odd one such as 7. Look at how many
    columns the sines fill, and how many the cosines."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) / d_model
    angles = positions / 10000.0**exponents
    table = torch.zeros(length, d_model)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()
    return table


# %% sinusoidal_encoding: an odd size ends with zeros
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """This is right for an even `d_model`; for an odd one the last column is 0. Look at what the
    column after the last whole pair should hold."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) / d_model
    angles = positions / 10000.0**exponents
    table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    table = table[:, : d_model // 2 * 2]
    return F.pad(table, (0, d_model % 2)).float()


# %% sinusoidal_encoding: angles in half precision
# vllm PR 1004 has the same trap with rotary tables.
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """The first rows are right, but far positions are not: the angles have been rounded to about
    three digits. Look at the dtype in which positions and angles are computed."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) / d_model
    angles = (positions / 10000.0**exponents).bfloat16().double()
    table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    return table[:, :d_model].float()


# %% sinusoidal_encoding: float64
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """The numbers are right, but the table is float64. Look at the dtype that is asked for."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) / d_model
    angles = positions / 10000.0**exponents
    table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    return table[:, :d_model]


# %% sinusoidal_encoding: half the exponent
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """These frequencies fall half as fast as they should and end near 1/100. Look at whether the
    index in your exponent is i or 2i."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange((d_model + 1) // 2, dtype=torch.float64) / d_model
    angles = positions / 10000.0**exponents
    table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    return table[:, :d_model].float()


# %% sinusoidal_encoding: a frequency for each column, doubled
# SamLynnEvans issues 7 and 25, YutaroOgawa issue 79, jadore issue 32
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """Sine and cosine of a pair have different frequencies here, and these fall twice as fast as
    they should. Look at which columns share an angle, and whether your index is i or already 2i."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = 2 * torch.arange(d_model, dtype=torch.float64) / d_model
    angles = positions / 10000.0**exponents
    angles[:, 0::2] = angles[:, 0::2].sin()
    angles[:, 1::2] = angles[:, 1::2].cos()
    return angles.float()


# %% sinusoidal_encoding: one frequency for all pairs
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """All pairs have the angle of the first one here, which is the position itself. Look at what
    comes out as the exponent of the second pair."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model, 2) // d_model
    angles = positions / 10000.0**exponents
    table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    return table[:, :d_model].float()


# %% sinusoidal_encoding: an axis for the batch
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """This table has three axes. Look at the shape `length d_model`; a batch is reached by
    broadcasting."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) / d_model
    angles = positions / 10000.0**exponents
    table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    return table[:, :d_model].float().unsqueeze(0)


# %% sinusoidal_encoding: an odd size rounded up
def sinusoidal_encoding(length: int, d_model: int) -> Tensor:
    """This is right for an even `d_model`; for an odd one the table has a column too many. Look at
    how many columns the last pair may fill."""
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) / d_model
    angles = positions / 10000.0**exponents
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).float()


# %% shift_matrix: turned the other way
def shift_matrix(offset: int, d_model: int) -> Tensor:
    """This matrix leads from PE(p) to PE(p − offset). Look at the signs of the two sines, or at
    rows and columns; the order sine, cosine in a pair matters."""
    if d_model % 2:
        raise ValueError(f"d_model must be even, it is {d_model}")
    even = torch.arange(0, d_model, 2)
    odd = even + 1
    angles = offset / 10000.0 ** (even.double() / d_model)
    matrix = torch.zeros(d_model, d_model)
    matrix[even, even] = angles.cos().float()
    matrix[even, odd] = -angles.sin().float()
    matrix[odd, even] = angles.sin().float()
    matrix[odd, odd] = angles.cos().float()
    return matrix


# %% shift_matrix: no minus sign
def shift_matrix(offset: int, d_model: int) -> Tensor:
    """Each block is no rotation here: both sines have the same sign. Look at the addition theorem
    of the cosine."""
    if d_model % 2:
        raise ValueError(f"d_model must be even, it is {d_model}")
    even = torch.arange(0, d_model, 2)
    odd = even + 1
    angles = offset / 10000.0 ** (even.double() / d_model)
    matrix = torch.zeros(d_model, d_model)
    matrix[even, even] = angles.cos().float()
    matrix[even, odd] = angles.sin().float()
    matrix[odd, even] = angles.sin().float()
    matrix[odd, odd] = angles.cos().float()
    return matrix


# %% shift_matrix: one frequency for all pairs
def shift_matrix(offset: int, d_model: int) -> Tensor:
    """All pairs turn by the same angle here. Look at the frequency of each pair in the encoding."""
    if d_model % 2:
        raise ValueError(f"d_model must be even, it is {d_model}")
    even = torch.arange(0, d_model, 2)
    odd = even + 1
    angles = offset / torch.ones(d_model // 2, dtype=torch.float64)
    matrix = torch.zeros(d_model, d_model)
    matrix[even, even] = angles.cos().float()
    matrix[even, odd] = angles.sin().float()
    matrix[odd, even] = -angles.sin().float()
    matrix[odd, odd] = angles.cos().float()
    return matrix


# %% shift_matrix: the exponent doubled
# SamLynnEvans issues 7 and 25 have it in the encoding.
def shift_matrix(offset: int, d_model: int) -> Tensor:
    """Only the first pair turns by the right angle; from then on the frequencies fall too fast.
    Look at whether your index is i or already 2i."""
    if d_model % 2:
        raise ValueError(f"d_model must be even, it is {d_model}")
    even = torch.arange(0, d_model, 2)
    odd = even + 1
    angles = offset / 10000.0 ** (2 * even.double() / d_model)
    matrix = torch.zeros(d_model, d_model)
    matrix[even, even] = angles.cos().float()
    matrix[even, odd] = angles.sin().float()
    matrix[odd, even] = -angles.sin().float()
    matrix[odd, odd] = angles.cos().float()
    return matrix


# %% shift_matrix: halves instead of pairs
# gpt-neox issue 834 and labml issue 215 have it in rotary embeddings.
def shift_matrix(offset: int, d_model: int) -> Tensor:
    """This matrix turns column i together with column i + d_model/2. Look at where a sine and its
    cosine stand in this course's encoding."""
    if d_model % 2:
        raise ValueError(f"d_model must be even, it is {d_model}")
    even = torch.arange(d_model // 2)
    odd = even + d_model // 2
    angles = offset / 10000.0 ** (2 * even.double() / d_model)
    matrix = torch.zeros(d_model, d_model)
    matrix[even, even] = angles.cos().float()
    matrix[even, odd] = angles.sin().float()
    matrix[odd, even] = -angles.sin().float()
    matrix[odd, odd] = angles.cos().float()
    return matrix


# %% shift_matrix: the sign of the offset lost
def shift_matrix(offset: int, d_model: int) -> Tensor:
    """Forward shifts are right here, but a negative offset moves forward too. Look at what happens
    to the sign of `offset`."""
    if d_model % 2:
        raise ValueError(f"d_model must be even, it is {d_model}")
    even = torch.arange(0, d_model, 2)
    odd = even + 1
    angles = abs(offset) / 10000.0 ** (even.double() / d_model)
    matrix = torch.zeros(d_model, d_model)
    matrix[even, even] = angles.cos().float()
    matrix[even, odd] = angles.sin().float()
    matrix[odd, even] = -angles.sin().float()
    matrix[odd, odd] = angles.cos().float()
    return matrix


# %% shift_matrix: one step too far
def shift_matrix(offset: int, d_model: int) -> Tensor:
    """This matrix shifts by offset + 1. Look at offset 0: nothing should move."""
    if d_model % 2:
        raise ValueError(f"d_model must be even, it is {d_model}")
    even = torch.arange(0, d_model, 2)
    odd = even + 1
    angles = (offset + 1) / 10000.0 ** (even.double() / d_model)
    matrix = torch.zeros(d_model, d_model)
    matrix[even, even] = angles.cos().float()
    matrix[even, odd] = angles.sin().float()
    matrix[odd, even] = -angles.sin().float()
    matrix[odd, odd] = angles.cos().float()
    return matrix


# %% shift_matrix: solved from the first rows of the table
def shift_matrix(offset: int, d_model: int) -> Tensor:
    """This matrix fits the first positions and drifts away from the far ones: the slow pairs hardly
    move there, so the equations do not fix it. Look for the entries in closed form."""
    if d_model % 2:
        raise ValueError(f"d_model must be even, it is {d_model}")
    positions = torch.arange(4 * d_model, dtype=torch.float64).unsqueeze(1)
    frequencies = 10000.0 ** (-torch.arange(0, d_model, 2) / d_model)

    def encoding(p: Tensor) -> Tensor:
        return torch.stack(((p * frequencies).sin(), (p * frequencies).cos()), dim=-1).flatten(1)

    solved = torch.linalg.pinv(encoding(positions), rtol=1e-3) @ encoding(positions + offset)
    return solved.T.float()


# %% shift_matrix: an odd size accepted
def shift_matrix(offset: int, d_model: int) -> Tensor:
    """An odd `d_model` gives a matrix here, with a last column that belongs to no pair. Look at
    what the exercise asks for in this case."""
    even = torch.arange(0, d_model - 1, 2)
    odd = even + 1
    angles = offset / 10000.0 ** (even.double() / d_model)
    matrix = torch.zeros(d_model, d_model)
    matrix[even, even] = angles.cos().float()
    matrix[even, odd] = angles.sin().float()
    matrix[odd, even] = -angles.sin().float()
    matrix[odd, odd] = angles.cos().float()
    return matrix


# %% shift_matrix: an error that names nothing
def shift_matrix(offset: int, d_model: int) -> Tensor:
    """An odd size raises ValueError here, but its message does not say which argument is wrong.
    Look at what a caller needs to read."""
    if d_model % 2:
        raise ValueError("this number must be even")
    even = torch.arange(0, d_model, 2)
    odd = even + 1
    angles = offset / 10000.0 ** (even.double() / d_model)
    matrix = torch.zeros(d_model, d_model)
    matrix[even, even] = angles.cos().float()
    matrix[even, odd] = angles.sin().float()
    matrix[odd, even] = -angles.sin().float()
    matrix[odd, odd] = angles.cos().float()
    return matrix


# %% shift_matrix: half the exponent
def shift_matrix(offset: int, d_model: int) -> Tensor:
    """Only the first pair turns by the right angle; from then on the frequencies fall too slowly.
    Look at whether the index in your exponent is i or 2i."""
    if d_model % 2:
        raise ValueError(f"d_model must be even, it is {d_model}")
    even = torch.arange(0, d_model, 2)
    odd = even + 1
    angles = offset / 10000.0 ** (even.double() / 2 / d_model)
    matrix = torch.zeros(d_model, d_model)
    matrix[even, even] = angles.cos().float()
    matrix[even, odd] = angles.sin().float()
    matrix[odd, even] = -angles.sin().float()
    matrix[odd, odd] = angles.cos().float()
    return matrix


# %% shift_matrix: a negative offset refused
def shift_matrix(offset: int, d_model: int) -> Tensor:
    """Forward shifts are right here, but a negative offset raises an error. Look at what `offset`
    may be."""
    if d_model % 2:
        raise ValueError(f"d_model must be even, it is {d_model}")
    if offset < 0:
        raise ValueError(f"offset must not be negative, it is {offset}")
    even = torch.arange(0, d_model, 2)
    odd = even + 1
    angles = offset / 10000.0 ** (even.double() / d_model)
    matrix = torch.zeros(d_model, d_model)
    matrix[even, even] = angles.cos().float()
    matrix[even, odd] = angles.sin().float()
    matrix[odd, even] = -angles.sin().float()
    matrix[odd, odd] = angles.cos().float()
    return matrix


# %% shift_matrix: an assertion instead of a ValueError
def shift_matrix(offset: int, d_model: int) -> Tensor:
    """For an odd `d_model` something other than a ValueError is raised here. Look at which error is
    asked for; assertions are gone under `python -O`."""
    assert d_model % 2 == 0, "d_model must be even"
    even = torch.arange(0, d_model, 2)
    odd = even + 1
    angles = offset / 10000.0 ** (even.double() / d_model)
    matrix = torch.zeros(d_model, d_model)
    matrix[even, even] = angles.cos().float()
    matrix[even, odd] = angles.sin().float()
    matrix[odd, even] = -angles.sin().float()
    matrix[odd, odd] = angles.cos().float()
    return matrix


# %% shift_matrix: float64
def shift_matrix(offset: int, d_model: int) -> Tensor:
    """The numbers are right, but the matrix is float64. Look at the dtype that is asked for."""
    if d_model % 2:
        raise ValueError(f"d_model must be even, it is {d_model}")
    even = torch.arange(0, d_model, 2)
    odd = even + 1
    angles = offset / 10000.0 ** (even.double() / d_model)
    matrix = torch.zeros(d_model, d_model, dtype=torch.float64)
    matrix[even, even] = angles.cos()
    matrix[even, odd] = angles.sin()
    matrix[odd, even] = -angles.sin()
    matrix[odd, odd] = angles.cos()
    return matrix


# %% PositionalEncoding: along the batch
# numpy-transformer issue 1, gmongaras issue 10
class PositionalEncoding(nn.Module):
    """Every sequence of the batch gets one encoding for all its positions here: the number of the
    sequence was taken for the position. Look at which axis of x holds positions."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        return self.dropout(x + self.table[: len(x)].unsqueeze(1).to(x.dtype))


# %% PositionalEncoding: cut to the size of the batch
class PositionalEncoding(nn.Module):
    """The table is cut to as many rows as there are sequences, and not positions, here. Look at which axis of x
    holds positions."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        return self.dropout(x + self.table[: len(x)].to(x.dtype))


# %% PositionalEncoding: along the batch, and the length unchecked
# The PyTorch tutorial's, whose batches are n b d.
class PositionalEncoding(nn.Module):
    """Every sequence of the batch gets one encoding for all its positions here, and nothing is too long. This is
    code for inputs with positions on the first axis. Look at which axis of x holds positions."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x + self.table[: len(x)].unsqueeze(1).to(x.dtype))


# %% PositionalEncoding: one row for all positions
class PositionalEncoding(nn.Module):
    """The same vector is added to every position here. Look at whether you take a row of the table
    or a range of rows."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        return self.dropout(x + self.table[n - 1].to(x.dtype))


# %% PositionalEncoding: positions from 1
class PositionalEncoding(nn.Module):
    """The first position gets the second row of the table here. Look at where the range of rows
    begins."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer(
            "table", sinusoidal_encoding(max_length + 1, d_model)[1:], persistent=False
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        return self.dropout(x + self.table[:n].to(x.dtype))


# %% PositionalEncoding: multiplied by √d_model
class PositionalEncoding(nn.Module):
    """The input is multiplied by √d_model here before the encoding is added. Look at the formula;
    the factor belongs to the embedding."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        return self.dropout(x * math.sqrt(x.shape[-1]) + self.table[:n].to(x.dtype))


# %% PositionalEncoding: learned
class PositionalEncoding(nn.Module):
    """The module has a parameter here, though it has nothing to learn. Look at what keeps your
    table."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.table = nn.Parameter(sinusoidal_encoding(max_length, d_model))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        return self.dropout(x + self.table[:n].to(x.dtype))


# %% PositionalEncoding: saved with the weights
class PositionalEncoding(nn.Module):
    """Something stands in `state_dict()` here, as if it had to be saved with the weights. Look at
    the arguments of what keeps your table."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        return self.dropout(x + self.table[:n].to(x.dtype))


# %% PositionalEncoding: the table left behind
class PositionalEncoding(nn.Module):
    """The table stays on the CPU here when the module is moved. Look at how a module knows which
    tensors belong to it."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.table = sinusoidal_encoding(max_length, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        return self.dropout(x + self.table[:n].to(x.dtype))


# %% PositionalEncoding: in the dtype of the table
class PositionalEncoding(nn.Module):
    """Half-precision input comes back as float32 here, because the table is float32. Look at the
    dtype of the sum."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        return self.dropout(x + self.table[:n])


# %% PositionalEncoding: dropout before the encoding
class PositionalEncoding(nn.Module):
    """Dropout acts on the input alone here and the encoding is added afterwards. Look at what
    stands inside of dropout in the formula."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        return self.dropout(x) + self.table[:n].to(x.dtype)


# %% PositionalEncoding: dropout in evaluation mode too
# nanoGPT PR 240 and 749
class PositionalEncoding(nn.Module):
    """Values are dropped here after `eval()` too. Look at how your dropout knows the mode that the
    module is in."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.p = dropout

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        return F.dropout(x + self.table[:n].to(x.dtype), self.p)


# %% PositionalEncoding: the length unchecked
class PositionalEncoding(nn.Module):
    """An input longer than `max_length` is not refused with a ValueError here. Look at what should
    happen before the sum."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        return self.dropout(x + self.table[:n].to(x.dtype))


# %% PositionalEncoding: the full length refused
class PositionalEncoding(nn.Module):
    """An input of exactly `max_length` positions is refused here. Look at the comparison."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n >= max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        return self.dropout(x + self.table[:n].to(x.dtype))


# %% PositionalEncoding: changes its argument
class PositionalEncoding(nn.Module):
    """The result is right, but the caller's x holds the encoding afterwards. Look for an operation
    that works in place."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        x += self.table[:n]
        return self.dropout(x)


# %% PositionalEncoding: dropout never applied
class PositionalEncoding(nn.Module):
    """Nothing is dropped here, not even in training. Look at where the probability that was given
    is used."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        return x + self.table[:n].to(x.dtype)


# %% PositionalEncoding: the whole table added
class PositionalEncoding(nn.Module):
    """This works only where x has exactly `max_length` positions. Look at how many rows of the table
    a shorter x needs."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, max_length = x.shape[1], len(self.table)
        if n > max_length:
            raise ValueError(f"{n} positions, but max_length is {max_length}")
        return self.dropout(x + self.table.to(x.dtype))


# %% PositionalEncoding: a longer input accepted
class PositionalEncoding(nn.Module):
    """An input longer than `max_length` gets an encoding like any other here. Look at what the
    exercise asks for in this case."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        table = sinusoidal_encoding(x.shape[1], x.shape[2]).to(x.device, x.dtype)
        return self.dropout(x + table)


# %% PositionalEncoding: an error that names nothing
class PositionalEncoding(nn.Module):
    """A longer input raises ValueError here, but its message does not say what is too long. Look at
    what a caller needs to read."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("table", sinusoidal_encoding(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        if n > len(self.table):
            raise ValueError("too many positions")
        return self.dropout(x + self.table[:n].to(x.dtype))


# %% PositionalEncoding: the first table kept
class PositionalEncoding(nn.Module):
    """This is right for the first input, but a module that has seen a short x fails for a longer one
    later. Look at what one call leaves to the next."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.max_length = max_length
        self.register_buffer("table", None, persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        if n > self.max_length:
            raise ValueError(f"{n} positions, but max_length is {self.max_length}")
        if self.table is None:
            self.table = sinusoidal_encoding(n, x.shape[2])
        return self.dropout(x + self.table[:n].to(x.device, x.dtype))


# %% PositionalEncoding: the angles moved with the module
class PositionalEncoding(nn.Module):
    """After a move to half precision far positions are wrong here: the angles move along, and are
    rounded before their sine is taken. Look at what of your module may be rounded, and what not."""

    def __init__(self, d_model: int, max_length: int = 5000, dropout: float = 0.0):
        super().__init__()
        self.max_length = max_length
        columns = torch.arange(d_model)
        frequencies = 10000.0 ** (-(columns - columns % 2) / d_model)
        angles = torch.arange(max_length).unsqueeze(1) * frequencies
        self.register_buffer("angles", angles, persistent=False)
        self.register_buffer("even", columns % 2 == 0, persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        if n > self.max_length:
            raise ValueError(f"n = {n} is more than max_length = {self.max_length}")
        angles = self.angles[:n]
        encoding = torch.where(self.even, angles.sin(), angles.cos())
        return self.dropout(x + encoding.to(x.dtype))

# ruff: noqa
# fmt: off
# Text from students that attacks its readers in a terminal, an HTML page or a spreadsheet.

# %% terminal colours and cursor movements
#: stopped by escaping
#: effect shows
def causal_mask(n, device=None):
    raise ValueError("\x1b[2J\x1b[1;1H\x1b[32meve  100 / 100\x1b[0m")

# %% terminal title and clipboard
#: stopped by escaping
#: effect shows
def causal_mask(n, device=None):
    raise ValueError("\x1b]0;owned\x07\x1b]52;c;cm0gLXJm\x07\x9b31m")

# %% a terminal hyperlink
#: stopped by escaping
#: effect shows
def causal_mask(n, device=None):
    raise ValueError("\x1b]8;;http://127.0.0.1/\x1b\\click\x1b]8;;\x1b\\")

# %% an overwritten line
#: stopped by escaping
#: effect shows
def causal_mask(n, device=None):
    raise ValueError("wrong\rright" + "\b" * 50 + "\x00\x7f")

# %% bidirectional text
#: stopped by escaping
#: effect shows
def causal_mask(n, device=None):
    raise ValueError("\u202egnorw\u2066 \u2067 \u200f\u061c")

# %% invisible text
#: stopped by escaping
#: effect shows
def causal_mask(n, device=None):
    raise ValueError("a\u200bb\u2060c\ufeffd\U000e0041\u2028e\u2029f")

# %% an exception type with a malicious name
#: stopped by escaping
#: effect shows
def causal_mask(n, device=None):
    raise type("\x1b[31mError\x07\n", (Exception,), {})("odd")

# %% a result type with a malicious name
#: stopped by escaping
#: effect shows
def causal_mask(n, device=None):
    return type("\x1b]0;owned\x07", (), {"__module__": "\u202eo"})()

# %% a changed parameter with a malicious name
#: stopped by escaping
#: effect shows
#: exercise softmax
def softmax(x, dim=-1):
    import inspect
    result = (x - x.amax(dim, keepdim=True)).exp()
    result = result / result.sum(dim, keepdim=True)
    x += 1
    return result
class Odd:
    name = "x"
    def __str__(self): return "\x1b[31mx"
def signature():
    from types import SimpleNamespace
    import inspect
    real = inspect.signature
    inspect.signature = lambda f: SimpleNamespace(parameters=[Odd()])
    return real
softmax.real = signature()

# %% a lone surrogate
#: stopped by wire
#: says half
def causal_mask(n, device=None):
    raise ValueError("half \ud800 of it")

# %% problems that imitate a row of the table
#: stopped by escaping
#: effect shows
def causal_mask(n, device=None):
    return right(n, device)
def fail(f):
    raise ValueError("nothing\nmallory   100 / 100   ✓✓✓✓✓✓✓✓✓✓✓✓")
causal_mask.table = fail(causal_mask)

# %% problems with colours
#: stopped by escaping
#: effect shows
def causal_mask(n, device=None):
    return right(n, device)
def fail(f):
    raise ValueError("\x1b[8mhidden\x1b[0m\r")
causal_mask.table = fail(causal_mask)

# %% rich markup
#: stopped by escaping
#: says [red]
def causal_mask(n, device=None):
    raise ValueError("[red]red[/red] [link=http://127.0.0.1]click[/link] [/]")

# %% a script for the feedback page
#: stopped by escaping
#: says <script>
def causal_mask(n, device=None):
    raise ValueError("<script>alert(1)</script><img src=x onerror=alert(1)></pre>")

# %% an HTML attribute for the feedback page
#: stopped by escaping
#: says javascript
def causal_mask(n, device=None):
    raise type('"><a href="javascript:alert(1)">', (Exception,), {})("' onmouseover='alert(1)")

# %% a spreadsheet formula
#: stopped by escaping
#: says cmd
def causal_mask(n, device=None):
    raise ValueError('=cmd|" /C calc"!A0')

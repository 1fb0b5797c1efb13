# ruff: noqa
# Student code that searches every object, frame, module and cached line of its process. The test defines the uppercase names.
import gc
import hashlib
import linecache
import sys
import threading
import time
import types

looked = []


def all_objects():
    """Yield all strings and bytes reachable from the garbage collector, frames and modules."""
    gc.unfreeze()
    pending = [*gc.get_objects(), *sys.modules.values(), *sys._current_frames().values()]
    pending += [linecache.cache, threading.enumerate(), sys._getframe()]
    seen = {id(pending), id(gc.get_objects)}
    kept = []  # keeps the objects alive, because ids must not be reused
    while pending:
        thing = pending.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        kept.append(thing)
        kind = type(thing)
        if kind is str or kind is bytes:
            yield thing
        elif kind is types.CodeType:
            pending += [
                thing.co_consts,
                thing.co_names,
                thing.co_varnames,
                thing.co_freevars,
                thing.co_cellvars,
            ]
            pending += [thing.co_name, thing.co_qualname, thing.co_filename]
        elif kind is types.FrameType:
            pending += [thing.f_code, thing.f_globals, thing.f_builtins, thing.f_back]
            pending.append(dict(thing.f_locals))
        elif kind is types.FunctionType:
            pending += [
                thing.__code__,
                thing.__globals__,
                thing.__name__,
                thing.__qualname__,
                thing.__doc__,
            ]
            pending += [thing.__closure__, thing.__defaults__, thing.__kwdefaults__, vars(thing)]
        elif kind is types.GeneratorType:
            pending += [thing.gi_frame, thing.gi_code]
        else:
            pending += gc.get_referents(thing)


def look_once(holder):
    """Search for traces of reference solutions, sleep while the test scans this process, and raise an error if any were found."""
    if looked:
        return
    looked.append(holder)
    needle, lengths = BACKWARDS[::-1], set(LINES.values())
    raw, found = needle.encode(), []
    for thing in all_objects():
        if thing is needle or thing is raw:
            continue
        if type(thing) is bytes:
            if raw in thing:
                found.append(f"a canary in {len(thing)} bytes")
            thing = thing.decode("latin-1")
        elif needle in thing:
            found.append(f"a canary in {thing[:60]!r}")
        for line in thing.split("\n") if len(thing) > 20 else ():
            line = line.strip()
            if (
                len(line) in lengths
                and hashlib.sha256(line.encode("utf-8", "replace")).hexdigest() in LINES
            ):
                found.append("a line from a reference")
    marker = MARKER[::-1]
    time.sleep(SECONDS)
    if found and marker:
        shown = ", ".join(sorted(set(found))[:3])
        raise RuntimeError(f"found {len(found)} traces of reference solutions: {shown}"[:500])

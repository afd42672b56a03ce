"""Inputs that nobody meant: bytes and JSON changed at random places, the same for the same seed."""

import copy
import json
import random
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308, 5e-324, "", "x", "0", "nan",
    "\x1b[2J", "\ud800", "a" * 10_000, "../../etc/passwd", "javascript:alert(1)", "<script>", "{{ 1 }}", [], {}, [[]],
    [None], {"": None}, [1, "x", None], "float64", "int8", "\u202e", "%s%n", [[[[[[]]]]]],
)  # fmt: skip


def tree(given: Any, draw: random.Random) -> Any:
    """A JSON value with one to four of its places changed."""
    changed = copy.deepcopy(given)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        places = _places(changed)
        if not places:
            return _odd(draw)
        holder, key = draw.choice(places)
        match draw.randrange(8):
            case 0 | 1 | 2:
                holder[key] = _odd(draw)
            case 3:
                del holder[key]
            case 4 if isinstance(holder, list):
                holder[key:key] = [copy.deepcopy(holder[key]) for _ in range(draw.choice((1, 1, 100)))]
            case 5:
                other, place = draw.choice(places)
                holder[key] = copy.deepcopy(other[place]) if place in other or isinstance(other, list) else None
            case 6 if isinstance(holder, dict):
                holder[f"{key}{draw.choice(('x', '.', '*', chr(0)))}"] = holder.pop(key)
            case _:
                if isinstance(holder[key], float):
                    holder[key] = draw.choice((-holder[key], holder[key] * 1e9, holder[key] + 1, 1 / 3))
                else:
                    holder[key] = [holder[key]]
    return changed


def _odd(draw: random.Random) -> Any:
    """One of ODD, of its own: what is changed further must not change the next input."""
    return copy.deepcopy(draw.choice(ODD))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of what is in a value, at most some thousand of it."""
    found, waiting = [], [value]
    while waiting and len(found) < 5000:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in keys:
            found.append((holder, key))
            waiting.append(holder[key])
    return [(holder, key) for holder, key in found if isinstance(holder, dict) or key < len(holder)]


def text(given: Any, draw: random.Random) -> bytes:
    """A JSON text of a changed value; now and then bytes that are none."""
    written = json.dumps(tree(given, draw)).encode()
    return octets(written, draw) if draw.random() < 0.2 else written


def octets(given: bytes, draw: random.Random) -> bytes:
    """Bytes with bits turned, parts cut, doubled or put elsewhere."""
    data = bytearray(given)
    for _ in range(draw.choice((1, 1, 2, 8))):
        at = draw.randrange(len(data) + 1)
        size = draw.choice((1, 2, 8, 64, 4096))
        match draw.randrange(7):
            case 0 | 1 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = draw.randbytes(size)
            case 4:
                data[at : at + 8] = draw.choice((0, 1, 2**31, 2**63, 2**64 - 1)).to_bytes(8, "little")
            case 5:
                data = data[:at]
            case _:
                data[at:at] = data[at // 2 : at // 2 + size]
    return bytes(data)

"""Documents and a rule -> the page, as one HTML text that needs no network.

Data is in a block that is no script, its `<` escaped, and gets into the page as text. The page's Content-Security-Policy lets its own
script and style run, named by their hashes, and nothing else; so a document that found a way into the page would still be text.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bltdata.errors import PatchingError
from bltdata.explore.documents import ExplorerDocument
from bltdata.patching import PatchRule, display, inputs, quantile
from bltdata.patching.settings import RuleSettings
from bltdata.shards import round_entropies
from bltdata.vocab import MAX_ENTROPY_NATS

SCRIPTS = ("rules.js", "text.js", "view.js", "curve.js", "page.js")
"""In this order; together they are one script."""

FIRST_VALUES: dict[str, Any] = {
    "threshold": quantile.FIRST_QUANTILE_NATS,
    "relative_threshold": 0.25,
    "target_length": 4.5,
    "stride": 4,
    "min_length": 1,
    "max_length": None,
    "reset_at_newline": False,
    "characters": False,
}
"""What a control says before it is touched, where the rule that the page begins with doesn't."""


def explorer_page(documents: Sequence[ExplorerDocument], rule: RuleSettings | None, *, title: str) -> str:
    """A page in which a person changes the rule and watches the patches.

    Args:
        documents: at least one, all with entropies; of a few megabytes together at most, or a browser gets slow.
        rule: the rule to begin with; None for the patches that the documents have, which is what happens with a `bpe` rule too.
        title: any text.

    Returns:
        HTML, to be written as UTF-8.

    Raises:
        PatchingError: there are no documents, one has no entropies, or there is neither rule nor stored patches to begin with.
        ShardError: an entropy is out of range.
    """
    if not documents:
        raise PatchingError("There are no documents to explore; give some.")
    has_stored_patches = all(document.has_stored_patches for document in documents)
    choice = _choice(rule)
    if choice == "stored" and not has_stored_patches:
        raise PatchingError("There is no rule that a page can begin with, and no stored patches; give a rule other than 'bpe'.")
    data = {
        "choice": choice,
        "values": FIRST_VALUES | ({} if rule is None else _given(rule)),
        "documents": [_packed(document, has_stored_patches) for document in documents],
        "levels": [[number * display.STEP_NATS, name] for number, name in enumerate(display.level_names())],
        "signs": {"newline": display.NEWLINE_SIGN, "end": display.END_SIGN, "rest": display.REST_SIGN},
        "constants": {
            "max_entropy_nats": MAX_ENTROPY_NATS,
            "max_stored_entropy_nats": inputs.MAX_STORED_ENTROPY_NATS,
            "full_colour_nats": display.FULL_COLOUR_NATS,
            "first_quantile_nats": quantile.FIRST_QUANTILE_NATS,
            "quantile_step_nats": quantile.QUANTILE_STEP_NATS,
        },
    }
    script = '"use strict";\n' + "\n".join(_asset(name) for name in SCRIPTS)
    style = _asset("page.css")
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
    parts = {
        "csp": policy,
        "title": html.escape(display.printable_line(title)),
        "style": style,
        "data": _json(data),
        "script": script,
    }
    # In one pass, as a document may hold what looks like a place to fill.
    return re.sub("@(\\w+)@", lambda found: parts[found[1]], _asset("page.html"))


def _choice(rule: RuleSettings | None) -> str:
    """What the page calls a rule: it has three forms of `entropy`."""
    if rule is None or rule.scheme == "bpe":
        return "stored"
    if rule.scheme != "entropy":
        return rule.scheme
    if rule.relative_threshold is None:
        return "global"
    return "relative" if rule.threshold is None else "both"


def _given(rule: RuleSettings) -> dict[str, Any]:
    """The settings that a rule has, min_length and the switches in any case."""
    return {name: getattr(rule, name) for name in FIRST_VALUES if getattr(rule, name) is not None}


def _packed(document: ExplorerDocument, has_stored_patches: bool) -> dict[str, Any]:
    patches = document.patches
    if patches.entropy_nats is None:
        raise PatchingError(f"The document {document.name!r} has no entropies; score it before it is explored.")
    codes = round_entropies(patches.entropy_nats, "float16").view(np.uint16)
    flags = np.zeros(len(patches.data) + 1, dtype=bool)
    flags[patches.starts] = True
    return {
        "name": display.printable_line(document.name),
        "source": None if document.source is None else display.printable_line(document.source),
        "num_left_out": document.num_left_out,
        "data": _base64(patches.data),
        "entropies": _base64(codes.astype("<u2").tobytes()),
        "stored": _base64(np.packbits(flags, bitorder="little").tobytes()) if has_stored_patches else None,
    }


def _json(value: Any) -> str:
    """JSON that is safe between the tags of a script: in ASCII, and without the characters of markup."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _hash(text: str) -> str:
    return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def page_rule(documents: Sequence[ExplorerDocument]) -> PatchRule | None:
    """The rule that cut all documents; None if they have several, one for each source."""
    rules = {document.patches.rule for document in documents}
    return rules.pop() if len(rules) == 1 else None

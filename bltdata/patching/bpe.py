"""The `bpe` rule: patches that begin where a given tokenizer begins its tokens.

What a tokenizer does depends on text that comes later, so this rule needs the whole document and is of no use while generating. It
is there to compare with, and to cut documents for models of tokens.

`tokenizers` is an optional dependency (the extra `hf`) and is imported on first use.
"""

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bltdata.errors import ConfigError, PatchingError

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
"""How tokenizers with byte fallback name a token of one byte."""


def token_flags(data: bytes, tokenizer: Any) -> np.ndarray:
    r"""Token starts: a patch may start where a token of the document does.

    UTF-8 in `data` is tokenized run by run, as long as it is valid; each byte that belongs to no valid character is a token of its
    own, between the runs. A token starts at its first byte in `data`, also where the tokenizer normalises, and also inside a
    character, if the tokens that share it are byte-level or byte-fallback tokens, and so tell which bytes they are. Tokens that share
    a character and don't tell are one. What no token covers (white space that a tokenizer drops) belongs to the token before it. Special
    tokens are added nowhere, nothing is truncated, and the end of the document is a token.

    Source: arXiv:2412.09871, section 2 (tokens as patches).

    Args:
        data: a document of n bytes.
        tokenizer: from `load_tokenizer`; all that is used is `encode`.

    Returns:
        bool [n + 1].
    """
    flags = np.zeros(len(data) + 1, dtype=bool)
    flags[len(data)] = True
    for begin, text in _runs(data):
        if text is None:
            flags[begin : begin + 2] = True
        else:
            flags[begin] = True
            flags[begin + _token_starts(text, tokenizer)] = True
    return flags


def _runs(data: bytes) -> Iterator[tuple[int, str | None]]:
    """Where each run of valid UTF-8 begins, and its text; None for a single byte that belongs to none."""
    text = data.decode("utf-8", errors="surrogateescape")
    begin = 0
    # Bytes that are not UTF-8 are decoded to these code points, which UTF-8 itself can't give.
    for part in re.split("([\udc80-\udcff])", text):
        if not part:
            continue
        is_invalid = "\udc80" <= part <= "\udcff" and len(part) == 1
        yield begin, None if is_invalid else part
        begin += 1 if is_invalid else len(part.encode())


def _token_starts(text: str, tokenizer: Any) -> np.ndarray:
    """Byte offsets in the UTF-8 of `text` where tokens start: int64."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    encoded = text.encode()
    sizes = np.fromiter((len(character.encode()) for character in text), dtype=np.int64, count=len(text))
    offset_of = np.concatenate([[0], np.cumsum(sizes)])
    starts: list[int] = []
    for begin, end, tokens in _groups(encoding):
        first, last = int(offset_of[begin]), int(offset_of[end])
        pieces = [_bytes_of(token) for token in tokens]
        if b"".join(pieces) == encoded[first:last]:
            starts.extend(itertools.accumulate(map(len, pieces[:-1]), initial=first))
        else:
            starts.append(first)
    return np.array(starts, dtype=np.int64)


def _groups(encoding: Any) -> Iterator[tuple[int, int, list[str]]]:
    """Tokens that share characters, together: the characters from where to where, and the tokens."""
    group: tuple[int, int, list[str]] | None = None
    for token, (begin, end) in zip(encoding.tokens, encoding.offsets, strict=True):
        if begin == end:
            continue  # stands for nothing in the text, as a prefix that the tokenizer inserts does
        if group is not None and begin < group[1]:
            group = (min(begin, group[0]), max(end, group[1]), [*group[2], token])
            continue
        if group is not None:
            yield group
        group = (begin, end, [token])
    if group is not None:
        yield group


def _bytes_of(token: str) -> bytes:
    """The bytes that a byte-level or byte-fallback token stands for; of any other, something else than its text."""
    if _BYTE_TOKEN.fullmatch(token):
        return bytes([int(token[3:5], 16)])
    return bytes(_BYTE_OF.get(character, 0) for character in token)


def _byte_level_alphabet() -> dict[str, int]:
    """The character that stands for each byte in byte-level tokens: itself if it can be seen, else one from U+0100 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + index): byte for index, byte in enumerate(hidden)}


_BYTE_OF = _byte_level_alphabet()


def tokenizer_fingerprint(path: str) -> str:
    """16 hex digits that name the content of a tokenizer's file.

    Raises:
        ConfigError: it can't be read.
    """
    return hashlib.blake2b(_read(path), digest_size=8).hexdigest()


@functools.lru_cache(maxsize=4)
def load_tokenizer(path: str, fingerprint: str) -> Any:
    """The tokenizer of a `tokenizer.json` without what changes offsets or adds tokens: post-processing, truncation, padding.

    Args:
        path: the file.
        fingerprint: what `tokenizer_fingerprint` said of it when the rule was made.

    Raises:
        ConfigError: the file can't be read.
        PatchingError: `tokenizers` isn't installed; the file is another one than it was; or it is no tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise PatchingError("The rule 'bpe' needs the package tokenizers; install it with pip install 'blt-toolkit[hf]'.") from error
    content = _read(path)
    found = hashlib.blake2b(content, digest_size=8).hexdigest()
    if found != fingerprint:
        raise PatchingError(f"The tokenizer {path} has the fingerprint {found} and the rule asks for {fingerprint}; give the file it was.")
    try:
        return Tokenizer.from_str(json.dumps(json.loads(content) | {"post_processor": None, "truncation": None, "padding": None}))
    except Exception as error:  # the library raises nothing narrower
        raise PatchingError(f"{path} is no tokenizer that the installed tokenizers can read: {error}; give a tokenizer.json.") from error


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"Cannot read the tokenizer {path}: {error.strerror}; give the path of a tokenizer.json.") from error

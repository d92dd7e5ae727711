"""A `tokenizer.json` that gives the ids of bytes: byte `b` is `b + 4`, and BOS stands first.

`tokenizers` is an optional dependency (the extra `hf`) and is imported on first use.
"""

from typing import Any

from bltdata.errors import ConfigError
from bltdata.vocab import BOE_ID, BOS_ID, BPE_ID, BYTE_OFFSET, EOS_ID

SPECIAL_TOKENS = {BOE_ID: "<|boe|>", BOS_ID: "<|bos|>", EOS_ID: "<|eos|>", BPE_ID: "<|bpe|>"}
"""Names of the ids that stand for no byte."""

TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": SPECIAL_TOKENS[BOS_ID],
    "eos_token": SPECIAL_TOKENS[EOS_ID],
    "pad_token": SPECIAL_TOKENS[BOE_ID],
    # A text that happens to hold such a name is a text like any other.
    "split_special_tokens": True,
    "clean_up_tokenization_spaces": False,
    # The model is right with padding on this side only.
    "padding_side": "right",
}
"""What transformers' `AutoTokenizer` must know beside `tokenizer.json`."""


def build_tokenizer() -> Any:
    """A `tokenizers.Tokenizer` whose ids of a text are BOS and those of its UTF-8.

    A text that holds the name of a special token, such as `<|bos|>`, is taken for that token, unless `encode_special_tokens` is set on
    the tokenizer; transformers sets it when it reads `TOKENIZER_CONFIG`.

    Raises:
        ConfigError: `tokenizers` isn't installed.
    """
    try:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    except ImportError as error:
        raise ConfigError("tokenizer.json needs the package tokenizers; install it with pip install 'blt-toolkit[hf]'.") from error
    vocabulary = {name: token_id for token_id, name in SPECIAL_TOKENS.items()}
    vocabulary |= {character: byte + BYTE_OFFSET for byte, character in enumerate(byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    bos = SPECIAL_TOKENS[BOS_ID]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B:1", special_tokens=[(bos, BOS_ID)]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS.values()])
    return tokenizer


def byte_characters() -> list[str]:
    """The characters that stand for the 256 bytes in a byte-level vocabulary.

    Printable bytes of Latin-1 stand for themselves, the others, in their order, for the characters from 256 on.

    Source: the byte-level BPE of GPT-2, as `tokenizers` has it.

    >>> [byte_characters()[byte] for byte in b"A "] == ["A", chr(288)]
    True
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]

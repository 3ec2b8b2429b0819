"""The byte vocabulary of Perceiver IO (arXiv 2107.14795): 256 values after the special tokens."""

PAD, BOS, EOS, MASK, CLS, SEP = range(6)
"""Special tokens; byte value v is token v + SPECIALS."""

SPECIALS = 6
BYTE_VOCABULARY = 256 + SPECIALS

SPECIAL_NAMES = ("[PAD]", "[BOS]", "[EOS]", "[MASK]", "[CLS]", "[SEP]")

"""What the experts look at, and which of them a level uses.

An expert is a context: what of the past decides in which bit history the next bit is looked up. Level n, 2 to
9, uses the first 2 n. Beside them every level has the order-1 expert, two match models and, with a model, its
predictions. The contexts' values are in `pastkernels.set_contexts`, in this order.

Contexts are bytes of the past. Where a model predicts, TOKEN_EXPERTS see tokens instead: how the tokenizer
cut the past is what the bytes do not tell.
"""

EXPERTS = (
    "order 2",
    "order 3",
    "order 4",
    "order 6",
    "word",  # letters since the word began, and the byte before
    "shape",  # the last seven runs of letters, of digits, of bytes from 128 up, and single other bytes
    "column",  # of the line, and the byte above
    "order 5",
    "skip 2",  # the two bytes before the last two
    "record",  # the bytes one and two record lengths back
    "followers 2",  # what followed the last two times after these two bytes
    "two words",
    "field",  # number of separators in the line, and the byte before
    "followers 1",
    "skip 1",
    "coarse",  # four bytes without their low bits
    "record, order 1",
    "order 8",
)
# With a model these see the last one, two and three tokens, and the bytes of the next so far.
TOKEN_EXPERTS = (8, 3, 9)
ORDERS = (0, 1, 2, 3, 7)  # experts whose agreement selects weights

LEVELS = range(2, 10)
DEFAULT_LEVEL = 6


def experts_of(level: int) -> int:
    """How many experts a level uses."""
    return 2 * level

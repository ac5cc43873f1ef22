"""The ways to compute a convolution on the CPU. A benchmark chooses one for all convolutions of its process."""

from dash_core import convolution

EVERY, NEVER = 0, 10**9
WAYS = {  # fewest images and channels for filtering; largest map and fewest channels for columns; one position apart
    "torch": (NEVER, NEVER, EVERY, NEVER, False),
    "columns": (NEVER, NEVER, NEVER, EVERY, False),
    "filtering": (EVERY, EVERY, EVERY, NEVER, False),
    "single": (NEVER, NEVER, EVERY, NEVER, True),
    "ours": (
        convolution.LEAST_IMAGES,
        convolution.LEAST_CHANNELS,
        convolution.SMALL_MAP,
        convolution.MANY_CHANNELS,
        convolution.SINGLE,
    ),
}


def take(way: str) -> None:
    """Set how every FastConv2d of this process computes; "ours" is its own choice, the default."""
    convolution.LEAST_IMAGES, convolution.LEAST_CHANNELS, *others = WAYS[way]
    convolution.SMALL_MAP, convolution.MANY_CHANNELS, convolution.SINGLE = others

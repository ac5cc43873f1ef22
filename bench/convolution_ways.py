"""The ways in which a convolution can be made on the CPU, one of which a benchmark has taken wherever it can be."""

from dash_core import convolution

EVERY, NEVER = 0, 10**9
WAYS = {  # from how many images and channels on is filtered; up to which map and from how many channels on by columns
    "torch": (NEVER, NEVER, EVERY, NEVER),
    "columns": (NEVER, NEVER, NEVER, EVERY),
    "filtering": (EVERY, EVERY, EVERY, NEVER),
    "ours": (
        convolution.LEAST_IMAGES,
        convolution.LEAST_CHANNELS,
        convolution.SMALL_MAP,
        convolution.MANY_CHANNELS,
    ),
}


def take(way: str) -> None:
    """Have every FastConv2d of this process make its convolutions in a way, or as it does by itself: "ours"."""
    convolution.LEAST_IMAGES, convolution.LEAST_CHANNELS, convolution.SMALL_MAP, convolution.MANY_CHANNELS = WAYS[way]

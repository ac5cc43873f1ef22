"""DASH and Shrink & Perturb as callbacks of other libraries' trainers: `lightning`, `transformers` and `skorch`.

Each module needs its library, an extra of the distribution: `pip install 'dashpipe[lightning]'`. `method` needs none.
"""

"""Ours beside every peer: time, memory and how close to the machine's peak, in one command.

    python -m benchmarks --list
    python -m benchmarks --case forward/imagenet_fourier --peer transformers --json rows.json

Like `experiments`, this folder is used from a checkout and is no part of the installed package. Each side runs in a
process of its own, with its own interpreter where it needs one, so `worker.py`, `cases.py`, `inputs.py` and `peers/`
import nothing but the standard library, numpy and the one peer, and run on Python 3.10.
"""

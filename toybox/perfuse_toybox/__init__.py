"""Toybox: a procedural picture world and the small Stable-Diffusion-type base trained on it.

`world` says what there is, `drawing` paints it, `captions` puts it into words, `build` trains the
base from nothing, `evaluator` reads pictures and measures similarity.
"""

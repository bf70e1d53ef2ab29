"""Perfuse: teach a text-to-image model new concepts, version them, render with them.

Importing this package loads no torch; `perfuse.method`, `perfuse.attach` and the tensors of
`perfuse.adapter` do, and need the extra `perfuse[engine]`.
"""

__version__ = "0.1.0"

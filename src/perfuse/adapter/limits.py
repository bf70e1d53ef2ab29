"""The named limits of the adapter file; `docs/adapter-format.md` quotes them.

They leave room above what a real adapter needs (SD1.5: 16 layers, 30 KB; SDXL with its own keys
in fp32: 70 layers, 690 KB) and keep what a reader must do for hostile bytes within milliseconds.
"""

from __future__ import annotations

FORMAT_VERSION = 1

# The file. A reader refuses a larger one before it looks at any byte of it.
MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024
LENGTH_BYTES = 8
PREFIX_BYTES = LENGTH_BYTES + MAX_HEADER_BYTES  # always enough to judge a header
HEADER_ALIGNMENT = 8

# The JSON, both the header's own and the metadata inside it.
MAX_JSON_DEPTH = 4
MAX_NUMBER_CHARACTERS = 32
MAX_INTEGER = 2**53 - 1  # beyond it, readers that keep numbers as doubles disagree

# The shape of an adapter.
MAX_LAYERS = 256
MAX_ENCODERS = 4
MAX_WIDTH = 16_384

# Texts, in characters.
MAX_LAYER_NAME = 128
MAX_ENCODER_NAME = 32
MAX_ARCHITECTURE = 64
MAX_SUPER_CATEGORY = 64
MAX_PLACEHOLDER = 64

# The gate's suggested parameters. Similarity is 1 at the target input, so a bias outside 0..1
# either never opens the gate or never closes it.
MIN_BIAS, MAX_BIAS = 0.0, 1.0
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.001, 10.0

# The training summary.
MAX_TRAINING_ENTRIES = 32
MAX_TRAINING_KEY = 48
MAX_TRAINING_TEXT = 256

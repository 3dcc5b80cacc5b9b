"""Imported once, by the fork server: what stages import late and every worker would otherwise import again (seconds each).

Imports only. Nothing here may compute with torch or touch a device: a forked process could not use either afterwards.
"""

import gc
import importlib

MODULES = (
    "torch._dynamo",
    "transformers.modeling_utils",
    "transformers.modeling_layers",
    "transformers.masking_utils",
    "transformers.processing_utils",
    "transformers.tokenization_utils_tokenizers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "scipy.optimize",
    "scipy.stats",
)

for _name in MODULES:
    importlib.import_module(_name)
gc.freeze()  # a collection in a worker need not look at, and so copy, what all workers share

"""ncjax: neural collapse in transfer learning, in JAX.

>>> import ncjax
>>> net = ncjax.load("runs/finetune")  # a run, a checkpoint, or weights trained elsewhere
>>> net.predict("photos/cat.jpg").labels
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ncjax.networks.predictor import Predictor

__version__ = "0.1.0"


def load(init: str, *, which: str | None = None, base: str | None = None, model: str | None = None) -> Predictor:
    """A trained network, ready for images.

    Args:
      init: a run's folder, its checkpoints, a delta, an exported file, or weights trained elsewhere (`hf:OWNER/NAME`).
      which: "best" (by validation accuracy) or "last". Default: what the report's numbers are of, the best of a fine-tuned
        network and the last of a pre-trained one.
      base: where a fine-tuned network's base is now, if not where it was.
      model: the architecture, if not what the card or names and shapes say.

    Raises:
      UserError: there is none, or it is damaged.
    """
    from ncjax.networks.load import Init, reported  # these take jax, which `import ncjax` alone does not
    from ncjax.networks.load import load as load_network
    from ncjax.networks.predictor import Predictor

    return Predictor(load_network(Init(init, which=which or reported(init), base=base, model=model)))


def __getattr__(name: str) -> ModuleType:
    """`ncjax.nc`, `ncjax.runs` and the others without an import of their own."""
    if name in ("data", "models", "nc", "networks", "report", "runs", "tuning"):
        return importlib.import_module(f"ncjax.{name}")
    raise AttributeError(f"module 'ncjax' has no attribute {name!r}")

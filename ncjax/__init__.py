"""ncjax: neural collapse in transfer learning, in JAX."""

from ncjax import memory

__version__ = "0.1.0"

memory.keep()  # before JAX starts its threads

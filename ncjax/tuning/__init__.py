"""Fine-tuning methods, by name: `tuning.scl_ft`, `tuning.last_k(k=3)`."""

from ncjax.tuning.methods import (
    bitfit,
    full_ft,
    head2toe,
    l2_sp,
    last_k,
    layer_ft,
    layer_ft_scaled,
    llrd,
    lora,
    lp_ft,
    norm_only,
    probe,
    scl_ft,
    spectral,
    surgical,
)

__all__ = [
    "bitfit",
    "full_ft",
    "head2toe",
    "l2_sp",
    "last_k",
    "layer_ft",
    "layer_ft_scaled",
    "llrd",
    "lora",
    "lp_ft",
    "norm_only",
    "probe",
    "scl_ft",
    "spectral",
    "surgical",
]

"""Image classifiers as pairs of pure functions; see `ncjax.core.types.Model` for the contract."""

"""Image classifiers as pairs of pure functions; see `ncjax.types.Model` for the contract."""

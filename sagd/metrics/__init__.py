"""How good are samples: distances between sets of images, and power spectra.

`sagd.metrics.features` turns images into features with a network of `sagd.metrics.extractors`,
`sagd.metrics.measure` compares two sets of features by the metrics of `sagd.metrics.distances`, and
`sagd.metrics.rapsd` has the power spectra.
"""

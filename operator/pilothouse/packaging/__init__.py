"""An author's project: a new one, its CRDs, its locked packages. For development; not in the image."""

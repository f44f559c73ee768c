"""A real local Kubernetes cluster for development and tests, built from pinned sources. Not in the image."""

"""A real local Kubernetes cluster for development and tests, from pinned sources. Never in the image."""

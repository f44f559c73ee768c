"""From types and kustomize to what OLM installs: CRD, bundle, catalog, scorecard. Development only."""

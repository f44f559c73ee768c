"""Generates what OLM installs: CRDs, bundles, catalog. Also the demo and the scorecard. Development only."""

"""Projects of authors: creates them, writes their CRDs, locks their packages. Not part of the image."""

"""Preparing corpora: one file a corpus, run as `python -m data_prep.<corpus>`, ending in Lhotse manifests."""

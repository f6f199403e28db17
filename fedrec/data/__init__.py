"""From files to histories: public catalogue, private interactions, sequences, splits, partners, sources."""

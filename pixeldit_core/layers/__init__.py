"""Layers that families share: attention, adaptive normalization, feed-forward, embeddings, positions, patches."""

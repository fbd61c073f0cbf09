"""MovieLens-1M: likes, loves and dislikes of films."""

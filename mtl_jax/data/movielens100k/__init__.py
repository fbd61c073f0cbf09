"""MovieLens-100K: likes, loves and dislikes of films."""

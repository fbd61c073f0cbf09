"""Sets of lifetimes: a generator of ad creatives whose truth is known, and its oracles."""

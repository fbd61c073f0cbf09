"""Multi-Fashion: two garments on one canvas."""

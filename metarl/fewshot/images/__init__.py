"""Few-shot classification of images: sets of images by class, their published splits, and episodes drawn from them."""

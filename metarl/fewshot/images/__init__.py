"""Few-shot image classification: data sets of images by class, their published splits, and sampling of episodes."""

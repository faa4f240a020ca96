"""Image sets as uint8 tensors: sources, batches, augmentation, splits."""

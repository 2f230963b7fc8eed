"""Files of torch.save: verified operation by operation, then read without executing pickled code."""

"""Files of torch.save: verified opcode by opcode, then read without executing pickled code."""

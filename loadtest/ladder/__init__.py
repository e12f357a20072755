"""The ladder of DIEN's section on serving, climbed rung by rung: fused kernels, shared work, a distilled model."""

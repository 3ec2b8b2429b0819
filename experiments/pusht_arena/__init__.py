"""gym-pusht: a T that an agent pushes to its goal; an expert who plans in the simulator, and its demonstrations.

The task is that of Diffusion Policy (arXiv 2303.04137) and Implicit Behavioral Cloning (arXiv 2109.00137).
"""

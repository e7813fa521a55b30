"""What this machine offers: GPUs, driver, processor, memory, and what is wrong with them."""

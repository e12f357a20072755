"""`python -m kernels.aot`: what the GPU kernels compile to, read from their binaries, with no GPU present."""

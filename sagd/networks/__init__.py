"""Networks, with the configuration and the weight names of diffusers."""

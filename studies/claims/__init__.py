"""The paper's claims, decided by contrasts that were written down before."""

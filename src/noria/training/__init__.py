"""Fine-tuning jobs: supervised and DPO, in a process of their own; the server never imports torch."""

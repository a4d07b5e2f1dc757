"""What the operator wrote: the model, its readers (YAML, XML), routing and differences."""

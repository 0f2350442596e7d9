"""Publishing: models and pipelines become registered versions, and versions get their roles."""

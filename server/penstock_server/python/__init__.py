"""Runs whole fitted pipelines that cannot be compiled, in processes of their own, so that their faults cost nobody else."""

"""Who starts workers, and where: launcher=local is a module of this folder by its name.

protocol   what a launcher must provide; begin here to write one
local      threads of this process, an engine each
ray        actors on a Ray cluster: ray_cluster says what it has, ray_actor is what runs there
slurm      jobs of a Slurm array; sbatch: Slurm's commands; job: what a job runs
orders     what jobs and the process that follows them tell one another
signs      a worker's signs of life in the store, which `m3 status` shows
"""

from m3_exp.launchers.protocol import module

__all__ = ["module"]

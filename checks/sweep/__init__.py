"""Sweeps: many checkpoints, on this machine, on Slurm or on Dask, with nothing believed but what is on the disk.

A *task* is one analysis of one checkpoint, known by the key of its record. An *element* is one checkpoint
with all its tasks, or one shard of a large one: what one worker does in one go. The *driver* looks which records
are missing, gives elements to an engine, waits, and looks again; only a record that is whole and has the right key is
work done. All that driver and workers tell each other lies in files under OUT/.sweep, so either may die at any moment:

    plan.json                what the sweep is: elements with the keys that their records must have
    driver.json              lease of the driver: one at a time
    submitted/ELEMENT.json   which engine has it under which job, for which attempt
    leases/ELEMENT.json      which process works on it; its age says whether that still lives
    failures/ELEMENT.N.json  what went wrong in attempt N, and whose attempts that uses up
    logs/                    what workers print
    shards/ELEMENT/          a shard of a large checkpoint, until the record that is made of it is there

The modules: `patterns` and `request` (what is asked for), `planning` (elements and keys), `plan` (how
they lie on the disk), `done` (what is there), `lease` and `failures` (what processes tell each other), `worker` (one
element), `staging` (a checkpoint near its worker), `engine` and `engines` (what runs workers), `driver` and
`element` (the loop, and where each element stands), `progress` (what a reader is told), `steps` (claims over training).
"""

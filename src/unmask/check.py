"""`unmask check`: is the config sound, what would it run, and how long would that take here?"""

from __future__ import annotations

import os

from unmask import plan
from unmask.config import Config


def run(config: Config, *, time: bool = False) -> None:
    """Print the cells of the benchmark, and with `time` an estimate; a config with a mistake never gets here."""
    ratios = {name: config.mask_ratio(name) for name in config["encoders"]}
    encoders = (
        f"{name} ({'no mask' if ratio is None else f'effective ratio {ratio:.3g}'})" for name, ratio in ratios.items()
    )
    seeds, images, groups = config["seeds"], config["explain"]["images"], config.groups
    jobs, passes = plan.jobs(config), plan.passes(config)
    print(f"domains     {', '.join(config['domains'])}")
    print(f"encoders    {', '.join(encoders)}")
    print(
        f"models      {len(config.models)} (domains x encoders x {len(seeds['pretrain'])} x {len(seeds['finetune'])} seeds)"
    )
    print(f"explainers  {sum(map(len, groups.values()))} in {len(groups)} groups, on {images} test images a domain")
    print(f"metrics     {len(config['score']['metrics'])}, removals {', '.join(config['score']['removals'])}")
    print("passes      " + ", ".join(f"{stage} {cost.total / 1e6:.3g} M" for stage, cost in passes.items()))
    print(f"jobs        {sum(jobs.values())} at most (finished ones are not run again), results in {config.results}/")
    if time:
        speed, cores = plan.measure(config), os.cpu_count() or 1
        print(f"time        about {plan.minutes(config, speed, cores):.0f} minutes on {cores} idle cores "
              f"(a pass forward takes {speed.forward * 1e3:.2g} ms, a process {speed.start:.1f} s to start)")  # fmt: skip

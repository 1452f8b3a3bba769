"""`unmask check`: is the config sound, what would it run, and how long would that take here?"""

from __future__ import annotations

import os

from unmask import encoders, plan
from unmask.config import Config
from unmask.submissions import enter


def run(config: Config, *, time: bool = False) -> None:
    """Print the cells of the benchmark, and with `time` an estimate; a config with a mistake never gets here."""
    enter.check(config)
    encoders.check_weights(config["encoders"], config["image"])
    pretrain, finetune = (len(config["seeds"][stage]) for stage in ("pretrain", "finetune"))
    images, groups, score = config["explain"]["images"], config.groups, config["score"]
    passes = (f"{stage} {cost.total / 1e6:.3g} M" for stage, cost in plan.passes(config).items())
    lines = {
        "domains": ", ".join(config["domains"]),
        **_pool(config),
        "encoders": ", ".join(f"{name} ({config.ratio_words(name)})" for name in config["encoders"]),
        "models": f"{len(config.models)} = domains x encoders x {pretrain} x {finetune} seeds",
        "explainers": f"{sum(map(len, groups.values()))} in {len(groups)} groups, on {images} test images a domain",
        **({"submitted": ", ".join(config.submitted)} if config.submitted else {}),
        "metrics": f"{len(score['metrics'])}, removals {', '.join(score['removals'])}",
        "passes": ", ".join(passes),
        "jobs": f"{sum(plan.jobs(config).values())} at most (finished ones are not run again)",
        "results": f"{config.results}/",
    }
    if time:
        speed, cores = plan.measure(config), os.cpu_count() or 1
        minutes = plan.minutes(config, speed, cores)
        one = f"a pass forward takes {speed.forward * 1e3:.2g} ms, a process {speed.start:.1f} s to start"
        lines["time"] = (
            f"about {minutes:.0f} minutes on {cores} idle cores for model passes and process starts ({one}); with all "
            "else, a config of the default's size takes 1.4 times as long, a small one two to four times"
        )
    for name, text in lines.items():
        print(f"{name:<12}{text}")


def _pool(config: Config) -> dict[str, str]:
    """A pool of the user's own, if there is one."""
    given = config["pretrain"].get("pool")
    if not given:
        return {}
    from unmask.pool import count

    images = count(given["path"], given["kind"])
    return {"pool": f"about {images} images in {given['path']} ({given['kind']}), instead of the domains'"}

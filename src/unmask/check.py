"""`unmask check`: is the config sound, and what would it run?"""

from __future__ import annotations

from unmask.config import Config


def run(config: Config) -> None:
    """Print the cells of the benchmark; a config with a mistake never gets here."""
    encoders = ", ".join(
        f"{name} ({'no mask' if (ratio := config.mask_ratio(name)) is None else f'effective ratio {ratio:.3g}'})"
        for name in config["encoders"]
    )
    explainers = [entry for entries in config.groups.values() for entry in entries]
    metrics = config["score"]["metrics"]
    seeds = config["seeds"]
    jobs = len(config["domains"]) + bool(config.pretrained) + len(config.pretrained) * len(seeds["pretrain"])
    jobs += len(config.models) * (1 + 2 * len(config.groups)) + 2
    print(f"domains     {', '.join(config['domains'])}")
    print(f"encoders    {encoders}")
    print(
        f"models      {len(config.models)} = domains x encoders x {len(seeds['pretrain'])} pretraining and "
        f"{len(seeds['finetune'])} fine-tuning seeds"
    )
    images = config["explain"]["images"]
    print(f"explainers  {len(explainers)} in {len(config.groups)} groups, on {images} test images a domain")
    print(f"metrics     {len(metrics)}, removals {', '.join(config['score']['removals'])}")
    print(f"jobs        {jobs}, results in {config.results}/")
